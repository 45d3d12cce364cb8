"""Postgres as the gateway needs it: one cluster in the data folder, reachable through a private Unix socket only.

Durability stays at Postgres's defaults (fsync and synchronous_commit on, data checksums): the event log lives here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlencode

import asyncpg

from adapters.embedded.errors import ServiceFailed
from adapters.embedded.files import sync_folder
from adapters.embedded.layout import Layout
from adapters.embedded.processes import alive, find, send, until_gone
from adapters.embedded.service import CLEAN_ENVIRONMENT, OnEvent, Service, as_child

DATABASE = "emberlog"
OWNER = "emberlog"
APP_LOGIN = "emberlog_gateway"
_PORT = 5432


def shared_buffers_mb(memory: int) -> int:
    """Postgres's own cache for a machine with so many bytes of memory: an eighth of it, from 128 to 1024 MB.

    Dedupe keys are random and touch the whole of their index: at ten million keys a day that is 0.5 GB, and what does not fit costs
    each append a copy from the system's cache.
    """
    return min(1024, max(128, memory // 8 // 2**20))


SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "shared_buffers": f"{shared_buffers_mb(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))}MB",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",  # files to use again: making one takes as long as a dozen commits
    "checkpoint_timeout": "15min",
    "max_connections": "100",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The log must hold no tenant's data, and errors quote values: they go to the client that made them, and to nobody else.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}

_NOT_YET = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,  # class 08: the line broke
    asyncpg.OperatorInterventionError,  # class 57: starting, recovering or shutting down
    asyncpg.InsufficientResourcesError,  # class 53: every other client has just come back, too
)


def sql(name: str) -> str:
    """The text of a statement file of this package."""
    return files("adapters.embedded").joinpath(f"{name}.sql").read_text()


class PostgresService(Service):
    """The cluster of a data folder, made on the first start. `settings` are laid over `SETTINGS`."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": sessions end, a checkpoint is written
    urgent_signal = signal.SIGQUIT  # "immediate": the next start recovers from the WAL
    ready_timeout_s = 300.0  # recovery of a full max_wal_size on a slow disk
    stop_timeout_s = 60.0

    def __init__(self, layout: Layout, programs: Path, settings: Mapping[str, str], on_event: OnEvent | None) -> None:
        super().__init__(layout.account, layout.log("postgres"), on_event)
        self._layout = layout
        self._programs = programs
        self._settings = {
            **SETTINGS,
            "unix_socket_directories": str(layout.sockets),
            "cluster_name": layout.cluster_name,
            **settings,
        }

    def dsn(self, user: str, database: str = DATABASE) -> str:
        """A connection string over the socket; no password, the socket's folder is the wall."""
        return f"postgresql://{user}@/{database}?" + urlencode({"host": self._layout.sockets, "port": _PORT}, safe="/")

    def command(self) -> list[str]:
        """Every setting goes on the command line, so that no file in the cluster decides anything."""
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._layout.cluster), *settings]

    async def clear_the_way(self) -> None:
        """End what is left of an earlier life, drop lock files that name a stranger, make the cluster when there is none."""
        await self.end_orphans()
        self._drop_stale_locks()
        if not (self._layout.cluster / "PG_VERSION").exists():
            await self._make_cluster()

    async def answers(self) -> bool:
        """Connect to our database, making it and the application's login on the first start."""
        try:
            connection = await asyncpg.connect(self.dsn(OWNER), timeout=10)
        except asyncpg.InvalidCatalogNameError:
            await self._make_database()
            return True
        except _NOT_YET:
            return False
        except asyncpg.PostgresError as error:
            raise ServiceFailed(
                f"Postgres in {self._layout.cluster} runs but does not let its owner in: {error}"
            ) from None
        await connection.close()
        return True

    async def grant_app_role(self) -> None:
        """Let the gateway's login act as the application's role, once the migrations have made that. Idempotent."""
        connection = await asyncpg.connect(self.dsn(OWNER), timeout=10)
        try:
            await connection.execute(sql("grant_app_role"))
        finally:
            await connection.close()

    async def _make_database(self) -> None:
        connection = await asyncpg.connect(self.dsn(OWNER, "postgres"), timeout=10)
        try:
            await connection.execute(sql("create_login"))
            await connection.execute(sql("create_database"))
        finally:
            await connection.close()

    async def _make_cluster(self) -> None:
        """Make it beside the final name, then one rename: an interrupted start leaves no half cluster behind."""
        fresh = self._fresh_folder()
        command = as_child(self._layout.account, signal.SIGTERM, self._initdb(fresh))
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, cwd="/", env=CLEAN_ENVIRONMENT
            )
        )
        try:
            process = await asyncio.shield(starting)  # it may be at work before we are told that it has started
            said, _ = await process.communicate()
            if process.returncode != 0:
                raise ServiceFailed(
                    f"initdb could not make the database cluster in {self._layout.cluster}: {said.decode(errors='replace').strip()}"
                )
            self._take(fresh)
        except BaseException:
            with contextlib.suppress(OSError):  # it could not be started, or has ended
                process = await starting
                process.terminate()
                await process.wait()
            await self._remove(fresh)
            raise

    async def _remove(self, folder: Path) -> None:
        """Remove the folder of an initdb that was ended. What it had started may write on for a moment after it."""
        for _ in range(50):
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
                return
            await asyncio.sleep(0.1)

    def _fresh_folder(self) -> Path:
        parent = self._layout.cluster.parent
        for leftover in parent.glob("postgres.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(dir=parent, prefix="postgres.new-"))
        self._layout.account.owns(fresh)
        return fresh

    def _take(self, fresh: Path) -> None:
        cluster = self._layout.cluster
        with contextlib.suppress(OSError):
            cluster.rmdir()  # an empty folder of that name is no cluster
        fresh.rename(cluster)
        sync_folder(cluster.parent)

    def _initdb(self, target: Path) -> list[str]:
        if self._programs.parent.name.endswith("18"):
            # One sync of the filesystem, not a thousand of files: the same promise in a fraction of the time.
            by_version = ["--locale-provider=builtin", "--locale=C.UTF-8", "--sync-method=syncfs"]
        else:  # 16 knows neither
            by_version = ["--locale=C"]
        return [
            str(self._programs / "initdb"),
            f"--pgdata={target}",
            f"--username={OWNER}",
            "--encoding=UTF8",
            *by_version,
            "--auth-local=trust",
            "--auth-host=reject",
            "--data-checksums",
            "--no-instructions",
        ]

    async def end_orphans(self) -> None:
        """Postmasters of this cluster are asked to shut down; backends of one that is dead notice by themselves, or are ended."""
        postmasters = find(self._is_postmaster)
        ended = list(postmasters)
        send(postmasters, signal.SIGINT)
        steps = ((15.0 if postmasters else 0.5, signal.SIGQUIT), (3.0, signal.SIGKILL), (5.0, None))
        for patience, harder in steps:
            if await until_gone(self._is_ours, patience):
                break
            left = find(self._is_ours)
            if harder is None:
                raise ServiceFailed(f"a Postgres process of an earlier start (pid {left}) does not end: end it by hand")
            send(left, harder)
            ended = ended or left
        if ended:
            self._report("orphan_ended", f"ended the Postgres of an earlier start (pid {ended[0]})")

    def _drop_stale_locks(self) -> None:
        """No process of this cluster lives, so a lock file that names a live process names a stranger: Postgres would refuse to start.

        One that names a dead process is left to Postgres, which uses it to clean up shared memory.
        """
        for path in (self._layout.cluster / "postmaster.pid", self._layout.sockets / f".s.PGSQL.{_PORT}.lock"):
            try:
                first = path.read_text().partition("\n")[0]
            except FileNotFoundError:
                continue
            if not first.isdigit() or alive(int(first)):
                path.unlink(missing_ok=True)

    def _is_postmaster(self, argv: Sequence[str]) -> bool:
        return Path(argv[0]).name == "postgres" and str(self._layout.cluster) in argv

    def _is_ours(self, argv: Sequence[str]) -> bool:
        return self._is_postmaster(argv) or argv[0].startswith(f"postgres: {self._layout.cluster_name}: ")
