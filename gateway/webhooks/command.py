"""Webhooks for the time of one command, whether a gateway runs or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from domain.decision import Decision
from domain.plane import ControlPlane
from gateway.control import Written
from gateway.manage import Installation
from gateway.webhooks.manage import Take, WebhookAdmin
from gateway.webhooks.secrets import WebhookSecrets


@asynccontextmanager
async def open_webhooks(installation: Installation) -> AsyncIterator[tuple[WebhookAdmin, Take]]:
    """The webhooks, and the way to decide on them. Raises `NotReady` where there is no installation's key."""
    pool = installation.log.pool
    async with installation.control() as control:
        secrets = WebhookSecrets(pool, installation.master(), {})

        async def take(stream: str, decide: Callable[[ControlPlane], list[Decision]]) -> Written:
            return await control.run(decide, stream=stream)

        allow_private = installation.settings.webhook_allow_private
        yield WebhookAdmin(pool, control.plane, secrets, allow_private=allow_private), take
