"""Postgres and Valkey of a data folder, run by this process: `async with await EmbeddedServices.start(folder) as services`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from adapters.embedded import state
from adapters.embedded.binaries import DEFAULT_POSTGRES, reachable_postgres_bin, reachable_valkey_server
from adapters.embedded.errors import ServiceFailed
from adapters.embedded.layout import Layout, make_data_folder, prepare
from adapters.embedded.lock import FolderLock
from adapters.embedded.postgres import APP_LOGIN, OWNER, PostgresService
from adapters.embedded.service import OnEvent, Service
from adapters.embedded.valkey import ValkeyService


class EmbeddedServices:
    """Live services and the right to their data folder. Start and stop in one event loop, on a thread that lives as long as they do."""

    def __init__(
        self, data_dir: Path, lock: FolderLock, postgres: PostgresService | None, valkey: ValkeyService | None
    ) -> None:
        self.data_dir = data_dir
        self._lock = lock
        self._postgres = postgres
        self._valkey = valkey

    @classmethod
    async def start(
        cls,
        data_dir: Path,
        *,
        postgres: bool = True,
        valkey: bool = True,
        valkey_maxmemory_mb: int = 256,
        postgres_settings: Mapping[str, str] | None = None,
        postgres_version: int | None = None,
        on_event: OnEvent | None = None,
    ) -> EmbeddedServices:
        """Take the folder, end what an earlier process left, start what was asked for and return once it all answers.

        `postgres_version` (16 or 18) counts for a new cluster; an existing one keeps its own. `on_event` hears of deaths and
        restarts, on the loop. Raises `DataFolderInUse`, `BinariesMissing` or `ServiceFailed`; nothing is left running then.
        """
        folder = make_data_folder(data_dir)
        lock = FolderLock.acquire(folder)
        self: EmbeddedServices | None = None
        try:
            state.remove(folder)
            layout = prepare(folder)
            if layout.home != folder:
                lock.also(layout.home)
            major = _version_of(layout) or postgres_version or DEFAULT_POSTGRES
            self = cls(
                folder,
                lock,
                PostgresService(
                    layout, reachable_postgres_bin(layout.account, major), postgres_settings or {}, on_event
                )
                if postgres
                else None,
                ValkeyService(layout, reachable_valkey_server(layout.account), valkey_maxmemory_mb, on_event)
                if valkey
                else None,
            )
            await _start_together(self._services)
            state.write(folder, self.running())
        except BaseException as error:
            if self is not None:
                await self.stop()
            lock.release()
            if isinstance(error, OSError):
                raise ServiceFailed(
                    f"the embedded services cannot use {error.filename or folder}: {error.strerror}; run as the user that owns "
                    f"{folder}, or set EMBERLOG_DATA_DIR to another folder"
                ) from error
            raise
        return self

    @property
    def owner_dsn(self) -> str:
        """The superuser, for migrations: database `emberlog` over the Unix socket."""
        return self._database.dsn(OWNER)

    @property
    def app_dsn(self) -> str:
        """The login `emberlog_gateway`; it can do nothing until `grant_app_role` has run after the migrations."""
        return self._database.dsn(APP_LOGIN)

    @property
    def redis_url(self) -> str | None:
        """The URL of Valkey; None when it was not asked for."""
        return self._valkey.url if self._valkey else None

    @property
    def postgres_pid(self) -> int | None:
        """The pid of Postgres's main process while it runs."""
        return self._postgres.pid if self._postgres else None

    @property
    def valkey_pid(self) -> int | None:
        """The pid of Valkey while it runs."""
        return self._valkey.pid if self._valkey else None

    def running(self) -> state.Running:
        """What other processes are told about these services."""
        postgres = self._postgres
        return state.Running(
            pid=os.getpid(),
            owner_dsn=postgres.dsn(OWNER) if postgres else None,
            app_dsn=postgres.dsn(APP_LOGIN) if postgres else None,
            redis_url=self.redis_url,
        )

    async def grant_app_role(self) -> None:
        """Make the gateway's login a member of `emberlog_app`. Call it after the migrations; idempotent."""
        await self._database.grant_app_role()

    async def stop(self) -> None:
        """End both servers in order and give the folder back. Idempotent; the data stays."""
        state.remove(self.data_dir)
        try:
            results = await asyncio.gather(*(service.stop() for service in self._services), return_exceptions=True)
        finally:
            self._lock.release()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def __aenter__(self) -> EmbeddedServices:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def _services(self) -> list[Service]:
        return [service for service in (self._postgres, self._valkey) if service is not None]

    @property
    def _database(self) -> PostgresService:
        if self._postgres is None:
            raise RuntimeError(
                "these services were started without Postgres: use the connection string of the settings"
            )
        return self._postgres


async def _start_together(services: list[Service]) -> None:
    """Start all; when one fails, the first failure is raised alone."""
    results = await asyncio.gather(*(service.start() for service in services), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _version_of(layout: Layout) -> int | None:
    """The major version of the cluster in the folder; None when there is none yet."""
    try:
        text = (layout.cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return None
    if not text.isdigit():
        raise ServiceFailed(
            f"{layout.cluster / 'PG_VERSION'} does not hold a version: the cluster is damaged, restore it"
        )
    return int(text)
