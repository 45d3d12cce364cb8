"""The provider port: one call embeds a batch of texts. Adapters translate to and from one provider's API and nothing else.

Retries, batching, bisecting, deadlines and billing are the dispatcher's; an adapter makes exactly one call for one `embed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

if (
    TYPE_CHECKING
):  # for a command that only needs the names of this module, loading it takes longer than the rest of its work
    import numpy as np
    from numpy.typing import NDArray

Text = str | list[int]
"""One input: text, or the tokens of the model's tokeniser."""


class EmbedCall(msgspec.Struct, frozen=True, gc=False):
    """One provider call. `texts` are all strings or all token lists, at least one, within the offering's caps.

    `model` is the provider's own id. `dimensions` is None where the model's default is meant (or the model has one size only).
    `timeout` is in seconds, for the whole call. `input_type` is the contract's (`query`, `document`, `classification`, `clustering`), to be
    mapped to the provider's. `config` are the offering's settings of the provider's own.
    """

    texts: Sequence[Text]
    model: str
    timeout: float
    dimensions: int | None = None
    input_type: str | None = None
    config: Mapping[str, str] = {}


class EmbedAnswer(msgspec.Struct, frozen=True, gc=False):
    """`vectors`: float32, C order, shape (number of texts, dimensions), finite, in the order of the texts, as the provider gave them: cutting
    them to another size and bringing them to length 1 is the dispatcher's.

    `tokens` is the provider's count for the whole call, None where it gives none; `text_tokens` per text where it gives that.
    """

    vectors: NDArray[np.float32]
    tokens: int | None = None
    text_tokens: list[int] | None = None


class ProviderFault(StrEnum):
    """The one taxonomy that every provider's errors are mapped to."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    """Refused, reset, DNS, TLS."""
    SERVER = "server"
    """5xx."""
    RATE_LIMITED = "rate_limited"
    """429; paces the lane and is no sign of ill health."""
    AUTHENTICATION = "authentication"
    """401 or 403: our credential, not the caller's request."""
    NOT_SERVED = "not_served"
    """There is no such model, deployment or address at the endpoint: its configuration is at fault, no text is."""
    REFUSED = "refused"
    """Another 4xx: something in the batch is not to the provider's liking."""
    TOO_LONG = "too_long"
    """A text is over the model's limit; `index` says which, where the provider says so."""
    TOO_LARGE = "too_large"
    """The call as a whole is over a limit (items, tokens, bytes): send fewer texts."""
    BAD_ANSWER = "bad_answer"
    """Not what was asked for: wrong count, wrong dimensions, NaN, truncated or foreign body."""
    CIRCUIT_OPEN = "circuit_open"
    """Ours, not a provider's: nothing was sent, because the endpoint's circuit is open or it is unhealthy."""
    DRIFTED = "drifted"
    """Ours: nothing was sent, because the endpoint's vectors are not those of the space."""
    UNATTESTED = "unattested"
    """Ours: nothing was sent, because our probes could not be sent (their budget is used up) or were refused."""

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later in the same place."""
        return self in _RETRYABLE

    @property
    def elsewhere(self) -> bool:
        """Whether the same call may succeed at another endpoint."""
        return self in _ELSEWHERE


_RETRYABLE = frozenset(
    {
        ProviderFault.TIMEOUT,
        ProviderFault.CONNECTION,
        ProviderFault.SERVER,
        ProviderFault.RATE_LIMITED,
        ProviderFault.BAD_ANSWER,
    }
)

_ELSEWHERE = _RETRYABLE | {
    ProviderFault.NOT_SERVED,
    ProviderFault.AUTHENTICATION,
    ProviderFault.CIRCUIT_OPEN,
    ProviderFault.DRIFTED,
    ProviderFault.UNATTESTED,
}


LONGEST_PAUSE = 86_400.0
"""Seconds that a provider can ask for before it is called again: what it names beyond that, it may have made up."""


class ProviderError(Exception):
    """A provider call failed. `detail` never holds a text or a key; `retry_after` is in seconds, a day at most."""

    def __init__(
        self,
        fault: ProviderFault,
        detail: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        index: int | None = None,
    ) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail
        self.status = status
        self.retry_after = None if retry_after is None else min(retry_after, LONGEST_PAUSE)
        self.index = index


class Provider(Protocol):
    """One configured endpoint of a provider."""

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once. Raises `ProviderError` and nothing else (cancellation passes)."""
        ...

    async def warm_up(self) -> None:
        """Get ready ahead of the first call, where that takes time. Raises `ProviderError`."""
        ...

    async def check(self, timeout: float) -> None:
        """A sign of life that costs nothing, within `timeout` seconds: the provider can be reached and takes our credential, as far as can be
        told without embedding. Raises `ProviderError` and nothing else.
        """
        ...

    async def close(self) -> None:
        """Release connections and threads. Idempotent."""
        ...
