"""Tenants, their keys and their agents."""

from __future__ import annotations

import msgspec

from domain.events.base import SYSTEM_STREAM, TENANT_STREAMS, EventData


class TenantCreated(EventData, frozen=True, gc=False, omit_defaults=True):
    """A tenant exists. Its id is the name it was created with. `actor`, here and below: who did it, as `key:<id>`, `jwt:<issuer>:<subject>` or `cli:<user>`."""

    TYPE = "tenant.created"
    STREAMS = TENANT_STREAMS
    DECISION = True

    tenant: str
    actor: str | None = None


class KeyCreated(EventData, frozen=True, gc=False, omit_defaults=True):
    """An API key was issued. `hash` is BLAKE2b-256 (hex) of its 256-bit random secret; `tenant` None is an installation key.

    `expires_at` is in seconds since the epoch. A key with an `agent` speaks for that agent alone.
    """

    TYPE = "key.created"
    STREAMS = (*TENANT_STREAMS, SYSTEM_STREAM)
    DECISION = True

    key: str
    hash: str
    scopes: list[str]
    tenant: str | None = None
    expires_at: int | None = None
    name: str | None = None
    agent: str | None = None
    actor: str | None = None


class KeyRevoked(EventData, frozen=True, gc=False, omit_defaults=True):
    """An API key stopped being valid."""

    TYPE = "key.revoked"
    STREAMS = (*TENANT_STREAMS, SYSTEM_STREAM)
    DECISION = True

    key: str
    actor: str | None = None


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
    actor: str | None = None


class TenantShredded(EventData, frozen=True, gc=False, omit_defaults=True):
    """A tenant's key was destroyed for good: what it sealed cannot be opened any more, and its API keys are refused."""

    TYPE = "tenant.shredded"
    STREAMS = TENANT_STREAMS
    DECISION = True

    tenant: str
    actor: str | None = None


class TenantConfigured(EventData, frozen=True, gc=False, omit_defaults=True):
    """A tenant's own settings, whole: the latest statement holds.

    `failover` is the default of its requests; `time_zone` (IANA) sets its calendar windows; with `require_known_prices` no model of
    unknown price serves it; `tier` opens models of that tier and below. `price_ceiling` is what a soft budget that is used up leaves:
    `cheapest` (only the cheapest adequate model) or `none` (nothing changes).
    """

    TYPE = "tenant.configured"
    STREAMS = TENANT_STREAMS
    DECISION = True

    failover: str = "same_space"
    time_zone: str = "UTC"
    require_known_prices: bool = False
    tier: str = "enterprise"
    price_ceiling: str = "cheapest"
    actor: str | None = None


class TenantModelConfigured(EventData, frozen=True, gc=False, omit_defaults=True):
    """How a tenant may use a model, whole: the latest statement holds. A tenant with any such statement uses no other models.

    `state` is `configured`, `enabled` or `disabled`; `default` makes it the tenant's default instead of the one before. `priority`:
    higher is preferred. `fallback_models` are tried in this order before any other where another model may answer.
    """

    TYPE = "tenant_model.configured"
    STREAMS = TENANT_STREAMS
    DECISION = True

    model: str
    state: str = "enabled"
    default: bool = False
    priority: int = 100
    fallback_models: list[str] = []
    custom_settings: dict[str, str] = {}
    actor: str | None = None


class TenantModelRemoved(EventData, frozen=True, gc=False, omit_defaults=True):
    """A tenant has a model no longer."""

    TYPE = "tenant_model.removed"
    STREAMS = TENANT_STREAMS
    DECISION = True

    model: str
    actor: str | None = None
