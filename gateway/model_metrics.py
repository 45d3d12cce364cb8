"""How a model does, as the management API and the commands show it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from domain.alerts import Alert
from gateway.http.usage import Latency


class ModelUsage(msgspec.Struct, frozen=True):
    """Sums over the span. `failed` counts `cancelled` and `late` too; `nano_usd` leaves out the `unpriced` requests."""

    requests: int
    failed: int
    cancelled: int
    late: int
    abandoned: int
    inputs: int
    cached_inputs: int
    tokens: int
    billed_tokens: int
    nano_usd: int
    unpriced: int
    requests_per_second: float
    tokens_per_second: float
    error_rate: float | None
    cache_hit_rate: float | None
    latency_ms: Latency | None


class CurrentAlert(msgspec.Struct, frozen=True):
    """An alert about the model that stands now."""

    id: str
    kind: str
    severity: str
    summary: str
    state: str


class ModelMetrics(msgspec.Struct, frozen=True):
    """How the model did in a span of time, of the key's tenant or, for operators without `tenant`, of all.

    `degraded` names the parts that cannot be had now, which are null.
    """

    model: str
    since: str = msgspec.field(name="from")
    until: str = msgspec.field(name="to")
    usage: ModelUsage | None
    alerts: list[CurrentAlert] | None
    degraded: list[str]


def model_usage(row: dict[str, Any], seconds: float) -> ModelUsage:
    """The sums of `read_model_usage` with what follows from them, over a span of so many seconds."""
    outcomes = row["requests"] + row["failed"] + row["abandoned"]
    latency = row.pop("latency_ms")
    return ModelUsage(
        **row,
        requests_per_second=round(row["requests"] / seconds, 6),
        tokens_per_second=round(row["tokens"] / seconds, 6),
        error_rate=None if not outcomes else round((row["failed"] + row["abandoned"]) / outcomes, 6),
        cache_hit_rate=None if not row["inputs"] else round(row["cached_inputs"] / row["inputs"], 6),
        latency_ms=None if latency is None else Latency(**latency),
    )


def current_alerts(found: Iterable[Alert], model: str) -> list[CurrentAlert]:
    """Those of the open alerts that are about the model or a quota of it."""
    now = time.time()
    return [
        CurrentAlert(a.alert, a.kind, a.severity, a.summary, a.state(now))
        for a in found
        if model == a.labels.get("model") or (model == a.labels.get("subject") and a.labels.get("scope") == "model")
    ]
