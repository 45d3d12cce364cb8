"""Rotating the installation's key: every tenant's key is wrapped anew with the first key of the key file.

Nothing is ever unreadable: the file has the new key in front of the old ones before anything is wrapped with it, and keeps the old
ones until no tenant's key needs them. A run that follows a crash finishes the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

import msgspec

from adapters.postgres.tenant_keys import all_wrapped, hold_writers, replace_wrapped, wipe_destroyed
from domain.events import MasterKeyRotated
from domain.facts import system_fact
from gateway.house import NotReady
from gateway.manage import Installation
from gateway.shredding import open_owner


class Step(StrEnum):
    """What is done by now."""

    WRITTEN = "written"
    """The file has the new key in front."""
    LOGGED = "logged"
    """The log says so; the keys are wrapped anew, but not committed."""
    COMMITTED = "committed"


class Rotated(msgspec.Struct, frozen=True):
    """What a run did. `made`: the new key was made by it; `rewrapped` counts the tenants' keys that an older key had wrapped.

    `keys` is how many the file has now; `wiped` False: dead rows of the table may hold keys that an older one wrapped.
    """

    made: bool
    rewrapped: int
    tenants: int
    keys: int
    wiped: bool


async def rotate_master(
    installation: Installation, *, may_make: bool, on_step: Callable[[Step], None] = lambda _: None
) -> Rotated:
    """Wrap every tenant's key with the first key of the file, which is made if it has but one and `may_make`.

    Raises `NotReady`, `SecretKeyError` and what the database raises; nothing is lost then, run it again.
    """
    owner = await open_owner(installation)
    try:
        async with owner.transaction():
            await hold_writers(owner, alone=True)
            # Read under the lock: of two runs at once the second finds what the first made.
            master = installation.master()
            wrapped = await all_wrapped(owner)
            anew = master.rewrap(wrapped)  # all of them open, or nothing is begun
            if made := master.count == 1:
                if not may_make:
                    raise NotReady(_ONE_KEY)
                master = master.with_new_first()
                anew = master.rewrap(wrapped)
                on_step(Step.WRITTEN)
            await replace_wrapped(owner, anew)
            if made or anew:
                await _log(installation, master.id, len(wrapped))
                on_step(Step.LOGGED)
        on_step(Step.COMMITTED)
        wiped = await wipe_destroyed(owner)
    finally:
        await owner.close()
    return Rotated(made, len(anew), len(wrapped), master.count, wiped)


async def forget_old(installation: Installation) -> int:
    """Leave only the first key in the file; returns how many went. Raises `NotReady` while a tenant's key needs another."""
    owner = await open_owner(installation)
    try:
        async with owner.transaction():
            await hold_writers(owner, alone=True)
            master = installation.master()
            if needed := len(master.rewrap(await all_wrapped(owner))):
                raise NotReady(
                    f"{needed} tenants' keys are still wrapped with an older key: run `emberlog keys rotate-master` first"
                )
            if master.count > 1:
                master.without_older()
            return master.count - 1
    finally:
        await owner.close()


async def _log(installation: Installation, key_id: str, tenants: int) -> None:
    at = time.time_ns() // 1000
    async with installation.writer() as instance:
        await installation.log.append(
            instance, [system_fact(MasterKeyRotated(tenants=tenants, at=at), f"{key_id}/{at}", at)]
        )


_ONE_KEY = (
    "the secret key file holds one key, and with a database of your own this command makes none, for it would be in this file alone: put "
    "a new key (`head -c 32 /dev/urandom | base64`) on a line in front of the old one, in the file of every gateway and in its copy, and run "
    "this again"
)
