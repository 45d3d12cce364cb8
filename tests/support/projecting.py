"""A log written by hand, and the views folded from it in plain Python: what the projections' SQL is checked against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import uuid4

import asyncpg
import msgspec

from domain.events import (
    Attempt,
    EmbeddingAbandoned,
    EmbeddingFailed,
    EmbeddingGenerated,
    EmbeddingReembedded,
    EmbeddingRequested,
    EventData,
    Failover,
    encode_data,
)
from tests.support.alerting import alert_event
from tests.support.cataloguing import model_event
from tests.support.provider_health import endpoint_event
from tests.support.tenanting import tenant_event

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Row = tuple[Any, ...]
BOUNDS = [1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000, 30000]
_COLUMNS = [
    "requests",
    "failed",
    "cancelled",
    "late",
    "abandoned",
    "reembedded",
    "inputs",
    "cached_inputs",
    "tokens",
    "billed_tokens",
    "nano_usd",
    "unpriced",
    "provider_nano_usd",
    "provider_unpriced",
    "latency_ms_sum",
    "latency_ms_max",
]


class Recorded(msgspec.Struct, frozen=True):
    """An event as the log would hold it, but for its position: that is its place in the log."""

    at: datetime
    tenant: str
    data: EventData


def requested(
    request_id: str, attempt: int = 1, agent: str = "a", model: str = "m", instance: str = "i", **more: Any
) -> EventData:
    return EmbeddingRequested(
        request_id=request_id, agent=agent, attempt=attempt, at=1, instance=instance, fingerprint="f", model=model,
        space="s", inputs=2, reserved_tokens=9, **more,
    )  # fmt: skip


def generated(request_id: str, attempt: int = 1, agent: str = "a", model: str = "m", **more: Any) -> EventData:
    fields: dict[str, Any] = {
        "provider": "p", "endpoint": "e", "space": "s", "inputs": 2, "tokens": 7, "billed_tokens": 5, "price": "x",
        "latency_ms": 12, "dimensions": 3, "nano_usd": 100, "provider_nano_usd": 90,
    }  # fmt: skip
    return EmbeddingGenerated(request_id=request_id, agent=agent, attempt=attempt, at=1, model=model, **fields | more)


def failed(request_id: str, attempt: int = 1, agent: str = "a", model: str = "m", **more: Any) -> EventData:
    fields: dict[str, Any] = {
        "code": "provider_error", "retryable": False, "message": "no", "space": "s", "inputs": 2, "latency_ms": 3, "tokens": 7,
    }  # fmt: skip
    return EmbeddingFailed(request_id=request_id, agent=agent, attempt=attempt, at=1, model=model, **fields | more)


def abandoned(request_id: str, attempt: int = 1, agent: str = "a", model: str = "m", **more: Any) -> EventData:
    return EmbeddingAbandoned(
        request_id=request_id,
        agent=agent,
        attempt=attempt,
        at=1,
        instance="i",
        model=model,
        space="s",
        inputs=2,
        **more,
    )


def reembedded(request_id: str, agent: str = "a", model: str = "m", provider_nano_usd: int | None = 40) -> EventData:
    return EmbeddingReembedded(
        request_id=request_id, agent=agent, time=1, at=1, model=model, provider="p", endpoint="e", space="s", inputs=2,
        tokens=7, provider_nano_usd=provider_nano_usd,
    )  # fmt: skip


async def write_log(
    owner: Connection,
    events: Sequence[Recorded],
    *,
    schema_version: int = 1,
    encode: Callable[[EventData], bytes] = encode_data,
) -> int:
    """Add events to the log as they are, times included; returns the head. As the owner: `append` sets the time itself."""
    async with owner.transaction():
        await owner.execute("SELECT emberlog.lock_log()")
        head = int(await owner.fetchval("SELECT position FROM emberlog.head()"))
        await owner.executemany(
            "INSERT INTO emberlog.events (position, event_id, tenant, stream, version, type, schema_version, recorded_at, data, "
            "content_hash) VALUES ($1, $2, $3, $4, NULL, $5, $6, $7, $8, '')",
            [
                (head + n, uuid4(), e.tenant, "s", e.data.TYPE, schema_version, e.at, encode(e.data).decode())
                for n, e in enumerate(events, 1)
            ],
        )
    return head + len(events)


def plain_usage(events: Sequence[Recorded], skip: Collection[int] = ()) -> list[Row]:
    """The usage view of these events but those at the positions `skip`, row by row as the table holds it, in the order of its key."""
    view: dict[Row, dict[str, Any]] = defaultdict(lambda: dict.fromkeys(_COLUMNS, 0) | {"bins": [0] * 20})
    for position, event in enumerate(events, 1):
        if position in skip:
            continue
        data = event.data
        if not isinstance(data, EmbeddingGenerated | EmbeddingFailed | EmbeddingAbandoned | EmbeddingReembedded):
            continue
        provider = getattr(data, "provider", None) or ""
        for seconds in (60, 3600, 86400):
            epoch = int(event.at.timestamp())
            bucket = datetime.fromtimestamp(epoch - epoch % seconds, UTC)
            row = view[seconds, bucket, event.tenant, data.agent, data.model, provider]
            match data:
                case EmbeddingGenerated():
                    row["requests"] += 1
                    row["inputs"] += data.inputs
                    row["cached_inputs"] += data.cached_inputs
                    row["tokens"] += data.tokens
                    row["latency_ms_sum"] += data.latency_ms
                    row["latency_ms_max"] = max(row["latency_ms_max"], data.latency_ms)
                    row["bins"][next((n for n, b in enumerate(BOUNDS) if data.latency_ms <= b), 19)] += 1
                    _bill(row, data)
                case EmbeddingFailed():
                    row["failed"] += 1
                    row["cancelled"] += data.code == "cancelled"
                    row["late"] += data.code == "deadline_exceeded"
                    if data.billed_tokens:
                        row["inputs"] += data.inputs
                        row["tokens"] += data.tokens
                    _bill(row, data)
                case EmbeddingAbandoned():
                    row["abandoned"] += 1
                case EmbeddingReembedded():
                    row["reembedded"] += 1
                    _add(row, "provider", data.provider_nano_usd)
    return [(*key, *(row[c] for c in _COLUMNS), row["bins"]) for key, row in sorted(view.items())]


def _bill(row: dict[str, Any], data: EmbeddingGenerated | EmbeddingFailed) -> None:
    row["billed_tokens"] += data.billed_tokens
    if data.nano_usd is None:
        row["unpriced"] += 1
    else:
        row["nano_usd"] += data.nano_usd
    _add(row, "provider", data.provider_nano_usd)


def _add(row: dict[str, Any], who: str, amount: int | None) -> None:
    if amount is None:
        row[f"{who}_unpriced"] += 1
    else:
        row[f"{who}_nano_usd"] += amount


def plain_requests(events: Sequence[Recorded], skip: Collection[int] = (), first: int = 1) -> list[Row]:
    """The requests view of these events, the first at position `first`, but those at `skip`, in the order of its key."""
    view: dict[Row, Row] = {}
    for position, event in enumerate(events, first):
        if position in skip:
            continue
        data = event.data
        if isinstance(data, EmbeddingRequested):
            key = (event.tenant, data.request_id, data.attempt)
            view[key] = ("open", data.agent, data.model, None, data.instance, None, position, event.at, None, None)
        elif isinstance(data, EmbeddingGenerated | EmbeddingFailed | EmbeddingAbandoned):
            key = (event.tenant, data.request_id, data.attempt)
            before = view.get(key, (None,) * 10)
            if before[7] is not None and before[7] < event.at - timedelta(days=30):
                before = (None,) * 10  # as if it had been pruned
            view[key] = (
                data.TYPE.removeprefix("embedding."), data.agent, data.model, getattr(data, "provider", None),
                before[4], getattr(data, "code", None), before[6], before[7], position, event.at,
            )  # fmt: skip
    newest = events[-1].at if events else datetime.now(UTC)
    kept = {k: r for k, r in view.items() if (r[9] or r[7]) >= newest - timedelta(days=30)}
    return [(*key, *row) for key, row in sorted(kept.items())]


def plain_threads(events: Sequence[Recorded], skip: Collection[int] = ()) -> list[Row]:
    """The threads view of these events but those at the positions `skip`, in the order of its key."""
    rows = []
    newest = events[-1].at if events else datetime.now(UTC)
    for position, event in enumerate(events, 1):
        data = event.data
        if position in skip or event.at < newest - timedelta(days=30):
            continue
        if not isinstance(data, EmbeddingRequested | EmbeddingGenerated | EmbeddingFailed | EmbeddingAbandoned):
            continue
        if data.thread is None:
            continue
        tokens = data.reserved_tokens if isinstance(data, EmbeddingRequested) else getattr(data, "tokens", 0)
        rows.append(
            (
                event.tenant, data.thread, position, event.at, data.TYPE.removeprefix("embedding."), data.request_id,
                data.attempt, data.agent, data.model, data.task, getattr(data, "provider", None), data.inputs, tokens,
                getattr(data, "billed_tokens", 0), getattr(data, "nano_usd", 0), getattr(data, "latency_ms", None),
                getattr(data, "code", None),
            )
        )  # fmt: skip
    return sorted(rows)


async def usage_rows(connection: Connection) -> list[Row]:
    """The usage table."""
    columns = ", ".join(_COLUMNS)
    return [
        tuple(r)
        for r in await connection.fetch(
            f"SELECT grain, bucket, tenant, agent, model, provider, {columns}, latency_bins FROM projections.usage "
            'ORDER BY grain, bucket, tenant COLLATE "C", agent COLLATE "C", model COLLATE "C", provider COLLATE "C"'
        )
    ]


async def request_rows(connection: Connection) -> list[Row]:
    """The requests table."""
    return [
        tuple(r)
        for r in await connection.fetch(
            "SELECT tenant, request_id, attempt, state, agent, model, provider, instance, code, requested_position, requested_at, "
            'outcome_position, outcome_at FROM projections.requests ORDER BY tenant COLLATE "C", request_id COLLATE "C", attempt'
        )
    ]


async def start_over(owner: Connection) -> None:
    """Forget the views and begin again at the start of the log."""
    await owner.execute("TRUNCATE projections.usage_1, projections.requests_1, projections.parked")
    await owner.execute("DELETE FROM projections.cursors")


def some_history(count: int, *, start: datetime | None = None, seconds: float = 7.0) -> list[Recorded]:
    """A log of about `count` events of every kind: several tenants, agents, models, days, retries and ids used again."""
    at = start or datetime(2026, 3, 1, 23, 50, tzinfo=UTC)
    events: list[Recorded] = []
    n = 0
    while len(events) < count:
        n += 1
        tenant, agent, model = f"t{n % 3}", f"a{n % 4}", f"m{n % 2}"
        request, attempt = f"r{n % 997}", 1 + n % 2
        at += timedelta(seconds=seconds)
        events.append(Recorded(at, tenant, requested(request, attempt, agent, model, f"i{n % 2}")))
        at += timedelta(seconds=seconds / 7)
        outcome: EventData | None
        match n % 11:
            case 0:
                outcome = failed(request, attempt, agent, model)
            case 1:
                outcome = failed(
                    request, attempt, agent, model, code="cancelled", provider="p", billed_tokens=4, nano_usd=8,
                    provider_nano_usd=8,
                )  # fmt: skip
            case 2:
                outcome = failed(
                    request, attempt, agent, model, code="deadline_exceeded", retryable=True, provider="p",
                    billed_tokens=4, nano_usd=None, provider_nano_usd=None,
                )  # fmt: skip
            case 3:
                outcome = abandoned(request, attempt, agent, model)
            case 4:
                outcome = generated(
                    request, attempt, agent, model, nano_usd=None, provider_nano_usd=None, provider_ms=n,
                    attempts=[Attempt(endpoint="e1", reason="timeout", ms=9)],
                    failover=Failover(model="m0", endpoint="e1", reason="timeout"),
                )  # fmt: skip
            case 5:
                outcome = reembedded(request, agent, model, None if n % 2 else 40)
            case 6:
                outcome = None
            case k:
                outcome = generated(
                    request, attempt, agent, model, latency_ms=n * 37 % 40_000, cached_inputs=k % 3, provider=f"p{k}"
                )
        if outcome is not None:
            events.append(Recorded(at, tenant, outcome))
        if n % 3 == 0:
            for place in range(-1 if outcome is None else -2, 0):
                events[place] = in_thread(events[place], f"th{n % 5}")
        if n % 10 == 0:
            events.append(Recorded(at, tenant, alert_event(n // 10)))
        if n % 15 == 7:
            events.append(Recorded(at, "_system", model_event(n // 15)))
        if n % 15 == 11:
            events.append(Recorded(at, tenant, tenant_event(n // 15)))
        if n % 15 == 3:
            events.append(Recorded(at, "_system", endpoint_event(n // 15)))
    return events


def in_thread(event: Recorded, thread: str) -> Recorded:
    """The event as one of a thread, where it can be."""
    if not hasattr(event.data, "thread"):
        return event
    return msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, thread=thread))
