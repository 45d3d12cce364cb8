"""The secrets of credentials for providers: sealed under the tenant's key beside the log, opened where an endpoint needs them.

The secret is kept before the event tells of it, under a revision of its own. It is in no event, log line, error or answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from adapters.postgres.credentials import (
    add_sealed,
    forget_credentials,
    forget_older,
    forget_revision,
    forget_secret,
    sealed_secret,
)
from adapters.postgres.pool import UNREACHABLE, Pool
from domain.errors import GatewayError
from gateway.owner_keys import OwnerKeys
from gateway.secrets import MasterKey, SecretKeyError, seal, unseal


class CredentialUnusable(Exception):
    """A credential is gone, or does not open. The message says so, and holds nothing of it."""


class Secrets(Protocol):
    """Where endpoints find the secrets of their credentials."""

    async def secret(self, tenant: str, name: str, revision: int) -> str:
        """The secret of this revision. Raises `CredentialUnusable`, OSError where the database is out of reach."""
        ...


class CredentialSecrets:
    """Those of one installation. `opened` holds the tenants' keys that are open here."""

    def __init__(self, pool: Pool, master: MasterKey, opened: Mapping[str, bytes]) -> None:
        self._pool = pool
        self._keys = OwnerKeys(pool, master, opened)

    async def keep(self, tenant: str, name: str, provider: str, secret: str) -> int:
        """Keep a secret; returns its revision. Raises `not_found` for a tenant that was shredded, `version_conflict` where two do this at once."""
        sealed = seal(await self._keys.require(tenant), secret.encode(), _context(tenant, name, provider))
        revision = await add_sealed(self._pool, tenant, name, provider, sealed)
        if revision is None:
            raise GatewayError("version_conflict", f"credential {name!r} is being set by somebody else: try again")
        return revision

    async def settle(self, tenant: str, name: str, revision: int) -> None:
        """The log tells of this revision: forget those before it."""
        await forget_older(self._pool, tenant, name, revision)

    async def discard(self, tenant: str, name: str, revision: int) -> None:
        """The log will not tell of this revision: forget it."""
        await forget_revision(self._pool, tenant, name, revision)

    async def drop(self, tenant: str, name: str, revision: int) -> None:
        """Forget the secrets up to this revision."""
        await forget_secret(self._pool, tenant, name, revision)

    async def secret(self, tenant: str, name: str, revision: int) -> str:
        """See `Secrets.secret`."""
        try:
            found = await sealed_secret(self._pool, tenant, name, revision)
            if found is None:
                raise CredentialUnusable(f"the secret of credential {name!r} is gone: set it anew")
            provider, sealed = found
            return unseal(await self._keys.require(tenant), sealed, _context(tenant, name, provider)).decode()
        except UNREACHABLE as error:
            raise OSError(f"the database is out of reach: {type(error).__name__}") from None
        except (SecretKeyError, GatewayError):
            raise CredentialUnusable(f"the secret of credential {name!r} does not open with the tenant's key") from None

    async def forget(self, tenant: str) -> None:
        """A tenant was shredded. Raises OSError where the database is out of reach."""
        try:
            await forget_credentials(self._pool, tenant)
        except UNREACHABLE as error:
            raise OSError(f"the database is out of reach: {type(error).__name__}") from None


def _context(tenant: str, name: str, provider: str) -> bytes:
    return f"credential:{tenant}/{name}/{provider}".encode()
