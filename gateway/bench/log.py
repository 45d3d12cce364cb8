"""`emberlog bench log`: what the event log does on this machine. Appends go through the appender, as in the gateway."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from adapters.appender import Appender
from adapters.postgres.event_log import PostgresEventLog
from domain.ports.event_log import Appended
from gateway.bench.database import BenchDatabase, bench_database
from gateway.bench.facts import fact
from gateway.bench.run import BenchFailed

BATCHES = (16, 64, 256, 512)
OFFERED = 5_000
PROCESSES = 4
_PAGE = 1_000
Say = Callable[[str], None]


@asynccontextmanager
async def appender(dsn: str, max_batch: int = 256) -> AsyncIterator[Appender]:
    """An appender with a log and an instance of its own."""
    log = await PostgresEventLog.connect(dsn, pool_size=1, readers=1)
    made = Appender(log, await log.register_instance("bench", 3600), max_batch=max_batch)
    try:
        yield made
    finally:
        await made.close(60)
        await log.close()


async def run(rows: int, say: Say) -> dict[str, Any]:
    """The document of `emberlog bench log --json`; `rows` grows the log to that many events, to show what growth costs."""
    async with bench_database() as database:
        batches = []
        for size in BATCHES:
            say(f"appending in batches of {size}")
            batches.append(await saturate(database, 60_000 if size > 16 else 20_000, size))
        say(f"offering {OFFERED} events a second")
        offered = await offer(database.dsn, OFFERED, 10)
        say(f"appending from {PROCESSES} processes at once")
        together = await several(database, PROCESSES, 50_000)
        growth = []
        step = max(rows // 10, 100_000)
        for at in range(0, rows, step):
            say(f"appending: {at + step:,} of {rows:,} events")
            growth.append({"rows": at + step, **await saturate(database, step, 256)})
        say("reading by cursor")
        return {
            "batches": batches,
            "offered": {"events_per_s": OFFERED, **offered},
            "several": {"processes": PROCESSES, **together},
            "growth": growth,
            "read": await read_all(database.dsn),
            "cores": len(os.sched_getaffinity(0)),
        }


@asynccontextmanager
async def appending(dsn: str, count: int) -> AsyncIterator[None]:
    """Raise `BenchFailed` unless the log has `count` more events at the end: one refused, or a duplicate, costs less than one appended."""
    log = await PostgresEventLog.connect(dsn, pool_size=1, readers=1)
    try:
        before = await log.head()
        yield
        if (appended := await log.head() - before) != count:
            raise BenchFailed(f"of {count:,} events {appended:,} were appended: what was measured is something else")
    finally:
        await log.close()


async def saturate(database: BenchDatabase, count: int, max_batch: int) -> dict[str, Any]:
    """Append `count` events with the queue never empty."""
    async with appending(database.dsn, count + 1), appender(database.dsn, max_batch) as log:
        times: list[float] = []
        room = asyncio.Semaphore(4 * max_batch)

        def done(outcome: Appended | Exception) -> None:
            room.release()

        await log.append(fact(0))
        events = [fact(n) for n in range(min(count, 200_000))]
        spent = seen = 0
        cpu = server = wall = 0.0
        while spent < count:
            began = (time.process_time(), database.cpu(), time.perf_counter())
            for each in events[: count - spent]:
                await room.acquire()
                log.submit(each, done)
                if log.batches != seen:
                    seen = log.batches
                    times.append(log.last_batch_seconds)
            await log.drain(60)
            cpu += time.process_time() - began[0]
            server += database.cpu() - began[1]
            wall += time.perf_counter() - began[2]
            spent += len(events[: count - spent])
            if spent < count:
                events = [fact(n) for n in range(len(events))]
        return {
            "max_batch": max_batch,
            "events_per_s": count / wall,
            "client_cpu_us": cpu / count * 1e6,
            "server_cpu_us": server / count * 1e6,
            "events_per_batch": count / log.batches,
            **_latency(times, "batch_"),
        }


async def offer(dsn: str, rate: int, seconds: float) -> dict[str, Any]:
    """Append at a given rate, an event at a time, whether or not the log keeps up; each event's latency from its due time."""
    count = int(rate * seconds)
    async with appending(dsn, count + 1), appender(dsn) as log:
        latencies: list[float] = []
        events = [fact(n) for n in range(count)]
        clock = time.perf_counter
        await log.append(fact(0))  # connects and plans
        start, sent = clock(), 0
        while sent < count:
            due = min(count, int((clock() - start) * rate) + 1)
            for n in range(sent, due):
                log.submit(events[n], _timed(latencies, start + n / rate))
            sent = due
            await asyncio.sleep(0.0005)
        await log.drain(60)
        return {"events_per_batch": count / log.batches, **_latency(latencies, "")}


def _timed(latencies: list[float], due: float) -> Callable[[Appended | Exception], None]:
    def done(outcome: Appended | Exception) -> None:
        latencies.append(time.perf_counter() - due)

    return done


def _latency(seconds: list[float], prefix: str) -> dict[str, float]:
    ranked = sorted(seconds)
    at = {"p50_ms": 0.5, "p99_ms": 0.99}
    return {prefix + name: ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1e3 for name, share in at.items()}


async def several(database: BenchDatabase, processes: int, count: int) -> dict[str, float]:
    """Append `count` events from each of several processes at once."""
    command = [sys.executable, "-m", "gateway.bench.log", database.dsn, str(count)]
    workers = [
        await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        for _ in range(processes)
    ]
    for worker in workers:
        assert worker.stdout is not None
        await worker.stdout.readline()  # ready
    events = processes * count
    async with appending(database.dsn, events):
        began, cpu = time.perf_counter(), database.cpu()
        await asyncio.gather(*(worker.communicate(b"go\n") for worker in workers))
        took = time.perf_counter() - began
    return {
        "events_per_s": events / took,
        "server_cpu_us": (database.cpu() - cpu) / events * 1e6,
    }


async def read_all(dsn: str) -> dict[str, float]:
    """Read every event by cursor, at most a million."""
    log = await PostgresEventLog.connect(dsn)
    after, began = 0, time.perf_counter()
    while after < 1_000_000 and (page := await log.read(after, _PAGE)):
        after = page[-1].position
    took = time.perf_counter() - began
    await log.close()
    return {"events": after, "page": _PAGE, "events_per_s": after / took}


async def work(dsn: str, count: int) -> None:
    """What each process of `several` does: say that it is ready, wait for the word, append."""
    async with appender(dsn) as log:
        events = [fact(n) for n in range(count)]
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        room = asyncio.Semaphore(1024)
        for each in events:
            await room.acquire()
            log.submit(each, lambda outcome: room.release())
        await log.drain(60)


if __name__ == "__main__":
    import uvloop

    uvloop.run(work(sys.argv[1], int(sys.argv[2])))
