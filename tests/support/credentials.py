"""Secrets of credentials, in memory and in plain."""

from __future__ import annotations

from gateway.credentials import CredentialUnusable


class MemorySecrets:
    """`kept` by (tenant, name, revision). `away`: the database is out of reach. `read` counts what was asked for."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, int], str] = {}
        self.newest: dict[tuple[str, str], int] = {}
        self.away = False
        self.read = 0

    async def keep(self, tenant: str, name: str, provider: str, secret: str) -> int:
        revision = self.newest[tenant, name] = self.newest.get((tenant, name), 0) + 1
        self.kept[tenant, name, revision] = secret
        return revision

    async def settle(self, tenant: str, name: str, revision: int) -> None:
        self.kept = {k: v for k, v in self.kept.items() if k[:2] != (tenant, name) or k[2] >= revision}

    async def discard(self, tenant: str, name: str, revision: int) -> None:
        self.kept.pop((tenant, name, revision), None)

    async def drop(self, tenant: str, name: str, revision: int) -> None:
        self.kept = {k: v for k, v in self.kept.items() if k[:2] != (tenant, name) or k[2] > revision}

    async def secret(self, tenant: str, name: str, revision: int) -> str:
        self.read += 1
        if self.away:
            raise OSError("the database is out of reach")
        try:
            return self.kept[tenant, name, revision]
        except KeyError:
            raise CredentialUnusable(f"the secret of credential {name!r} is gone: set it anew") from None
