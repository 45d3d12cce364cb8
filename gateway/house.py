"""What has to stand before a gateway can: the data folder's services, the schema, the installation's key, the local model's files.

Shared by `emberlog serve` and, in part, by the management commands.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog

from adapters.catalogue import shipped
from adapters.embedded import EmbeddedServices, ServiceEvent
from adapters.postgres.migrator import SchemaStatus, migrate, schema_state
from adapters.providers.local.fetch import ensure
from adapters.providers.local.files import default_store
from adapters.providers.registry import api_key
from domain.plane import ControlPlane
from gateway.auth.issuer import open_issuer
from gateway.catalogue.live import LiveCatalogue
from gateway.catalogue.seeding import assume
from gateway.places import Places
from gateway.secrets import MasterKey, SecretKeyError
from gateway.settings import Settings
from gateway.turn import turn

_log = structlog.get_logger("emberlog.house")


class NotReady(Exception):
    """Something the gateway needs is not as it must be; the message says what, and what to run or set."""


class House(msgspec.Struct, frozen=True):
    """Where things are, and the installation's key."""

    places: Places
    master: MasterKey


def master_key(settings: Settings) -> MasterKey:
    """The installation's key: the configured file, or one made in the data folder when Postgres is embedded. Raises `NotReady`."""
    path = settings.secret_key_file
    try:
        if path is not None:
            return MasterKey.load(path, create=False)
        if settings.embedded_postgres:
            return MasterKey.load(settings.data_dir / "secret.key", create=True)
    except SecretKeyError as error:
        raise NotReady(str(error)) from None
    raise NotReady(
        "secret_key_file: with a database of your own the installation's key must be given: set EMBERLOG_SECRET_KEY_FILE to a file of 32 "
        "bytes in base64, the same for every gateway of this database (make one with `umask 077; head -c 32 /dev/urandom | base64`)"
    )


@asynccontextmanager
async def open_house(settings: Settings, *, valkey: bool = True) -> AsyncIterator[House]:
    """Start what is embedded, bring or check the schema, and hold it all until the end. Raises `NotReady` and `DataFolderInUse`."""
    want_valkey = valkey and settings.embedded_valkey
    if not settings.embedded_postgres and not want_valkey:
        yield House(await _external(settings, None), master_key(settings))
        return
    async with turn(settings.data_dir):
        services = await EmbeddedServices.start(
            settings.data_dir, postgres=settings.embedded_postgres, valkey=want_valkey, on_event=_report
        )
    async with services:
        if settings.embedded_postgres:
            await migrate(services.owner_dsn, after=True)  # we hold the folder: no other gateway runs
            await services.grant_app_role()
            places = Places(services.app_dsn, services.owner_dsn, _redis(settings, services.redis_url))
        else:
            places = await _external(settings, services.redis_url)
        yield House(places, master_key(settings))


def _report(event: ServiceEvent) -> None:
    """An embedded server died or came back: one log line."""
    _log.warning(f"{event.service}_{event.kind}", detail=event.detail)


async def _external(settings: Settings, embedded_redis: str | None) -> Places:
    assert settings.database_url is not None
    dsn = settings.database_url.get_secret_value()
    owner = settings.database_owner_url.get_secret_value() if settings.database_owner_url else dsn
    state = await schema_state(dsn)
    if not state.serves:
        raise NotReady(state.message)
    if state.status is SchemaStatus.NEWER:
        _log.info("schema_newer", detail=state.message)
    return Places(dsn, owner, _redis(settings, embedded_redis))


def _redis(settings: Settings, embedded: str | None) -> str | None:
    if settings.redis_off:
        return None
    return embedded if settings.redis_url is None else settings.redis_url.get_secret_value()


def check_endpoints(settings: Settings) -> None:
    """Raise what is wrong with the configured endpoints before anything is made: `EndpointError`, ValueError."""
    environment, endpoints = settings.environment(), settings.configured_endpoints()
    if settings.embedded_postgres and not settings.data_dir.exists():
        # Nothing was registered yet: what is shipped is all there is.
        plane = ControlPlane()
        assume(plane, shipped())
        LiveCatalogue(plane, endpoints).check()
    for endpoint in endpoints:
        api_key(endpoint, environment)


def check_issuers(settings: Settings) -> None:
    """Raise ValueError where the keys of an issuer of tokens are not where the settings say, before anything is made."""
    environment = settings.environment()
    for issuer in settings.jwt_issuers:
        open_issuer(issuer, environment)


async def fetch_local_model(settings: Settings) -> None:
    """Have the local model's files at hand before the first request needs them, if an endpoint serves it."""
    if any(e.provider == "local" for e in settings.configured_endpoints()):
        print("emberlog: preparing the local model (once per machine)", file=sys.stderr) if not _model_there(
            settings
        ) else None
        await asyncio.to_thread(ensure, settings.model_store or default_store())


def _model_there(settings: Settings) -> bool:
    return (settings.model_store or default_store()).exists()
