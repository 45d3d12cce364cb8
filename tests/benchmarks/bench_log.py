"""What the event log does on this machine, fsync on: `python -m tests.benchmarks.bench_log [--rows N] [--dsn OWNER_DSN]`.

Without `--dsn` it starts an embedded Postgres in a temporary folder. Appends go through the appender, as in the gateway; events
are facts of about 450 bytes with a fingerprint, each a request of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import uvloop

from adapters.appender import Appender
from adapters.embedded import EmbeddedServices
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.migrator import migrate
from domain.ports.event_log import Appended, NewEvent
from tests.support.databases import drop_database, execute, with_database
from tests.support.folders import temporary_data_dir, temporary_folder

_FACT: dict[str, Any] = {
    "agent": "agent-7",
    "thread": "thread-1",
    "model": "all-MiniLM-L6-v2",
    "provider": "local",
    "endpoint": "local",
    "space": "all-MiniLM-L6-v2@1/384/unit",
    "inputs": 1,
    "tokens": 37,
    "billed_tokens": 37,
    "estimated": False,
    "cached_inputs": 0,
    "nano_usd": 740,
    "unit_pico_usd": 20_000,
    "price": "price-1",
    "outcome": "ok",
    "latency_ms": 103,
    "attempt": 1,
}
_DATA = [msgspec.json.encode(_FACT | {"request_id": uuid4().hex, "instance": str(uuid4())}) for _ in range(1024)]
_random = random.Random(7)  # cheaper than the system's randomness, so that the client's figure is the log's


def event(n: int) -> NewEvent:
    """A fact with ids of its own."""
    key = _random.randbytes(16)
    return NewEvent(key, key, "acme", f"request/acme/{n}", "embedding.generated", _DATA[n % 1024], 1, key)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the sorted `values` lie below."""
    return values[min(len(values) - 1, int(len(values) * share))]


@asynccontextmanager
async def database(dsn: str | None) -> AsyncIterator[str]:
    """A migrated database of its own on the given server, or on an embedded one."""
    if dsn is not None:
        name = f"emberlog_bench_{uuid4().hex[:12]}"
        await execute(dsn, f"CREATE DATABASE {name}")
        try:
            made = with_database(dsn, name)
            await migrate(made)
            yield made
        finally:
            await drop_database(dsn, name)
        return
    with temporary_folder() as folder, temporary_data_dir(folder) as data_dir:
        services = await EmbeddedServices.start(data_dir)
        async with services, database(services.owner_dsn) as made:
            yield made


@asynccontextmanager
async def appender(dsn: str, max_batch: int) -> AsyncIterator[Appender]:
    """An appender on a log of its own."""
    log = await PostgresEventLog.connect(dsn, pool_size=1, readers=1)
    made = Appender(log, await log.register_instance("bench", 3600), max_batch=max_batch)
    try:
        yield made
    finally:
        await made.close(60)
        await log.close()


def backend_cpu(log: Appender) -> float:
    """CPU seconds that the appender's backend has used so far; 0 where the server is not on this machine."""
    connection = log._log._connection  # type: ignore[attr-defined]  # a figure for the table, not worth a public name
    try:
        fields = Path(f"/proc/{connection.get_server_pid()}/stat").read_text().rpartition(")")[2].split()
    except (AttributeError, OSError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def saturate(dsn: str, count: int, max_batch: int) -> dict[str, float]:
    """Append `count` events with the queue never empty; the rate, client CPU per event and a batch's latency."""
    async with appender(dsn, max_batch) as log:
        batch_times: list[float] = []
        events = [event(n) for n in range(count)]
        room = asyncio.Semaphore(4 * max_batch)

        def done(outcome: Appended | Exception) -> None:
            room.release()

        await log.append(event(0))
        cpu, server, wall = time.process_time(), backend_cpu(log), time.perf_counter()
        seen = 0
        for each in events:
            await room.acquire()
            log.submit(each, done)
            if log.batches != seen:
                seen = log.batches
                batch_times.append(log.last_batch_seconds)
        await log.drain(60)
        wall, cpu, server = time.perf_counter() - wall, time.process_time() - cpu, backend_cpu(log) - server
        batch_times.sort()
        return {
            "events_per_s": count / wall,
            "client_us": cpu / count * 1e6,
            "server_us": server / count * 1e6,
            "batch": count / log.batches,
            "batch_p50_ms": percentile(batch_times, 0.5) * 1e3,
            "batch_p99_ms": percentile(batch_times, 0.99) * 1e3,
        }


async def offer(dsn: str, rate: int, seconds: float) -> dict[str, float]:
    """Append at a given rate, an event at a time, whether or not the log keeps up; each event's latency from its due time."""
    async with appender(dsn, 256) as log:
        latencies: list[float] = []
        count = int(rate * seconds)
        events = [event(n) for n in range(count)]
        clock = time.perf_counter
        await log.append(event(0))  # connects and plans
        start, sent = clock(), 0
        while sent < count:
            due_count = min(count, int((clock() - start) * rate) + 1)
            for n in range(sent, due_count):
                due = start + n / rate
                log.submit(events[n], lambda outcome, due=due: latencies.append(clock() - due))  # type: ignore[misc]  # mypy cannot type the default
            sent = due_count
            await asyncio.sleep(0.0005)
        await log.drain(60)
        latencies.sort()
        return {
            "p50_ms": percentile(latencies, 0.5) * 1e3,
            "p99_ms": percentile(latencies, 0.99) * 1e3,
            "batch": count / log.batches,
        }


async def together(dsn: str, processes: int, count: int) -> float:
    """Events a second over several processes that append at once."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_log", "--worker", str(count), "--dsn", dsn]
    started = time.perf_counter()
    workers = [
        await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        for _ in range(processes)
    ]
    for worker in workers:
        assert worker.stdout is not None
        await worker.stdout.readline()  # ready
    started = time.perf_counter()
    await asyncio.gather(*(worker.communicate(b"go\n") for worker in workers))
    return processes * count / (time.perf_counter() - started)


async def work(dsn: str, count: int) -> None:
    """What each process of `together` does: say it is ready, wait for the word, append."""
    async with appender(dsn, 256) as log:
        events = [event(n) for n in range(count)]
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        for at in range(0, count, 1024):
            log.submit_many(events[at : at + 1024], lambda outcomes: None)
            while log.queued > 2048:
                await asyncio.sleep(0.001)
        await log.drain(60)


async def read_all(dsn: str, limit: int) -> tuple[int, float]:
    """Every event by cursor, at most a million; how many and how many a second."""
    log = await PostgresEventLog.connect(dsn)
    after, started = 0, time.perf_counter()
    while after < 1_000_000 and (page := await log.read(after, limit)):
        after = page[-1].position
    rate = after / (time.perf_counter() - started)
    await log.close()
    return after, rate


async def main(dsn: str | None, rows: int) -> None:
    """Print the whole table."""
    async with database(dsn) as made:
        print(
            "| batches of | events/s | client CPU µs/event | server CPU µs/event | batch p50 ms | batch p99 ms |\n|---|---|---|---|---|---|"
        )
        for size in (16, 64, 256, 512):
            got = await saturate(made, 60_000 if size > 16 else 20_000, size)
            print(
                f"| {size} | {got['events_per_s']:,.0f} | {got['client_us']:.1f} | {got['server_us']:.1f} | {got['batch_p50_ms']:.1f} | {got['batch_p99_ms']:.1f} |"
            )
        got = await offer(made, 5_000, 10)
        print(
            f"5,000 events/s offered: p50 {got['p50_ms']:.2f} ms, p99 {got['p99_ms']:.2f} ms, {got['batch']:.1f} events a batch"
        )
        print(f"four processes: {await together(made, 4, 50_000):,.0f} events/s")
        count, rate = await read_all(made, 1000)
        print(f"read by cursor, pages of 1,000: {rate:,.0f} events/s over {count:,}")
        if rows:
            print("| rows in the log | events/s | client CPU µs/event | server CPU µs/event |\n|---|---|---|---|")
            step = max(rows // 10, 100_000)
            for at in range(0, rows, step):
                got = await saturate(made, step, 256)
                print(
                    f"| {at + step:,} | {got['events_per_s']:,.0f} | {got['client_us']:.1f} | {got['server_us']:.1f} |",
                    flush=True,
                )
            count, rate = await read_all(made, 1000)
            print(f"read by cursor, pages of 1,000: {rate:,.0f} events/s over {count:,}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", default=os.environ.get("EMBERLOG_DATABASE_URL"), help="an owner's connection string")
    parser.add_argument("--rows", type=int, default=0, help="also show the cost as the log grows to this many rows")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        uvloop.run(work(arguments.dsn, arguments.worker))
    else:
        uvloop.run(main(arguments.dsn, arguments.rows))
