"""A throw-away database for the benches of the log and its views: Postgres 18 as `emberlog serve` runs it, `fsync` on."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import msgspec

from adapters.embedded import EmbeddedServices, remove_data_folder
from adapters.postgres.migrator import migrate
from gateway.bench.cpu import family
from gateway.bench.run import temporary_folder

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


class BenchDatabase(msgspec.Struct, frozen=True):
    """Where it is, for the application and for its owner, and the pid of Postgres's main process."""

    dsn: str
    owner_dsn: str
    pid: int

    def cpu(self) -> float:
        """Seconds of processor time that all of Postgres has used so far, processes that have ended too. Resolution: 10 ms."""
        ended = _times(self.pid)[2:]
        return sum(ended) + sum(sum(_times(member)[:2]) for member in family(self.pid))

    def memory(self) -> int:
        """Bytes of memory that Postgres's processes hold for themselves now, beside what they share."""
        return sum(_anonymous(member) for member in family(self.pid))


def _times(pid: int) -> list[float]:
    """Seconds of a process in user and system mode, and those of its children that have ended; none for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return [0.0] * 4
    return [int(field) * _TICK for field in fields[11:15]]


def _anonymous(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


async def _warm_up(owner_dsn: str) -> None:
    """Have write-ahead log files to use again, as an installation has from its first checkpoint on.

    Before that each new one is filled with zeros first: 60 ms of waiting for every 16 MB, which is a matter of the first minutes only.
    """
    connection = await asyncpg.connect(owner_dsn)
    try:
        for _ in range(2):
            await connection.execute(
                "SELECT pg_logical_emit_message(false, '', repeat('x', 16000000)) FROM generate_series(1, 48)"
            )
            await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


@asynccontextmanager
async def bench_database() -> AsyncIterator[BenchDatabase]:
    """A migrated database in a temporary folder, gone afterwards."""
    folder = temporary_folder()
    try:
        services = await EmbeddedServices.start(folder / "data", valkey=False)
        async with services:
            await migrate(services.owner_dsn)
            await services.grant_app_role()
            assert services.postgres_pid is not None
            await _warm_up(services.owner_dsn)
            yield BenchDatabase(services.app_dsn, services.owner_dsn, services.postgres_pid)
        await remove_data_folder(folder / "data")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
