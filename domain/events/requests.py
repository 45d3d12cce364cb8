"""Requests: what was asked, and what became of it."""

from __future__ import annotations

from typing import Any

import msgspec

from domain.events.base import REQUEST_STREAMS, EventData


class EmbeddingRequested(EventData, frozen=True, gc=False, omit_defaults=True):
    """A request was accepted; nothing has been spent. `reserved_*` bound what it may be billed; its outcome settles them.

    `fingerprint` is the keyed fingerprint of the body (base64url, 22 characters); `instance` the gateway instance that holds it. `day`
    is the calendar day (YYYY-MM-DD) in the tenant's time zone whose quotas it draws on; absent where it is the UTC day of `at`.
    """

    TYPE = "embedding.requested"
    STREAMS = REQUEST_STREAMS
    KEYED = ("fingerprint",)

    request_id: str
    agent: str
    attempt: int
    at: int
    instance: str
    fingerprint: str
    model: str
    space: str
    inputs: int
    reserved_tokens: int
    reserved_nano_usd: int | None = None
    key: str | None = None
    thread: str | None = None
    task: str | None = None
    input_type: str | None = None
    day: str | None = None


class Attempt(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One try at an endpoint that did not succeed: why, the HTTP status if there was one, and how long it took.

    `provider_nano_usd` is what the provider may charge us for this request's texts of it: it was a call that ended with an answer of no
    use, or without one in time. None where the price is unknown. `model` is left out where it is the outcome's.
    """

    endpoint: str
    reason: str
    ms: int
    status: int | None = None
    provider_nano_usd: int | None = 0
    model: str | None = None


class Failover(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What was first in line and did not answer: its model, its endpoint, and why (`quota`, `budget`, `deprecated`, `circuit_open`, ...)."""

    model: str
    endpoint: str
    reason: str


class EmbeddingGenerated(EventData, frozen=True, gc=False, omit_defaults=True):
    """The billed outcome of an attempt. The bill is here whole: unit price, billed tokens, charge; replay never re-prices.

    `nano_usd` is None when the price is unknown. `provider_nano_usd` is what the provider charges us for the texts this request
    had sent. `metadata` is the sender's free metadata, encrypted with the tenant's key (base64). `characters` are those billed where the
    price is per character (0 where it is per token). `instance` and `day` are those of its `requested`: quotas are settled by them.
    With a `collection` its sender was answered only once `stored` vectors, under as many ids, were kept there; whether they were, or it
    was told otherwise, is not in the log.
    """

    TYPE = "embedding.generated"
    STREAMS = REQUEST_STREAMS
    SEALED = ("metadata",)

    request_id: str
    agent: str
    attempt: int
    at: int
    model: str
    provider: str
    endpoint: str
    space: str
    inputs: int
    tokens: int
    billed_tokens: int
    price: str
    latency_ms: int
    dimensions: int
    unit_pico_usd: int | None = None
    nano_usd: int | None = None
    provider_nano_usd: int | None = None
    estimated: bool = False
    cached_inputs: int = 0
    queue_ms: int = 0
    provider_ms: int = 0
    truncated: list[int] = []
    attempts: list[Attempt] = []
    thread: str | None = None
    task: str | None = None
    metadata: str | None = None
    instance: str | None = None
    day: str | None = None
    characters: int = 0
    failover: Failover | None = None
    collection: str | None = None
    stored: int = 0


class EmbeddingFailed(EventData, frozen=True, gc=False, omit_defaults=True):
    """An attempt that ended without a result. Billed only where texts had been sent before a cancel or the deadline.

    `code`, `message`, `retryable` and `details` are what its sender was told.
    """

    TYPE = "embedding.failed"
    STREAMS = REQUEST_STREAMS
    SEALED = ("metadata",)

    request_id: str
    agent: str
    attempt: int
    at: int
    code: str
    retryable: bool
    message: str
    model: str
    space: str
    inputs: int
    latency_ms: int
    provider: str | None = None
    endpoint: str | None = None
    tokens: int = 0
    billed_tokens: int = 0
    estimated: bool = False
    price: str | None = None
    unit_pico_usd: int | None = None
    nano_usd: int | None = 0
    provider_nano_usd: int | None = 0
    details: dict[str, Any] | None = None
    attempts: list[Attempt] = []
    thread: str | None = None
    task: str | None = None
    metadata: str | None = None
    instance: str | None = None
    day: str | None = None
    characters: int = 0
    failover: Failover | None = None


class EmbeddingAbandoned(EventData, frozen=True, gc=False, omit_defaults=True):
    """The instance that held the attempt died before an outcome; its reservation is returned and nothing is billed."""

    TYPE = "embedding.abandoned"
    STREAMS = REQUEST_STREAMS

    request_id: str
    agent: str
    attempt: int
    at: int
    instance: str
    model: str
    space: str
    inputs: int
    thread: str | None = None
    task: str | None = None


class EmbeddingReembedded(EventData, frozen=True, gc=False, omit_defaults=True):
    """A replay whose vectors had left the cache embeds the texts again in the same space, at our cost: the tenant pays 0."""

    TYPE = "embedding.reembedded"
    STREAMS = REQUEST_STREAMS

    request_id: str
    agent: str
    time: int
    at: int
    model: str
    provider: str
    endpoint: str
    space: str
    inputs: int
    tokens: int
    provider_nano_usd: int | None = None
