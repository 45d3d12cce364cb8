"""Reading the provider_health view: one row for each endpoint and model, the endpoint's own facts and its spaces with it."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import msgspec

from projections.statements import statement

_QUERY = statement("projections.provider_health", "query")


class Circuit(msgspec.Struct, frozen=True):
    """The newest word on a circuit: `closed`, `open` or `half_open`, since when, and why."""

    state: str
    since: datetime
    reason: str | None


class HealthSeen(msgspec.Struct, frozen=True):
    """The newest word on an endpoint's health, by whichever gateway."""

    state: str
    since: datetime
    reason: str | None


class Attestation(msgspec.Struct, frozen=True):
    """The newest attestation for a space; `cosine_min` is None where vectors were not compared."""

    space: str
    passed: bool
    at: datetime
    cosine_min: float | None


class ProviderHealth(msgspec.Struct, frozen=True):
    """An endpoint and a model. `failed` are its failed attempts by reason; `latency_ms` and `failed_ms` are sums; `failovers` are the requests
    that went on elsewhere. What never was is None. `deployment` is the state that the endpoint's deployment is in, if it is of one.
    """

    endpoint: str
    model: str
    answered: int
    latency_ms: int
    failed_attempts: int
    failed: dict[str, int]
    failed_ms: int
    failovers: int
    last_success_at: datetime | None
    last_failure_at: datetime | None
    circuit: Circuit | None
    health: HealthSeen | None
    deployment: str | None
    attestations: list[Attestation]


async def read_provider_health(
    database: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record],
    *,
    endpoint: str | None = None,
    model: str | None = None,
    limit: int | None = None,
) -> list[ProviderHealth]:
    """What is known of endpoints and the models that they served or were to serve, by name; of one endpoint, of one model."""
    rows = await database.fetch(_QUERY, endpoint, model, limit)
    return [_health(row) for row in rows]


def _health(row: asyncpg.Record) -> ProviderHealth:
    fields = dict(row)
    failed = {name[len("failed_by_") :]: fields.pop(name) for name in list(fields) if name.startswith("failed_by_")}
    circuit = fields.pop("circuit"), fields.pop("circuit_at"), fields.pop("circuit_reason")
    health = fields.pop("health"), fields.pop("health_at"), fields.pop("health_reason")
    spaces = msgspec.json.decode(fields.pop("attestations"), type=list[Attestation])
    return ProviderHealth(
        **fields,
        failed={reason: count for reason, count in failed.items() if count},
        circuit=None if circuit[0] is None else Circuit(*circuit),
        health=None if health[0] is None else HealthSeen(*health),
        attestations=[msgspec.structs.replace(a, at=a.at.astimezone(UTC)) for a in spaces],
    )
