"""The catalogue of models, and the price book."""

from __future__ import annotations

import msgspec

from domain.events.base import MODEL_STREAMS, PRICES_STREAM, EventData


class ModelSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model is, whoever offers it. Its id is the stream's.

    `dimensions` is the default size of its vectors; `dimensions_allowed` lists others, or `dimensions_range` gives [min, max].
    `max_tokens` bounds one input; `unit`: vectors have length 1; `rank` orders by quality, 1 best. `type` is `embedding`; others may be
    registered and are refused where vectors are asked for. `model_type` is `text`, `multimodal` or `code`; `minimum_tier` the lowest
    tier of a tenant that may use it. `created` is in seconds since the epoch.
    """

    version: str
    dimensions: int
    max_tokens: int
    unit: bool = True
    rank: int = 1000
    name: str | None = None
    type: str = "embedding"
    model_type: str = "text"
    tokenizer: str | None = None
    dimensions_allowed: list[int] = []
    dimensions_range: tuple[int, int] | None = None
    aliases: list[str] = []
    supports_binary: bool = False
    minimum_tier: str = "free"
    capabilities: list[str] = []
    owned_by: str = ""
    created: int = 0


class OfferingSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """The model at one provider: its id there, its caps, and the settings of that provider's own (`config`, checked by its schema)."""

    provider: str
    provider_model: str
    max_inputs: int
    max_tokens_per_call: int
    takes_tokens: bool = False
    sends_dimensions: bool = False
    config: dict[str, str] = {}


class ModelRegistered(EventData, frozen=True, gc=False, omit_defaults=True):
    """A model is in the catalogue. `origin` is `operator` (it starts in `draft`), `discovery` or `shipped` (it starts `available`).

    `shipped` is the digest (hex) of the facts that the release came with, where they are from there.
    """

    TYPE = "model.registered"
    STREAMS = MODEL_STREAMS
    DECISION = True

    model: str
    spec: ModelSpec
    offerings: list[OfferingSpec]
    state: str = "draft"
    origin: str = "operator"
    shipped: str | None = None
    actor: str | None = None


class ModelUpdated(EventData, frozen=True, gc=False, omit_defaults=True):
    """A model's facts, whole: the latest statement holds."""

    TYPE = "model.updated"
    STREAMS = MODEL_STREAMS
    DECISION = True

    model: str
    spec: ModelSpec
    offerings: list[OfferingSpec]
    origin: str = "operator"
    shipped: str | None = None
    actor: str | None = None


class ModelStateChanged(EventData, frozen=True, gc=False, omit_defaults=True):
    """A model's place in its lifecycle: `draft`, `testing`, `available`, `unavailable`, `deprecated`, `removed`.

    `available` says of a deprecated model whether it can be had; `removed_at` (seconds since the epoch) is when its grace period ends.
    """

    TYPE = "model.state_changed"
    STREAMS = MODEL_STREAMS
    DECISION = True

    model: str
    state: str
    previous: str
    available: bool = True
    reason: str | None = None
    removed_at: int | None = None
    actor: str | None = None


class ModelValidated(EventData, frozen=True, gc=False, omit_defaults=True):
    """Probe texts of ours were embedded by a model at an endpoint: whether its vectors are what the catalogue says.

    `norm_min` and `norm_max` are lengths of vectors in millionths; `digest` (hex) is of the reference vectors of the space, which are
    kept beside the log. `problems` says in words what was not as stated.
    """

    TYPE = "model.validated"
    STREAMS = MODEL_STREAMS
    DECISION = True

    model: str
    endpoint: str
    passed: bool
    at: int
    space: str | None = None
    dimensions: int | None = None
    norm_min: int | None = None
    norm_max: int | None = None
    latency_ms: int | None = None
    digest: str | None = None
    problems: list[str] = []
    actor: str | None = None


class PriceSet(EventData, frozen=True, gc=False, omit_defaults=True):
    """A price of a model at a provider, from `effective_from` until `effective_until` (seconds since the epoch; None: until the next).

    `unit` is `token` or `character`; `unit_pico_usd` None is unknown, 0 is free. `for_tenant` None is the list price, else what that tenant
    is charged instead of it. The book is append-only: said again of the same `price`, it states an earlier end and changes nothing else.
    """

    TYPE = "price.set"
    STREAMS = (PRICES_STREAM,)
    DECISION = True

    price: str
    model: str
    provider: str
    effective_from: int
    unit: str = "token"
    unit_pico_usd: int | None = None
    effective_until: int | None = None
    for_tenant: str | None = None
    source: str | None = None
    actor: str | None = None
