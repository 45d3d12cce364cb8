"""What people do with webhooks, for the management API and the commands alike.

The event comes first and the secret after it: of two who make the same webhook at once one does, and only that one is shown a secret.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import msgspec
import structlog

from adapters.postgres import deliveries
from adapters.postgres.deliveries import Delivery
from adapters.postgres.pool import Pool
from domain.decision import Decision
from domain.errors import GatewayError, invalid_request
from domain.plane import ControlPlane
from domain.webhooks import Webhook, decide_create, decide_delete, decide_rotate, new_webhook_id, webhook_stream
from gateway.control import Written
from gateway.event_document import time_text
from gateway.webhooks.secrets import WebhookSecrets

_log = structlog.get_logger("emberlog.webhooks")
OVERLAP_SECONDS = 24 * 3600
MAX_OVERLAP_SECONDS = 7 * 24 * 3600
MAX_LISTED = 1000

Take = Callable[[str, Callable[[ControlPlane], list[Decision]]], Awaitable[Written]]
"""Takes a decision on a stream: `Control.run`, or `Call.decide` of a route."""


class WebhookDocument(msgspec.Struct, frozen=True):
    """A webhook, as lists show it. `tenant` is null for one of the installation. The secret is shown when it is made, and never again."""

    id: str
    tenant: str | None
    url: str
    types: list[str]


class MadeWebhook(msgspec.Struct, frozen=True):
    """A webhook that was made, or was there already: then `secret` is null."""

    id: str
    tenant: str | None
    url: str
    types: list[str]
    secret: str | None


class NewSecret(msgspec.Struct, frozen=True):
    """A webhook's new secret, shown once. The one before signs beside it until `overlap_until` (ISO 8601, UTC)."""

    id: str
    secret: str
    overlap_until: str


class DeliveryDocument(msgspec.Struct, frozen=True):
    """A delivery. `state`: `pending`, `delivered` or `dead`. `status` and `reason` are those of the last try; times are ISO 8601, UTC."""

    webhook: str
    event: str
    tenant: str
    type: str
    state: str
    tries: int
    created_at: str
    next_at: str | None
    ended_at: str | None
    last_at: str | None
    status: int | None
    reason: str | None
    ms: int | None


class WebhookAdmin:
    """For one installation. `tenant` is whose webhooks are meant: None for those of the installation."""

    def __init__(self, pool: Pool, plane: ControlPlane, secrets: WebhookSecrets, *, allow_private: bool) -> None:
        self._pool = pool
        self._plane = plane
        self._secrets = secrets
        self._allow_private = allow_private

    async def create(
        self, take: Take, tenant: str | None, *, url: str, types: list[str], webhook: str | None, actor: str
    ) -> MadeWebhook:
        """Make one, under an id of one's own or a random one. Raises `invalid_config`, `resource_constraint`, `not_found`."""
        owner, stream = webhook_stream(tenant)
        await self._secrets.require_key(owner)
        name = webhook or new_webhook_id()

        def decide(plane: ControlPlane) -> list[Decision]:
            return decide_create(
                plane, name, url=url, types=types, tenant=tenant, actor=actor, allow_private=self._allow_private
            )

        written = await take(stream, decide)
        found = self._plane.webhooks.find(name, tenant)
        secret = await self._secrets.make(found) if written.changed else None
        return MadeWebhook(found.id, found.tenant, found.url, list(found.patterns), secret)

    async def delete(self, take: Take, tenant: str | None, webhook: str, *, actor: str) -> None:
        """Delete one; what waits for it is forgotten. Raises `not_found`."""
        owner, stream = webhook_stream(tenant)
        await take(stream, lambda plane: decide_delete(plane, webhook, tenant=tenant, actor=actor))
        await deliveries.forget(self._pool, webhook, owner)

    async def rotate(
        self, take: Take, tenant: str | None, webhook: str, *, actor: str, overlap_seconds: int = OVERLAP_SECONDS
    ) -> NewSecret:
        """Give one a new secret. Raises `not_found`, `invalid_request`."""
        if not 0 <= overlap_seconds <= MAX_OVERLAP_SECONDS:
            raise invalid_request(f"expected 0 to {MAX_OVERLAP_SECONDS} seconds of overlap", "overlap_seconds")
        _, stream = webhook_stream(tenant)
        until = int(time.time()) + overlap_seconds
        await take(
            stream, lambda plane: decide_rotate(plane, webhook, tenant=tenant, overlap_until=until, actor=actor)
        )  # fmt: skip
        secret = await self._secrets.make(
            self._plane.webhooks.find(webhook, tenant), timedelta(seconds=overlap_seconds)
        )
        return NewSecret(webhook, secret, time_text(until * 1_000_000))

    def webhooks(self, tenant: str | None) -> list[WebhookDocument]:
        """Those there are, by id."""
        return [document(w) for w in self._plane.webhooks.of(tenant)]

    def show(self, tenant: str | None, webhook: str) -> WebhookDocument:
        """One of them. Raises `not_found`."""
        return document(self._plane.webhooks.find(webhook, tenant))

    async def deliveries(
        self, tenant: str | None, webhook: str | None = None, *, state: str | None = None, limit: int = 100
    ) -> list[DeliveryDocument]:
        """What was and is to be delivered to one webhook or to all of them, the newest first. Raises `not_found`."""
        hooks = self._plane.webhooks.of(tenant) if webhook is None else [self._plane.webhooks.find(webhook, tenant)]
        found = await deliveries.listed(self._pool, [w.id for w in hooks], state=state, limit=limit)
        return [_delivery(one) for one in found if tenant in (None, one.tenant)]

    async def dead_letter(self, tenant: str | None, webhook: str, event: str) -> DeliveryDocument:
        """The dead letter of an event. Raises `not_found`."""
        self._plane.webhooks.find(webhook, tenant)
        found = await deliveries.listed(self._pool, [webhook], state="dead", event_id=event_uuid(event), limit=1)
        if not found or tenant not in (None, found[0].tenant):
            raise _no_letter(webhook, event)
        return _delivery(found[0])

    async def requeue(self, tenant: str | None, webhook: str, event: str | None, *, actor: str) -> int:
        """Try a dead letter again, or all of a webhook (None); returns how many. Raises `not_found`."""
        self._plane.webhooks.find(webhook, tenant)
        count = await deliveries.requeue(self._pool, webhook, None if event is None else event_uuid(event))
        if not count and event is not None:
            raise _no_letter(webhook, event)
        _log.info("dead_letters_put_back", webhook=webhook, event_id=event, count=count, actor=actor)
        return count

    async def discard(self, tenant: str | None, webhook: str, event: str | None, *, actor: str) -> int:
        """Forget a dead letter, or all of a webhook (None); returns how many. Raises `not_found`."""
        self._plane.webhooks.find(webhook, tenant)
        count = await deliveries.discard(self._pool, webhook, None if event is None else event_uuid(event))
        if not count and event is not None:
            raise _no_letter(webhook, event)
        _log.info("dead_letters_discarded", webhook=webhook, event_id=event, count=count, actor=actor)
        return count


def document(webhook: Webhook) -> WebhookDocument:
    """The webhook as lists show it."""
    return WebhookDocument(webhook.id, webhook.tenant, webhook.url, list(webhook.patterns))


def event_uuid(text: str) -> UUID:
    """The id of an event. Raises `invalid_request`."""
    try:
        return UUID(text)
    except ValueError:
        raise invalid_request("expected the id of an event, a UUID as the header webhook-id has it", "event") from None


def _no_letter(webhook: str, event: str) -> GatewayError:
    return GatewayError(
        "not_found", f"webhook {webhook} has no dead letter of the event {event[:63]!r}", details={"field": "event"}
    )


def _delivery(one: Delivery) -> DeliveryDocument:
    created, next_at, ended, last = (
        None if t is None else time_text(round(t.timestamp() * 1_000_000))
        for t in (one.created_at, one.next_at, one.ended_at, one.last_at)
    )
    assert created is not None
    return DeliveryDocument(
        one.webhook,
        str(one.event_id),
        one.tenant,
        one.type,
        one.state,
        one.tries,
        created,
        next_at,
        ended,
        last,
        one.last_status,
        one.last_reason,
        one.last_ms,
    )
