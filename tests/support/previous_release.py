"""A gateway of release 0.1.0 as the database sees it: its frozen statements, in its order, with its arguments.

What it is told comes back without what differs from database to database: ids of instances, times, hashes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from adapters.postgres.migrator import Migration
from adapters.postgres.pool import Connection
from tests.support.databases import with_user

FOLDER = Path(__file__).parents[1] / "corpus" / "release-0.1.0"
MIGRATIONS = {
    name: bytes.fromhex(digest)
    for digest, name in (line.split() for line in (FOLDER / "migrations.sha256").read_text().splitlines())
}
"""The migrations of that release: name -> SHA-256."""
TYPES = {
    "usage": ["embedding.generated", "embedding.failed", "embedding.abandoned", "embedding.reembedded"],
    "requests": ["embedding.requested", "embedding.generated", "embedding.failed", "embedding.abandoned"],
}
_USAGE_ROW = (
    "tenant", "agent", "model", "provider", "requests", "failed", "cancelled", "late", "abandoned", "reembedded", "inputs",
    "cached_inputs", "tokens", "billed_tokens", "nano_usd", "unpriced", "provider_nano_usd", "provider_unpriced",
    "latency_ms_sum", "latency_ms_max", "latency_bins",
)  # fmt: skip
_REQUESTS_ROW = (
    "tenant", "request_id", "attempt", "state", "agent", "model", "provider", "code", "requested_position", "outcome_position",
)  # fmt: skip
_LEASE = timedelta(seconds=10)

Event = tuple[bytes, str, str, str, dict[str, Any], str, int | None]
"""Key, tenant, stream, type, data, fingerprint (hex or empty), expected version."""


def sql(name: str) -> str:
    """The frozen text of a statement."""
    return (FOLDER / f"{name}.sql").read_text()


def of_that_release(migrations: Sequence[Migration]) -> list[Migration]:
    """Those of `migrations` that the release had."""
    return [m for m in migrations if m.name in MIGRATIONS]


def key(number: int) -> bytes:
    """A dedupe key."""
    return number.to_bytes(16, "big")


def events(instance: UUID, request: str) -> list[Event]:
    """What a gateway logs about four attempts at requests, the last of which stays open. Bills of every kind."""
    base = {"agent": "a", "attempt": 1, "at": 1, "model": "m", "space": "s", "inputs": 2}
    paid = {
        "provider": "p", "endpoint": "e", "tokens": 7, "billed_tokens": 5, "price": "x", "latency_ms": 12, "dimensions": 3,
        "nano_usd": 100, "provider_nano_usd": 90,
    }  # fmt: skip
    found: list[Event] = []

    def add(n: int, kind: str, **more: Any) -> None:
        data = {"request_id": f"{request}-{n}", **base, **more}
        number = len(found) + 1
        found.append(
            (request.encode().rjust(15, b"\0") + bytes([number]), "t", f"request/t/{request}-{n}", f"embedding.{kind}", data, "ab" * 16, None)
        )  # fmt: skip

    for n in range(1, 6):
        add(n, "requested", instance=str(instance), fingerprint="f", reserved_tokens=9)
    add(1, "generated", **paid)
    add(2, "failed", code="cancelled", retryable=False, message="no", latency_ms=3, tokens=7, provider_nano_usd=None)
    add(3, "abandoned", instance=str(instance))
    add(4, "generated", **{**paid, "nano_usd": None, "latency_ms": 700, "cached_inputs": 1})
    add(1, "reembedded", time=1, provider="p", endpoint="e", tokens=7)
    return found


def decision(number: int, expected: int) -> Event:
    """A decision on the stream of a tenant."""
    return key(1000 + number), "t", "tenant/t", "tenant.created", {"tenant": "t"}, "", expected


class PreviousGateway:
    """One, connected to a database as its pools and its projection workers would be."""

    def __init__(self, connection: Connection, worker: Connection) -> None:
        self._connection = connection
        self._worker = worker
        self._appends: Any = None

    async def fetch(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run a frozen statement of the gateway."""
        return await self._connection.fetch(sql(name), *arguments)

    async def value(self, name: str, *arguments: Any) -> Any:
        """Its single value."""
        return await self._connection.fetchval(sql(name), *arguments)

    async def append(self, instance: UUID, batch: Sequence[Event]) -> tuple[Any, ...]:
        """As its appender does: a statement prepared once, the columns joined, what is not needed left out."""
        if self._appends is None:
            await self._connection.execute(sql("durable"))
            self._appends = await self._connection.prepare(sql("append"))
        keys, tenants, streams, types, data, fingerprints, expected = zip(*batch, strict=True)
        separator = "\x1e"
        row = await self._appends.fetchrow(
            instance, b"".join(keys), b"".join(keys), separator.join(tenants), separator.join(streams), separator.join(types),
            separator.join(json.dumps(d) for d in data), separator.join(fingerprints) if any(fingerprints) else None, None,
            list(expected) if any(e is not None for e in expected) else None,
        )  # fmt: skip
        return tuple(row)

    async def fold(self, name: str, upto: int, owner: UUID, *, halt: bool = False) -> list[Any]:
        """As its worker of a view does, from where the view stands up to a position: one look and one fold after another.

        With `halt` it stands before the next event as if that could not be folded.
        """
        fetchrow, fetchval = self._row, self._worker.fetchval
        told: list[Any] = []
        seen = await fetchrow(sql("cursor_look"), name, 1)
        if seen is None:
            await self._worker.execute(sql("cursor_create"), name, 1)
            seen = await fetchrow(sql("cursor_look"), name, 1)
        assert seen["free"], "somebody else owns it"
        acquired = await fetchrow(sql("cursor_acquire"), name, 1, owner, _LEASE)
        fence = acquired["fence"]
        while (after := seen["position"]) < upto:
            to = min(upto, after + 3)
            async with self._worker.transaction():
                assert await fetchval(sql("cursor_hold"), name, 1, after, fence) is True
                found = await fetchrow(sql("cursor_check"), after, to, TYPES[name], [1] * 4)
                told.append((name, after, to, found["events"], found["unknown"]))
                await self._worker.execute(sql(f"{name}_apply"), after, to)
                moved = await fetchval(sql("cursor_advance"), name, 1, after, to, found["recorded_at"], fence, _LEASE)
                assert moved == to
            seen = await fetchrow(sql("cursor_look"), name, 1)
            told.append(tuple(seen[c] for c in ("position", "head", "error", "failed_position", "free")))
        assert await fetchval(sql("cursor_renew"), name, 1, fence, _LEASE) == fence
        assert await fetchval(sql("cursor_renew"), name, 1, fence - 1, _LEASE) is None, "not with a fence of before"
        if halt:
            await self._worker.execute(sql("cursor_halt"), name, 1, fence, upto + 1, "why")
        seen = await fetchrow(sql("cursor_look"), name, 1)
        told.append((seen["error"], seen["failed_position"], seen["free"], seen["owner"] == owner))
        await self._worker.execute(sql("cursor_release"), name, 1, fence)
        seen = await fetchrow(sql("cursor_look"), name, 1)
        told.append((seen["free"], seen["owner"]))
        return told

    async def _row(self, query: str, *arguments: Any) -> Any:
        return await self._worker.fetchrow(query, *arguments)

    async def own(self, name: str, owner: UUID) -> int:
        """Become the owner of a view; returns the fence."""
        acquired = await self._row(sql("cursor_acquire"), name, 1, owner, _LEASE)
        return int(acquired["fence"])

    async def holds(self, name: str, position: int, fence: int) -> bool:
        """Whether it would fold on, as the owner with this fence, from where it last saw the view."""
        return await self._worker.fetchval(sql("cursor_hold"), name, 1, position, fence) is True

    async def prune(self, upto: int, owner: UUID, days: int) -> None:
        """Forget attempts as its worker would so many days later."""
        acquired = await self._row(sql("cursor_acquire"), "requests", 1, owner, _LEASE)
        async with self._worker.transaction():
            held = await self._worker.fetchval(sql("cursor_hold"), "requests", 1, upto, acquired["fence"])
            assert held is True
            newest = (await self._row(sql("cursor_look"), "requests", 1))["recorded_at"]
            await self._worker.execute(sql("requests_prune"), newest + timedelta(days=days))
        await self._worker.execute(sql("cursor_evict"))

    async def usage(self, seconds: int) -> list[Any]:
        """What `emberlog usage` would show of a grain, and up to where."""
        rows = await self.fetch("usage_query", seconds, None, None, None)
        return [(row["position"], row["bucket"] is not None, *(row[c] for c in _USAGE_ROW)) for row in rows]

    async def requests(self) -> list[Any]:
        """The requests view."""
        rows = await self._connection.fetch(
            "SELECT * FROM projections.requests ORDER BY tenant, request_id, attempt"  # as its tests read it
        )
        return [tuple(row[c] for c in _REQUESTS_ROW) for row in rows]


@asynccontextmanager
async def previous_gateway(dsn: str) -> AsyncIterator[PreviousGateway]:
    """Connections as that release opens them: a login that switches to the application's role."""
    login = with_user(dsn, "emberlog_gateway")
    worker_settings = {
        "role": "emberlog_app", "timezone": "UTC", "lock_timeout": "5000", "plan_cache_mode": "force_custom_plan", "jit": "off",
    }  # fmt: skip
    connection = await asyncpg.connect(login, server_settings={"timezone": "UTC"})
    await connection.execute("SET ROLE emberlog_app")
    worker = await asyncpg.connect(login, server_settings=worker_settings)
    try:
        yield PreviousGateway(connection, worker)
    finally:
        await worker.close()
        await connection.close()


async def life(gateway: PreviousGateway) -> list[Any]:
    """All that a gateway of that release does with the database, from start to end; returns what it is told."""
    told: list[Any] = []
    fetch, value = gateway.fetch, gateway.value
    assert MIGRATIONS.items() <= {r["name"]: r["checksum"] for r in await fetch("migrations")}.items()
    await value("ensure_partitions")
    [identity] = await fetch("identity")
    assert all(isinstance(part.int, int) for part in identity)
    minute = timedelta(seconds=60)
    ours = UUID(bytes=(await value("register_instance", "ours", minute)).bytes)
    theirs = UUID(bytes=(await value("register_instance", "theirs", minute)).bytes)
    told.append([await value("tenant_key_put", "t", wrapped) for wrapped in (b"first", b"second")])
    told.append([await value("tenant_key_get", "t"), [tuple(r) for r in await fetch("tenant_keys_all")]])

    # The log. Every bill is in one batch, which has one time: the buckets of usage are as many in every run.
    told.append(await gateway.append(ours, events(theirs, "r")))
    told.append(await gateway.append(ours, [decision(1, 0), decision(2, -1), decision(3, 1), decision(1, 0)]))
    told.append(await gateway.append(ours, [*events(theirs, "r")[:2], decision(4, 2)]))
    other = (events(theirs, "r")[0][0], *events(theirs, "r")[0][1:5], "cd" * 16, None)
    told.append(await gateway.append(ours, [other]))
    head = await value("head")
    for name, arguments in (("read", (0, 5)), ("read", (5, 100)), ("read_decisions", (0, 100))):
        rows = await fetch(name, *arguments)
        told.append([(*r[:7], type(r[7]), json.loads(r[8]), len(r[9])) for r in rows])
        told[-1] = [_without(row, ours, theirs) for row in told[-1]]
    found = await fetch("find", [events(theirs, "r")[0][0], decision(2, 0)[0], key(9999)])
    told.append(sorted((r[0], bytes(r[1]), r[10]) for r in found))

    # The views.
    for view in ("usage", "requests"):
        told.append(await gateway.fold(view, head, ours))
        told.append(await gateway.fold(view, head, theirs, halt=True))
    told.append([await gateway.usage(grain) for grain in (60, 3600, 86400)])
    told.append(await gateway.requests())

    # Instances: one ends, one dies.
    told.append(sorted(row["id"] == ours for row in await fetch("live_instances", None)))
    told.append([row["id"] == theirs for row in await fetch("live_instances", "theirs")])
    told.append([await value("renew_instance", theirs, minute), await value("alive", theirs)])
    told.append([await value("fence_instance", theirs), await value("fence_instance", theirs)])
    told.append([await value("renew_instance", theirs, minute), await value("alive", theirs)])
    try:
        await gateway.append(theirs, [decision(5, -1)])
    except asyncpg.PostgresError as error:
        told.append(error.sqlstate)
    told.append([(r["tenant"], json.loads(r["data"])["request_id"]) for r in await fetch("open_of_fenced", 100)])
    expired = await value("register_instance", "expired", timedelta(seconds=-1))
    told.append([row[0] == expired for row in await fetch("fence_expired")])
    abandoned: Event = (key(500), "t", "request/t/r-5", "embedding.abandoned", {
        "request_id": "r-5", "agent": "a", "attempt": 1, "at": 1, "instance": str(theirs), "model": "m", "space": "s", "inputs": 2,
    }, "", None)  # fmt: skip
    told.append(await gateway.append(ours, [abandoned]))
    told.append(await gateway.fold("requests", head + 1, ours))
    told.append([tuple(r) for r in await fetch("open_of_fenced", 100)])
    await gateway.prune(head + 1, ours, 29)
    told.append(len(await gateway.requests()))
    await gateway.prune(head + 1, ours, 31)
    told.append(await gateway.requests())
    told.append(await value("drop_old_dedupe_keys"))
    return told


def _without(row: tuple[Any, ...], *instances: UUID) -> tuple[Any, ...]:
    data = {k: v for k, v in row[8].items() if v not in map(str, instances)}
    return (*row[:8], data, row[9])
