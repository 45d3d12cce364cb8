"""`emberlog bench projections`: how fast views are folded, how far behind they are, and what a rebuild does to appends."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import Any

import asyncpg

from adapters.postgres.event_log import PostgresEventLog
from domain.ports.event_log import Appended
from gateway.bench.database import BenchDatabase, bench_database
from gateway.bench.facts import FILL, FILL_DATA, fact
from gateway.bench.log import Say, appender, offer
from projections.rebuild import Rebuild
from projections.runner import ALL, Runner
from projections.usage import USAGE

LAG_RATE = 10_000
BESIDE_RATE = 5_000
_STEP = 250_000


async def run(rows: int, say: Say) -> dict[str, Any]:
    """The document of `emberlog bench projections --json`, on a log of `rows` events."""
    async with bench_database() as database:
        say(f"writing {rows:,} events")
        await _fill(database, rows)
        log = await PostgresEventLog.connect(database.dsn)
        runner = Runner(database.dsn, read=log.read)
        await runner.start()
        try:
            began = time.perf_counter()
            await asyncio.gather(*(runner.wait_for(p.name, rows, 3600) for p in ALL))
            first = {"events_per_s": rows / (time.perf_counter() - began), "projections": [p.name for p in ALL]}
            rebuilds = []
            for projection in ALL:
                say(f"rebuilding {projection.name}")
                rebuilds.append(await _rebuild(database, log, projection.name))
            say(f"offering {BESIDE_RATE} events a second, without a rebuild and beside one")
            alone = await offer(database.dsn, BESIDE_RATE, 10)
            beside = await _beside(database, log)
            say(f"offering {LAG_RATE} events a second and watching the views")
            lag = await _lag(database, runner)
        finally:
            await runner.stop()
            await log.close()
    return {
        "rows": rows,
        "first_fold": first,
        "rebuilds": rebuilds,
        "append_alone": {"events_per_s": BESIDE_RATE, **alone},
        "append_beside_a_rebuild": {"events_per_s": BESIDE_RATE, **beside},
        "append_p99_ratio": beside["p99_ms"] / alone["p99_ms"],
        "lag": lag,
        "cores": len(os.sched_getaffinity(0)),
    }


async def _fill(database: BenchDatabase, rows: int) -> None:
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        for first in range(1, rows + 1, _STEP):
            last = min(rows, first + _STEP - 1)
            await connection.execute("SELECT emberlog.ensure_partitions(p_reach => $1)", last)
            await connection.execute(FILL, first, last, FILL_DATA)
        await connection.execute("VACUUM ANALYZE emberlog.events")
    finally:
        await connection.close()


async def _rebuild(database: BenchDatabase, log: PostgresEventLog, name: str) -> dict[str, Any]:
    """A rebuild from the whole log, with nothing else going on."""
    projection = next(p for p in ALL if p.name == name)
    before, cpu, peak = database.memory(), database.cpu(), 0
    job = asyncio.create_task(Rebuild(database.dsn, projection, log.read).run())
    while not job.done():
        peak = max(peak, database.memory() - before)
        await asyncio.wait([job], timeout=0.05)
    done = await job
    return {
        "projection": name,
        "events": done.events,
        "seconds": done.seconds,
        "events_per_s": done.events / done.seconds,
        "server_cpu_us": (database.cpu() - cpu) / max(done.events, 1) * 1e6,
        "peak_bytes": peak,
        "equal": done.digest == done.before,
    }


async def _beside(database: BenchDatabase, log: PostgresEventLog) -> dict[str, Any]:
    """Appends while views are rebuilt again and again."""

    async def rebuild() -> None:
        while True:
            await Rebuild(database.dsn, USAGE, log.read).run()

    job = asyncio.create_task(rebuild())
    try:
        return await offer(database.dsn, BESIDE_RATE, 10)
    finally:
        job.cancel()
        with suppress(asyncio.CancelledError):
            await job


async def _lag(database: BenchDatabase, runner: Runner, seconds: float = 10.0) -> dict[str, Any]:
    """From an event's commit to the usage view that counts it, for a sample of the events."""
    waits: list[float] = []
    watched: list[tuple[int, float]] = []
    ended = False

    def committed(outcome: Appended | Exception) -> None:
        runner.wake()
        if isinstance(outcome, Appended) and outcome.position is not None and outcome.position % 16 == 0:
            watched.append((outcome.position, time.perf_counter()))

    async def watch() -> None:
        connection = await asyncpg.connect(database.dsn)
        sql = "SELECT position FROM projections.cursors WHERE name = 'usage' AND state = 'live'"
        while not ended or watched:
            position, now = await connection.fetchval(sql), time.perf_counter()
            while watched and watched[0][0] <= position:
                waits.append(now - watched.pop(0)[1])
            await asyncio.sleep(0.005)
        await connection.close()

    watcher = asyncio.create_task(watch())
    async with appender(database.dsn) as sender:
        await sender.append(fact(0))
        count, start, sent = int(LAG_RATE * seconds), time.perf_counter(), 0
        while sent < count:
            due = min(count, int((time.perf_counter() - start) * LAG_RATE) + 1)
            for n in range(sent, due):
                sender.submit(fact(n), committed)
            sent = due
            await asyncio.sleep(0.001)
        await sender.drain(60)
    ended = True
    await watcher
    waits.sort()
    return {
        "offered_per_s": LAG_RATE,
        "samples": len(waits),
        "p50_ms": waits[len(waits) // 2] * 1e3,
        "p99_ms": waits[int(len(waits) * 0.99)] * 1e3,
    }
