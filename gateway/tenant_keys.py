"""The tenants' keys as a running gateway holds them: unwrapped, in memory, and gone at once when a tenant is shredded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import structlog

from adapters.postgres.pool import Pool
from adapters.postgres.tenant_keys import all_wrapped
from gateway.secrets import MasterKey, SecretKeyError
from gateway.shred_ledger import LedgerUnusable, read_ledger

_log = structlog.get_logger("emberlog.keys")
_UNFINISHED = (
    "the shred ledger names tenants whose keys the database has: they are shut out; after a restore stop every gateway and run "
    "`emberlog log restored`, else finish with `emberlog tenants shred`"
)


class TenantKeys:
    """`opened` maps tenants to their 32-byte keys, but for those in `shredded` (the directory's, which the ledger adds to)."""

    def __init__(self, pool: Pool, master: MasterKey, shredded: set[str]) -> None:
        self.opened: dict[str, bytes] = {}
        self._pool = pool
        self._master = master
        self._shredded = shredded

    async def obey(self, ledger: Path) -> None:
        """A tenant of the ledger is shredded, whatever a restored database, or one where the command was cut short, says."""
        try:
            self._shredded.update(read_ledger(ledger))
        except (
            LedgerUnusable
        ) as error:  # it may be its operator's alone to read; `emberlog log restored` is what must read it
            _log.warning("shred_ledger_unusable", reason=str(error))
        if left := self._shredded & (await all_wrapped(self._pool)).keys():
            _log.error("shred_unfinished", tenants=sorted(left), reason=_UNFINISHED)

    async def load(self) -> None:
        """Open the keys that are not here yet. Raises `SecretKeyError` if one cannot be, with the others here."""
        wrapped = await all_wrapped(self._pool)
        new = wrapped.keys() - self.opened.keys() - self._shredded
        closed = self._open({tenant: wrapped[tenant] for tenant in new})
        if closed:
            self._master = self._master.reread()  # it may have been rotated since
            closed = self._open(closed)
        for tenant, sealed in closed.items():
            self._master.unwrap(tenant, sealed)  # says what is wrong

    async def load_running(self) -> None:
        """The same while serving: a key that another gateway wrapped otherwise must not keep us from learning of revocations."""
        try:
            await self.load()
        except SecretKeyError as error:
            _log.error("tenant_key_unusable", reason=str(error))

    def forget(self, tenant: str) -> None:
        """The tenant was shredded."""
        self.opened.pop(tenant, None)

    def _open(self, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
        """Take those keys that open; returns the others."""
        closed = {}
        for tenant, sealed in wrapped.items():
            try:
                self.opened[tenant] = self._master.unwrap(tenant, sealed)
            except SecretKeyError:
                closed[tenant] = sealed
        return closed
