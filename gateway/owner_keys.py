"""The key that seals what is kept for a tenant beside the log; for the installation's own, the key of `_system`.

The key of `_system` is made when it is first needed and stands with the tenants' keys, so rotating the installation's key covers it.
"""

from __future__ import annotations

from collections.abc import Mapping

from adapters.postgres.pool import Pool
from adapters.postgres.tenant_keys import all_wrapped, hold_writers, put_if_absent
from domain.errors import GatewayError
from domain.events import SYSTEM_TENANT
from gateway.secrets import MasterKey, SecretKeyError, new_tenant_key


class OwnerKeys:
    """`opened` holds the tenants' keys that are open here; others are unwrapped with `master`, as long as the tenant has one."""

    def __init__(self, pool: Pool, master: MasterKey, opened: Mapping[str, bytes]) -> None:
        self._pool = pool
        self._master = master
        self._opened = opened
        self._system: bytes | None = None

    async def require(self, owner: str) -> bytes:
        """The key of this tenant. Raises `not_found` where the tenant was shredded, `SecretKeyError`."""
        key = self._opened.get(owner)
        if key is None and owner == SYSTEM_TENANT:
            key = self._system = self._system or await self._system_key()
        if key is None and not self._opened:  # a command opens no keys at its start
            wrapped = (await all_wrapped(self._pool)).get(owner)
            key = None if wrapped is None else self._master.reread().unwrap(owner, wrapped)
        if key is None:
            raise GatewayError("not_found", f"there is no tenant {owner[:63]!r}, or it was shredded")
        return key

    async def _system_key(self) -> bytes:
        async with self._pool.acquire() as connection, connection.transaction():
            await hold_writers(connection, alone=False)  # the installation's key is not rotated meanwhile
            master = self._master.reread()
            wrapped = await put_if_absent(connection, SYSTEM_TENANT, master.wrap(SYSTEM_TENANT, new_tenant_key()))
        if wrapped is None:
            raise SecretKeyError("the key that seals what is the installation's own is gone")
        return master.unwrap(SYSTEM_TENANT, wrapped)
