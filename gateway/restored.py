"""After a restore from a backup: the log becomes a new incarnation, nobody of before writes, and no destroyed key comes back.

Each step may be done again; keys are destroyed first, so that whatever is interrupted, they are gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import msgspec

from adapters.postgres.pool import Connection
from adapters.postgres.statements import statement
from adapters.postgres.tenant_keys import destroy, wipe_destroyed
from domain.events import LogRestored
from domain.facts import system_fact
from gateway.house import NotReady
from gateway.manage import Installation
from gateway.shred_ledger import read_ledger
from gateway.shredding import log_shred, open_owner
from projections.cursor import evict_owners


class Step(StrEnum):
    """What is done by now."""

    DESTROYED = "destroyed"
    """Keys that the backup brought back are gone."""
    RENEWED = "renewed"
    """Cursors of before are refused, and so is whoever wrote before."""
    LOGGED = "logged"
    """The log says of every tenant of the ledger that it is shredded."""


class Restored(msgspec.Struct, frozen=True):
    """What was done. `shredded` are the tenants that the restored database did not know to be shredded; `fenced` counts instances.

    `ledger` says whether there is one: without, no tenant was ever shredded, or it was lost.
    """

    previous: str
    incarnation: str
    head: int
    fenced: int
    shredded: list[str]
    ledger: bool
    wiped: bool


async def restored(
    installation: Installation, ledger: Path, on_step: Callable[[Step], None] = lambda _: None
) -> Restored:
    """Make a restored database fit to serve. Raises `NotReady` while a gateway serves on it, `LedgerUnusable`, and what the database raises."""
    there, shreds = await asyncio.to_thread(ledger.exists), read_ledger(ledger)
    owner = await open_owner(installation)
    try:
        await _refuse_if_served(owner)
        came_back = {tenant for tenant in shreds if await destroy(owner, tenant)}
        wiped = await wipe_destroyed(owner)
        on_step(Step.DESTROYED)
        async with owner.transaction():
            await owner.execute("SET LOCAL lock_timeout = '5s'; SELECT emberlog.lock_log()")
            await _refuse_if_served(owner)
            renewed = await owner.fetchrow(statement("renew_incarnation"))
            assert renewed is not None
            await evict_owners(owner)
        on_step(Step.RENEWED)
        for shred in shreds.values():
            if await log_shred(installation, shred):
                came_back.add(shred.tenant)
        on_step(Step.LOGGED)
        previous, incarnation = UUID(bytes=renewed["previous"].bytes), UUID(bytes=renewed["incarnation"].bytes)
        await _log(installation, LogRestored(str(previous), len(came_back), time.time_ns() // 1000), incarnation)
        return Restored(
            previous=str(previous),
            incarnation=str(incarnation),
            head=await installation.log.head(),
            fenced=renewed["fenced"],
            shredded=[tenant for tenant in shreds if tenant in came_back],
            ledger=there,
            wiped=wiped,
        )
    finally:
        await owner.close()


async def _refuse_if_served(owner: Connection) -> None:
    serving = await owner.fetchrow(statement("serving"))
    if serving is not None and serving["instances"]:
        raise NotReady(
            f"{serving['instances']} gateways or commands hold a lease on this log (the newest: {serving['newest']}): stop them first. "
            f"If they are those of the backup, wait {serving['seconds']} s until their leases have run out"
        )


async def _log(installation: Installation, data: LogRestored, incarnation: UUID) -> None:
    async with installation.writer() as instance:
        await installation.log.append(instance, [system_fact(data, str(incarnation), data.at)])
