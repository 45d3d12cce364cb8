"""Shredding a tenant: its key is destroyed, and with it the meaning of all that the key sealed or fingerprinted. For good.

Each step may be done again, and none is done before the one above it, so that a run which follows a crash finishes the work:
the ledger outside the database, so that no backup undoes it; the event, which every gateway obeys; the key; the vectors; the caches.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import msgspec

from adapters.postgres.pool import Connection, connect
from adapters.postgres.tenant_keys import destroy, wipe_destroyed
from adapters.postgres.vectors import drop_collections_of
from domain.errors import GatewayError
from domain.events import TenantCreated, TenantShredded
from gateway.decisions import append_decision
from gateway.house import NotReady
from gateway.manage import Installation
from gateway.purge import purge_redis
from gateway.shred_ledger import Shred, note_shred, read_ledger

_TRIES = 5


class Step(StrEnum):
    """What is done by now."""

    NOTED = "noted"
    """The ledger says that the tenant is shredded."""
    LOGGED = "logged"
    """So does the log: gateways refuse its keys, end its sessions and requests and purge their caches."""
    DESTROYED = "destroyed"
    """Its key is gone."""
    DROPPED = "dropped"
    """So are the vectors that it kept."""
    WIPED = "wiped"
    """Also from the dead rows of the table."""


class Shredded(msgspec.Struct, frozen=True):
    """What a run found and did. `already`: everything had been done before. `wiped` False: dead rows of the table may hold the key yet.

    `cache` is `purged`, `out of reach`, or `none` where no shared cache is known that runs.
    """

    id: str
    event: str
    already: bool
    wiped: bool
    cache: str


class _Stream(msgspec.Struct):
    """What the log says of a tenant."""

    exists: bool = False
    shredded: bool = False
    version: int = 0


async def shred_tenant(
    installation: Installation, ledger: Path, tenant: str, on_step: Callable[[Step], None] = lambda _: None
) -> Shredded:
    """Shred it, or finish what an earlier run left. Raises `not_found`, `NotReady`, `LedgerUnusable` and what the database raises."""
    owner = await open_owner(installation)
    try:
        found = await _stream(installation, tenant)
        if not found.exists and not found.shredded and tenant not in read_ledger(ledger):
            raise GatewayError("not_found", f"there is no tenant {tenant[:63]!r}: see `emberlog tenants list`")
        shred = note_shred(ledger, tenant)
        on_step(Step.NOTED)
        logged = await log_shred(installation, shred)
        on_step(Step.LOGGED)
        destroyed = await destroy(owner, tenant)
        on_step(Step.DESTROYED)
        await drop_collections_of(owner, tenant)
        on_step(Step.DROPPED)
        wiped = await wipe_destroyed(owner)
        on_step(Step.WIPED)
    finally:
        await owner.close()
    return Shredded(
        tenant, str(shred.event), not (logged or destroyed), wiped, await _purge_shared(installation, tenant)
    )


async def open_owner(installation: Installation) -> Connection:
    """A connection that may destroy keys. Raises `NotReady`."""
    owner = await connect(installation.places.owner_dsn, "owner", role=False)
    if await owner.fetchval("SELECT has_schema_privilege('emberlog', 'CREATE')"):
        return owner
    await owner.close()
    raise NotReady("only the owner of the schema may do this: set EMBERLOG_DATABASE_OWNER_URL to the owner's login")


async def log_shred(installation: Installation, shred: Shred) -> bool:
    """Append `tenant.shredded` under the ledger's event id; False where the log has one of the tenant."""
    tenant = shred.tenant
    async with installation.writer() as instance:
        for turn in range(1, _TRIES + 1):
            found = await _stream(installation, tenant)
            if found.shredded:
                return False
            try:
                await append_decision(
                    installation.log, instance, tenant, f"tenant/{tenant}",
                    TenantShredded(tenant=tenant, actor=installation.actor),
                    expected_version=found.version, event_id=shred.event.bytes,
                )  # fmt: skip
            except GatewayError as error:  # a key was made or revoked meanwhile
                if error.code != "version_conflict" or turn == _TRIES:
                    raise
            else:
                return True
    raise AssertionError("unreachable")


async def _stream(installation: Installation, tenant: str) -> _Stream:
    found = _Stream()
    async for event, data in installation.decisions():
        if event.stream == f"tenant/{tenant}":
            found.version = event.version or found.version
            found.exists |= isinstance(data, TenantCreated)
            found.shredded |= isinstance(data, TenantShredded)
    return found


async def _purge_shared(installation: Installation, tenant: str) -> str:
    url = installation.redis_url()
    if url is None:
        return "none"
    try:
        await purge_redis(url, tenant)
    except OSError:
        return "out of reach"
    return "purged"
