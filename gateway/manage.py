"""An installation as the management commands see it: the same database as the gateway of the same data folder or URL, running or not."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from adapters.catalogue import shipped
from adapters.embedded import DataFolderInUse, EmbeddedServices, running
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.migrator import SchemaStatus, migrate, schema_state
from adapters.postgres.pool import connect
from domain.decoding import decode_decision
from domain.errors import GatewayError
from domain.events import EventData, KeyCreated, KeyRevoked, TenantCreated, TenantShredded
from domain.plane import ControlPlane
from domain.ports.event_log import Appended, NewEvent, StoredEvent
from gateway.catalogue.seeding import assume, seed
from gateway.control import Control
from gateway.event_document import time_text
from gateway.house import NotReady, master_key
from gateway.instance import describe
from gateway.places import Places
from gateway.secrets import MasterKey
from gateway.settings import Settings
from gateway.shred_ledger import LEDGER_NAME
from gateway.tail import PlaneTail
from gateway.turn import PATIENCE_SECONDS, turn
from projections.cursor import evict_owners

COMMAND_LEASE_SECONDS = 60.0
_BATCH = 1000


class TenantRecord(msgspec.Struct, frozen=True):
    """A tenant, as lists show it. `shredded_at` is None while it lives."""

    id: str
    created_at: str
    shredded_at: str | None = None


class KeyRecord(msgspec.Struct, frozen=True):
    """An API key, as lists show it: never its secret nor the hash of it. `expires_at` is ISO 8601, UTC; `agent` the only one it speaks for."""

    id: str
    tenant: str | None
    scopes: list[str]
    name: str | None
    created_at: str
    expires_at: str | None
    revoked: bool
    agent: str | None
    created_by: str | None


class Installation:
    """An open installation. `temporary`: its Postgres runs for this command only, no gateway does."""

    def __init__(self, settings: Settings, places: Places, log: PostgresEventLog, *, temporary: bool) -> None:
        self.places = places
        self.log = log
        self.temporary = temporary
        self._settings = settings

    @property
    def settings(self) -> Settings:
        """The settings of this command."""
        return self._settings

    @property
    def actor(self) -> str:
        """Who decides by this command, as events say it."""
        return actor_of_command()

    @property
    def embedded(self) -> bool:
        """Whether its database lies in the data folder."""
        return self._settings.embedded_postgres

    def master(self) -> MasterKey:
        """The installation's key. Raises `NotReady` where it must be configured and is not."""
        return master_key(self._settings)

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[UUID]:
        """An instance that may append, for the time of one command."""
        instance = await self.log.register_instance(f"command of {describe()}", COMMAND_LEASE_SECONDS)
        try:
            yield instance
        finally:
            await self.log.fence_instance(instance)

    @asynccontextmanager
    async def control(self, *, seeded: bool = False) -> AsyncIterator[Control]:
        """The control plane as of now, and the way to change it, for the time of one command.

        `seeded`: what this release ships with is in the log from here on (for commands that change models or prices).
        """
        plane = ControlPlane()
        tail = PlaneTail(self.log, plane, _nothing)
        await tail.catch_up()
        async with self.writer() as instance:
            if not seeded:
                assume(plane, shipped())
            elif await seed(plane, shipped(), partial(self.log.append, instance)):
                await tail.catch_up()
            yield Control(plane, _Backing(self.log, instance, tail))

    async def decisions(self) -> AsyncIterator[tuple[StoredEvent, Any]]:
        """Every decision event that this build can read, with its data, up to the head as of the call."""
        after, head = 0, await self.log.head()
        while after < head and (events := await self.log.read_decisions(after, _BATCH)):
            for event in events:
                after = event.position
                if after > head:
                    return
                if (data := decode_decision(event.type, event.data, event.schema_version)) is not None:
                    yield event, data

    async def tenants(self) -> list[TenantRecord]:
        """Every tenant, in the order of their creation, the shredded ones too."""
        found: dict[str, TenantRecord] = {}
        async for event, data in self.decisions():
            if isinstance(data, TenantCreated):
                found[data.tenant] = TenantRecord(data.tenant, time_text(event.recorded_at))
            elif isinstance(data, TenantShredded) and data.tenant in found:
                shredded_at = time_text(event.recorded_at)
                found[data.tenant] = msgspec.structs.replace(found[data.tenant], shredded_at=shredded_at)
        return list(found.values())

    async def keys(self) -> list[KeyRecord]:
        """Every key, in the order of their creation. Those of a shredded tenant are revoked with it."""
        found: dict[str, KeyRecord] = {}
        shredded: set[str | None] = set()
        async for event, data in self.decisions():
            if isinstance(data, KeyCreated):
                expires = None if data.expires_at is None else time_text(data.expires_at * 1_000_000)
                found[data.key] = KeyRecord(
                    data.key, data.tenant, data.scopes, data.name, time_text(event.recorded_at), expires,
                    revoked=False, agent=data.agent, created_by=data.actor,
                )  # fmt: skip
            elif isinstance(data, KeyRevoked) and data.key in found:
                found[data.key] = msgspec.structs.replace(found[data.key], revoked=True)
            elif isinstance(data, TenantShredded):
                shredded.add(data.tenant)
        return [msgspec.structs.replace(k, revoked=k.revoked or k.tenant in shredded) for k in found.values()]

    def ledger(self, given: Path | None) -> Path:
        """The shred ledger: the given file, or the one in the archive folder. Raises `NotReady` where there is neither."""
        if given is not None:
            return given
        if (folder := self._settings.archive_folder) is not None:
            return folder / LEDGER_NAME
        raise NotReady(
            "the shred ledger: with a database of your own, give --ledger FILE, or set EMBERLOG_ARCHIVE_DIR; keep the file apart from the "
            "database's backups, for it says which keys they must not bring back"
        )

    def redis_url(self) -> str | None:
        """Where the shared vector cache of this installation runs; None where none is known."""
        if self.places.redis_url is not None or self._settings.redis_off:
            return self.places.redis_url
        if self._settings.redis_url is not None:
            return self._settings.redis_url.get_secret_value()
        try:
            found = running(self._settings.data_dir)
        except DataFolderInUse:
            found = None
        return None if found is None else found.redis_url

    async def require_tenant(self, name: str, *, alive: bool = False) -> None:
        """Raise `not_found` unless the tenant exists; with `alive`, also where it was shredded."""
        found = next((tenant for tenant in await self.tenants() if tenant.id == name), None)
        if found is None:
            raise GatewayError(
                "not_found", f"there is no tenant {name[:63]!r}: make it with `emberlog tenants create`, or see `emberlog tenants list`"
            )  # fmt: skip
        if alive and found.shredded_at is not None:
            raise GatewayError("not_found", f"tenant {name!r} was shredded: nothing can be done in its name any more")


def actor_of_command() -> str:
    """The operating system's user, as events name who decided: `cli:<user>`."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"


async def _nothing(event: StoredEvent, data: EventData) -> None:
    pass


class _Backing:
    """Where a command's decisions go: see `gateway.control.Backing`."""

    def __init__(self, log: PostgresEventLog, instance: UUID, tail: PlaneTail) -> None:
        self._log = log
        self._instance = instance
        self._tail = tail

    async def append(self, events: Sequence[NewEvent]) -> list[Appended]:
        """Straight to the log."""
        return await self._log.append(self._instance, events)

    async def reach(self, position: int) -> None:
        """Fold on until there."""
        await self._tail.catch_up()

    async def catch_up(self) -> None:
        """Fold what is there."""
        await self._tail.catch_up()


@asynccontextmanager
async def open_places(settings: Settings, *, migrated: bool = True) -> AsyncIterator[tuple[Places, bool]]:
    """Where the database is, and whether it runs for this command only.

    A configured database; or that of the gateway which runs on the data folder; or else the embedded one, started for the time being.
    Raises `NotReady`, `EmbeddedError`, `MigrationError`. `migrated` False leaves the schema to the caller.
    """
    if settings.database_url is not None:
        dsn = settings.database_url.get_secret_value()
        owner = settings.database_owner_url.get_secret_value() if settings.database_owner_url else dsn
        if migrated and not (state := await schema_state(dsn)).serves:
            raise NotReady(state.message)
        yield Places(dsn, owner, None), False
        return
    if not settings.data_dir.exists():
        print(f"emberlog: there is no data folder yet: making {settings.data_dir}", file=sys.stderr)
    async with turn(settings.data_dir):
        found = await _gateway_places(settings.data_dir)
        if found is None:
            async with _own_postgres(settings.data_dir, migrated) as places:
                yield places, True
            return
    if migrated:
        await _schema_of_running_gateway(found)
    yield found, False


async def _schema_of_running_gateway(places: Places) -> None:
    """Wait for a gateway that has started its Postgres and is still migrating it. Raises `NotReady` if it never gets there."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not (state := await schema_state(places.app_dsn)).serves:
        if state.status is not SchemaStatus.BEHIND or time.monotonic() > give_up:
            raise NotReady(state.message)
        await asyncio.sleep(0.1)


@asynccontextmanager
async def open_installation(settings: Settings) -> AsyncIterator[Installation]:
    """The installation of these settings, its log open. Raises as `open_places` does, and `LogUnavailable`."""
    async with open_places(settings) as (places, temporary):
        log = await PostgresEventLog.connect(places.app_dsn, archive_dir=settings.archive_folder)
        try:
            yield Installation(settings, places, log, temporary=temporary)
        finally:
            await log.close()


async def _gateway_places(data_dir: Path) -> Places | None:
    """The services of the gateway on this folder; None when there is none. One that starts or stops is waited for."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            found = running(data_dir)
        except DataFolderInUse:
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.1)
            continue
        if found is None:
            return None
        if found.app_dsn is None or found.owner_dsn is None:
            raise NotReady(
                f"the gateway on {data_dir} (pid {found.pid}) uses a database of its own: give this command the same EMBERLOG_DATABASE_URL"
            )
        return Places(found.app_dsn, found.owner_dsn, found.redis_url)


async def gateway_appears(settings: Settings) -> None:
    """Wait until there may be a gateway to read from: with a database of one's own at once."""
    while settings.database_url is None:
        try:
            if running(settings.data_dir) is not None:
                return
        except DataFolderInUse:
            pass  # it is starting, or a command is at work
        await asyncio.sleep(0.25)


@asynccontextmanager
async def _own_postgres(data_dir: Path, migrated: bool) -> AsyncIterator[Places]:
    async with await EmbeddedServices.start(data_dir, valkey=False) as services:
        if migrated:
            await migrate(services.owner_dsn, after=True)
            await services.grant_app_role()
            connection = await connect(services.app_dsn, "command")
            try:
                await evict_owners(connection)  # the folder is ours: whoever owned a projection is gone
            finally:
                await connection.close()
        yield Places(services.app_dsn, services.owner_dsn, None)
