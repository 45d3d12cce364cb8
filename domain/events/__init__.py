"""Every event of the log: its type name, its schema version and the shape of its data.

No event holds a text, a vector, a token or a key. Times inside events (`at`) are microseconds since the Unix epoch on the gateway's
clock; the log's own `recorded_at` orders them. Fields at their default are left out of the JSON.
"""

from __future__ import annotations

import msgspec

from domain.events.alerts import (
    AlertAcknowledged,
    AlertRaised,
    AlertResolved,
    AlertSilenced,
    WebhookCreated,
    WebhookDeleted,
    WebhookDeliveryFailed,
    WebhookSecretRotated,
)
from domain.events.base import PRICES_STREAM, SYSTEM_STREAM, SYSTEM_TENANT, EventData
from domain.events.catalogue import (
    ModelRegistered,
    ModelSpec,
    ModelStateChanged,
    ModelUpdated,
    ModelValidated,
    OfferingSpec,
    PriceSet,
)
from domain.events.limits import QuotaRemoved, QuotaSet, RateLimitRemoved, RateLimitSet
from domain.events.requests import (
    Attempt,
    EmbeddingAbandoned,
    EmbeddingFailed,
    EmbeddingGenerated,
    EmbeddingReembedded,
    EmbeddingRequested,
    Failover,
)
from domain.events.system import (
    LogArchived,
    LogRestored,
    MaintenanceRan,
    MasterKeyRotated,
    ProjectionHalted,
    ProjectionParked,
    ProjectionRebuilt,
    ProjectionRolledBack,
    ProjectionUnparked,
    SettingChanged,
)
from domain.events.tenancy import (
    AgentRegistered,
    KeyCreated,
    KeyRevoked,
    Preferences,
    TenantConfigured,
    TenantCreated,
    TenantModelConfigured,
    TenantModelRemoved,
    TenantShredded,
)

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
        TenantConfigured,
        TenantModelConfigured,
        TenantModelRemoved,
        QuotaSet,
        QuotaRemoved,
        RateLimitSet,
        RateLimitRemoved,
        ModelRegistered,
        ModelUpdated,
        ModelStateChanged,
        ModelValidated,
        PriceSet,
        AlertRaised,
        AlertResolved,
        AlertAcknowledged,
        AlertSilenced,
        WebhookCreated,
        WebhookSecretRotated,
        WebhookDeleted,
        WebhookDeliveryFailed,
        MasterKeyRotated,
        MaintenanceRan,
        LogArchived,
        LogRestored,
        ProjectionHalted,
        ProjectionParked,
        ProjectionUnparked,
        ProjectionRebuilt,
        ProjectionRolledBack,
        SettingChanged,
    )
}
"""Type name -> the struct of its data."""

encode_data = msgspec.json.Encoder().encode

__all__ = [
    "EVENT_TYPES",
    "PRICES_STREAM",
    "SYSTEM_STREAM",
    "SYSTEM_TENANT",
    "AgentRegistered",
    "AlertAcknowledged",
    "AlertRaised",
    "AlertResolved",
    "AlertSilenced",
    "Attempt",
    "EmbeddingAbandoned",
    "EmbeddingFailed",
    "EmbeddingGenerated",
    "EmbeddingReembedded",
    "EmbeddingRequested",
    "EventData",
    "Failover",
    "KeyCreated",
    "KeyRevoked",
    "LogArchived",
    "LogRestored",
    "MaintenanceRan",
    "MasterKeyRotated",
    "ModelRegistered",
    "ModelSpec",
    "ModelStateChanged",
    "ModelUpdated",
    "ModelValidated",
    "OfferingSpec",
    "Preferences",
    "PriceSet",
    "ProjectionHalted",
    "ProjectionParked",
    "ProjectionRebuilt",
    "ProjectionRolledBack",
    "ProjectionUnparked",
    "QuotaRemoved",
    "QuotaSet",
    "RateLimitRemoved",
    "RateLimitSet",
    "SettingChanged",
    "TenantConfigured",
    "TenantCreated",
    "TenantModelConfigured",
    "TenantModelRemoved",
    "TenantShredded",
    "WebhookCreated",
    "WebhookDeleted",
    "WebhookDeliveryFailed",
    "WebhookSecretRotated",
    "encode_data",
]
