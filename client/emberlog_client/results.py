"""What a call returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .types import Encoding
from .vectors import Array, to_float32


@dataclass(frozen=True, slots=True)
class Usage:
    """`tokens` counts the whole input, `billed_tokens` what is charged; `truncated` are indices into the texts given."""

    tokens: int = 0
    billed_tokens: int = 0
    cached_inputs: int = 0
    truncated: tuple[int, ...] = ()
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """`nano_usd` is None when the price is unknown, never 0 for that reason. `price` names the price, None if several applied."""

    nano_usd: int | None
    price: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint and the model it served."""

    endpoint: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class Failover:
    """The first in line did not answer: from where to where, and why."""

    source: Place
    target: Place
    reason: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds at the gateway. Of a call sent as several requests, the longest of each."""

    queue_ms: float = 0.0
    provider_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a model was passed over (dry run only)."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One answered call. All vectors are of one `space`; compare them only with vectors of the same space.

    `vectors` has one row per text, in the order given, in the encoding asked for (see `Array`), and is read-only.
    It has no rows after a dry run and after `Client.stream`, whose chunks carried them.
    A call sent as several requests has several `ids` and `events`, summed `usage` and `cost`, the first's `provider`.
    """

    vectors: Array
    scales: npt.NDArray[np.float32] | None
    encoding: Encoding
    count: int
    dimensions: int
    model: str
    space: str
    provider: str | None
    endpoint: str | None
    ids: tuple[str, ...]
    events: tuple[str, ...]
    usage: Usage
    cost: Cost
    timings: Timings
    replayed: bool
    """True when every part repeats an outcome that had been billed before."""
    failover: Failover | None = None
    notices: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    quota_remaining: Any = None

    @property
    def id(self) -> str:
        """The id of the request, of the first if there were several."""
        return self.ids[0]

    @property
    def event(self) -> str | None:
        """The id of the outcome event, of the first if there were several; None after a dry run."""
        return self.events[0] if self.events else None

    def float32(self) -> npt.NDArray[np.float32]:
        """The vectors as float32, shape (n, dimensions). `ubinary` decodes to +1 and -1."""
        return to_float32(self.vectors, self.dimensions, self.encoding, self.scales)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Consecutive texts of a stream: `offset` is the index of the first. Final only once the stream has ended well."""

    offset: int
    vectors: Array
    scales: npt.NDArray[np.float32] | None
    encoding: Encoding

    @property
    def count(self) -> int:
        """The number of texts."""
        return len(self.vectors)

    def float32(self, dimensions: int | None = None) -> npt.NDArray[np.float32]:
        """The vectors as float32. For `ubinary` give the model's dimensions, else its padding is decoded too."""
        width = self.vectors.shape[1] * (8 if self.encoding == "ubinary" else 1)
        return to_float32(self.vectors, dimensions or width, self.encoding, self.scales)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call would do: the model that would answer, its tokens and cost, and why others were passed over."""

    model: str
    space: str
    tokens: int
    nano_usd: int | None
    reasons: tuple[Reason, ...]


Message = Mapping[str, Any]


def read_usage(message: Message, offset: int) -> Usage:
    """The `usage` of one answer whose first text is number `offset` of the call."""
    usage: Message = message.get("usage") or {}
    return Usage(
        tokens=usage.get("tokens") or 0,
        billed_tokens=usage.get("billed_tokens") or 0,
        cached_inputs=usage.get("cached_inputs") or 0,
        truncated=tuple(index + offset for index in usage.get("truncated") or ()),
        estimated=bool(usage.get("estimated")),
    )


def read_failover(message: Message) -> Failover | None:
    """The `failover` of one answer."""
    failover = message.get("failover")
    if not failover:
        return None
    source: Message = failover.get("from") or {}
    target: Message = failover.get("to") or {}
    return Failover(
        source=Place(source.get("endpoint"), source.get("model")),
        target=Place(target.get("endpoint"), target.get("model")),
        reason=str(failover.get("reason")),
    )


def combine_usage(parts: list[Usage]) -> Usage:
    """The usage of a call from that of its requests."""
    if len(parts) == 1:
        return parts[0]
    return Usage(
        tokens=sum(part.tokens for part in parts),
        billed_tokens=sum(part.billed_tokens for part in parts),
        cached_inputs=sum(part.cached_inputs for part in parts),
        truncated=tuple(index for part in parts for index in part.truncated),
        estimated=any(part.estimated for part in parts),
    )


def combine_cost(messages: list[Message]) -> Cost:
    """The cost of a call: unknown as soon as one part's price is."""
    costs: list[Message] = [message.get("cost") or {} for message in messages]
    amounts = [cost.get("nano_usd") for cost in costs]
    prices = {cost.get("price") for cost in costs}
    known = [amount for amount in amounts if amount is not None]
    return Cost(
        nano_usd=sum(known) if len(known) == len(amounts) else None,
        price=prices.pop() if len(prices) == 1 else None,
    )


def combine_timings(messages: list[Message]) -> Timings:
    """The longest of each timing over the requests of a call."""
    timings: list[Message] = [message.get("timings") or {} for message in messages]
    return Timings(
        queue_ms=max(float(timing.get("queue_ms") or 0) for timing in timings),
        provider_ms=max(float(timing.get("provider_ms") or 0) for timing in timings),
        total_ms=max(float(timing.get("total_ms") or 0) for timing in timings),
    )
