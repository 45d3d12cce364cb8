"""Every event of the log: its type name, its schema version and the shape of its data.

No event holds a text, a vector, a token or a key. Times inside events (`at`) are microseconds since the Unix epoch on the gateway's
clock; the log's own `recorded_at` orders them. Fields at their default are left out of the JSON.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

SYSTEM_TENANT = "_system"
"""The tenant of the installation's own events and calls."""

SYSTEM_STREAM = "system"
"""The stream of the installation's own events, and of its keys."""

_REQUEST = ("request/{tenant}/{request_id}",)
_TENANT = ("tenant/{tenant}",)


class EventData(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Base of all event data.

    `TYPE` is the event's name in the log, `SCHEMA` the version in which its data is written today. `STREAMS` are the streams it may
    stand in, with {tenant} (the event's own) and fields of the data; a `DECISION` has a version in its stream, a fact has none.
    Fields in `SEALED` are encrypted with the tenant's key, those in `KEYED` are fingerprints made with it.
    """

    TYPE: ClassVar[str]
    SCHEMA: ClassVar[int] = 1
    STREAMS: ClassVar[tuple[str, ...]] = (SYSTEM_STREAM,)
    DECISION: ClassVar[bool] = False
    SEALED: ClassVar[tuple[str, ...]] = ()
    KEYED: ClassVar[tuple[str, ...]] = ()


class EmbeddingRequested(EventData, frozen=True, gc=False, omit_defaults=True):
    """A request was accepted; nothing has been spent. `reserved_*` bound what it may be billed; its outcome settles them.

    `fingerprint` is the keyed fingerprint of the body (base64url, 22 characters); `instance` the gateway instance that holds it.
    """

    TYPE = "embedding.requested"
    STREAMS = _REQUEST
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


class Attempt(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One try at an endpoint that did not succeed: why, the HTTP status if there was one, and how long it took."""

    endpoint: str
    reason: str
    ms: int
    status: int | None = None


class EmbeddingGenerated(EventData, frozen=True, gc=False, omit_defaults=True):
    """The billed outcome of an attempt. The bill is here whole: unit price, billed tokens, charge; replay never re-prices.

    `nano_usd` is None when the price is unknown. `provider_nano_usd` is what the provider charges us for the texts this request
    had sent. `metadata` is the sender's free metadata, encrypted with the tenant's key (base64).
    """

    TYPE = "embedding.generated"
    STREAMS = _REQUEST
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


class EmbeddingFailed(EventData, frozen=True, gc=False, omit_defaults=True):
    """An attempt that ended without a result. Billed only where texts had been sent before a cancel or the deadline.

    `code`, `message`, `retryable` and `details` are what its sender was told.
    """

    TYPE = "embedding.failed"
    STREAMS = _REQUEST
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


class EmbeddingAbandoned(EventData, frozen=True, gc=False, omit_defaults=True):
    """The instance that held the attempt died before an outcome; its reservation is returned and nothing is billed."""

    TYPE = "embedding.abandoned"
    STREAMS = _REQUEST

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
    STREAMS = _REQUEST

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


class TenantCreated(EventData, frozen=True, gc=False, omit_defaults=True):
    """A tenant exists. Its id is the name it was created with."""

    TYPE = "tenant.created"
    STREAMS = _TENANT
    DECISION = True

    tenant: str


class KeyCreated(EventData, frozen=True, gc=False, omit_defaults=True):
    """An API key was issued. `hash` is BLAKE2b-256 (hex) of its 256-bit random secret; `tenant` None is an installation key.

    `expires_at` is in seconds since the epoch.
    """

    TYPE = "key.created"
    STREAMS = (*_TENANT, SYSTEM_STREAM)
    DECISION = True

    key: str
    hash: str
    scopes: list[str]
    tenant: str | None = None
    expires_at: int | None = None
    name: str | None = None


class KeyRevoked(EventData, frozen=True, gc=False, omit_defaults=True):
    """An API key stopped being valid."""

    TYPE = "key.revoked"
    STREAMS = (*_TENANT, SYSTEM_STREAM)
    DECISION = True

    key: str


class Preferences(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an agent wants its models chosen (`agent.register`)."""

    strategy: str = "tenant_default"
    models: list[str] = []
    task_models: dict[str, str] = {}
    required_dimensions: int | None = None
    max_cost_per_request_nano_usd: int | None = None
    monthly_budget_nano_usd: int | None = None
    max_latency_ms: int | None = None


class AgentRegistered(EventData, frozen=True, gc=False, omit_defaults=True):
    """An agent stated its preferences; the latest statement holds."""

    TYPE = "agent.registered"
    STREAMS = ("agent/{tenant}/{agent}",)
    DECISION = True
    SEALED = ("metadata",)

    agent: str
    preferences: Preferences
    name: str | None = None
    version: str | None = None
    capabilities: list[str] = []
    metadata: str | None = None


class TenantShredded(EventData, frozen=True, gc=False, omit_defaults=True):
    """A tenant's key was destroyed for good: what it sealed cannot be opened any more, and its API keys are refused."""

    TYPE = "tenant.shredded"
    STREAMS = _TENANT
    DECISION = True

    tenant: str


class MasterKeyRotated(EventData, frozen=True, gc=False, omit_defaults=True):
    """Every tenant's key was wrapped anew with another installation key. `tenants` counts them."""

    TYPE = "master_key.rotated"

    tenants: int
    at: int


class MaintenanceRan(EventData, frozen=True, gc=False, omit_defaults=True):
    """A run of a periodic task: what it did in numbers, or the error that ended it; `ms` is how long it took."""

    TYPE = "maintenance.ran"

    task: str
    at: int
    ms: int
    instance: str
    result: dict[str, int] = {}
    error: str | None = None


class LogArchived(EventData, frozen=True, gc=False, omit_defaults=True):
    """The events `first_position` to `last_position` moved from Postgres to a segment file. `sha256` (hex) is the file's."""

    TYPE = "log.archived"

    first_position: int
    last_position: int
    file: str
    sha256: str
    at: int


class LogRestored(EventData, frozen=True, gc=False, omit_defaults=True):
    """The log was restored from a backup: cursors of the incarnation `previous` are refused from here on.

    `shredded` counts the tenants whose destruction was applied again.
    """

    TYPE = "log.restored"

    previous: str
    shredded: int
    at: int


class ProjectionHalted(EventData, frozen=True, gc=False, omit_defaults=True):
    """A view stands before the event at `failed_position`, which it cannot fold; `error` says why, without the event's data."""

    TYPE = "projection.halted"

    projection: str
    generation: int
    failed_position: int
    error: str


class ProjectionParked(EventData, frozen=True, gc=False, omit_defaults=True):
    """A view went on without the event at `failed_position`, which it cannot fold; it waits to be retried or discarded."""

    TYPE = "projection.parked"

    projection: str
    generation: int
    failed_position: int
    error: str


class ProjectionUnparked(EventData, frozen=True, gc=False, omit_defaults=True):
    """A parked event was folded after all (`action` `retried`), or given up (`discarded`)."""

    TYPE = "projection.unparked"

    projection: str
    generation: int
    failed_position: int
    action: str
    at: int


class ProjectionRebuilt(EventData, frozen=True, gc=False, omit_defaults=True):
    """A view is read from a generation folded anew from the whole log. `digest` (hex) is the view's at `up_to`.

    `equal` is whether the generation before it had the same digest there.
    """

    TYPE = "projection.rebuilt"

    projection: str
    generation: int
    previous: int
    up_to: int
    digest: str
    equal: bool
    at: int


class ProjectionRolledBack(EventData, frozen=True, gc=False, omit_defaults=True):
    """A view is read from the generation before its last rebuild again."""

    TYPE = "projection.rolled_back"

    projection: str
    generation: int
    previous: int
    at: int


EVENT_TYPES: dict[str, type[EventData]] = {
    t.TYPE: t
    for t in (
        EmbeddingRequested,
        EmbeddingGenerated,
        EmbeddingFailed,
        EmbeddingAbandoned,
        EmbeddingReembedded,
        TenantCreated,
        KeyCreated,
        KeyRevoked,
        AgentRegistered,
        TenantShredded,
        MasterKeyRotated,
        MaintenanceRan,
        LogArchived,
        LogRestored,
        ProjectionHalted,
        ProjectionParked,
        ProjectionUnparked,
        ProjectionRebuilt,
        ProjectionRolledBack,
    )
}
"""Type name -> the struct of its data."""

encode_data = msgspec.json.Encoder().encode
