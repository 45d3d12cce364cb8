"""The secrets that sign webhooks' messages: sealed under the tenant's key, those of the installation under the key of `_system`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

import structlog

from adapters.postgres.pool import Pool
from adapters.postgres.webhook_secrets import add_secret, valid_secrets
from adapters.webhooks.signing import new_secret
from domain.errors import GatewayError
from domain.webhooks import Webhook
from gateway.owner_keys import OwnerKeys
from gateway.secrets import MasterKey, SecretKeyError, seal, unseal

_log = structlog.get_logger("emberlog.webhooks")


class WebhookSecrets:
    """`opened` holds the tenants' keys that are open here; others are unwrapped with `master`, as long as the tenant has one."""

    def __init__(self, pool: Pool, master: MasterKey, opened: Mapping[str, bytes]) -> None:
        self._pool = pool
        self._keys = OwnerKeys(pool, master, opened)

    async def require_key(self, owner: str) -> bytes:
        """The key that seals the secrets of this tenant's webhooks. Raises `not_found` where the tenant was shredded, `SecretKeyError`."""
        return await self._keys.require(owner)

    async def make(self, webhook: Webhook, overlap: timedelta = timedelta(0)) -> str:
        """A new secret for the webhook, to be shown once; the one before signs beside it for `overlap`."""
        secret = new_secret()
        sealed = seal(await self.require_key(webhook.owner), secret.encode(), _context(webhook.id))
        await add_secret(self._pool, webhook.id, webhook.owner, sealed, overlap)
        return secret

    async def of(self, webhooks: Collection[Webhook]) -> dict[str, list[str]]:
        """The secrets that sign now by webhook, the newest first. Those that are gone or cannot be opened are missing."""
        sealed = await valid_secrets(self._pool, [w.id for w in webhooks])
        found: dict[str, list[str]] = {}
        for webhook in webhooks:
            try:
                key = await self.require_key(webhook.owner)
                found[webhook.id] = [
                    unseal(key, one, _context(webhook.id)).decode() for one in sealed.get(webhook.id, [])
                ]
            except (SecretKeyError, GatewayError, ValueError) as error:
                _log.error("webhook_secret_unusable", webhook=webhook.id, reason=str(error))
        return found


def _context(webhook: str) -> bytes:
    return b"webhook-secret:" + webhook.encode()
