"""Webhooks: where events are delivered to. Folded from their events; and the decisions about them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import (
    EVENT_TYPES,
    SYSTEM_STREAM,
    SYSTEM_TENANT,
    EventData,
    TenantShredded,
    WebhookCreated,
    WebhookDeleted,
    WebhookDeliveryFailed,
    WebhookSecretRotated,
)
from domain.facts import tenant_fact
from domain.ports.event_log import NewEvent
from domain.problems import Problems
from domain.webhook_url import BadAddress, parse_address

if TYPE_CHECKING:
    from domain.plane import ControlPlane

MAX_WEBHOOKS = 100
"""Webhooks of one tenant, and of the installation."""
MAX_TYPES = 64
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Webhook(msgspec.Struct, frozen=True):
    """A webhook: the events behind `position` whose type is among `types` go to `url`; those of `tenant`, or of all (None).

    `patterns` are the types as they were asked for: a name, or a group such as `alert.*`.
    """

    id: str
    url: str
    patterns: tuple[str, ...]
    tenant: str | None
    position: int
    types: frozenset[str]

    @property
    def owner(self) -> str:
        """The tenant whose key seals its secrets."""
        return SYSTEM_TENANT if self.tenant is None else self.tenant

    def wants(self, tenant: str, kind: str) -> bool:
        """Whether events of this tenant and type go there."""
        return kind in self.types and self.tenant in (None, tenant)


class Webhooks:
    """The webhooks that there are, by id. `version` grows with every change."""

    def __init__(self) -> None:
        self.version = 0
        self.webhooks: dict[str, Webhook] = {}

    def of(self, tenant: str | None) -> list[Webhook]:
        """Those of a tenant, or of the installation (None), by id."""
        return sorted((w for w in self.webhooks.values() if w.tenant == tenant), key=lambda w: w.id)

    def find(self, webhook: str, tenant: str | None) -> Webhook:
        """The webhook of this tenant. Raises `not_found`, also for those of others."""
        found = self.webhooks.get(webhook)
        if found is None or found.tenant != tenant:
            raise GatewayError("not_found", f"there is no webhook {webhook[:63]!r}", details={"field": "webhook"})
        return found

    def apply(self, position: int, data: EventData) -> None:
        """Fold one event of the log."""
        match data:
            case WebhookCreated():
                self.webhooks[data.webhook] = Webhook(
                    data.webhook, data.url, tuple(data.types), data.tenant, position, expand(data.types)
                )
            case WebhookDeleted():
                self.webhooks.pop(data.webhook, None)
            case TenantShredded():
                self.webhooks = {name: w for name, w in self.webhooks.items() if w.tenant != data.tenant}
            case _:
                return
        self.version += 1


def expand(patterns: Sequence[str]) -> frozenset[str]:
    """The event types that patterns stand for: those of them that this build knows."""
    found: set[str] = set()
    for pattern in patterns:
        if pattern.endswith(".*"):
            found.update(name for name in EVENT_TYPES if name.startswith(pattern[:-1]))
        elif pattern in EVENT_TYPES:
            found.add(pattern)
    return frozenset(found)


def new_webhook_id() -> str:
    """A random id."""
    return f"wh-{secrets.token_hex(8)}"


def webhook_stream(tenant: str | None) -> tuple[str, str]:
    """The tenant and the stream that a webhook's events are of."""
    return (SYSTEM_TENANT, SYSTEM_STREAM) if tenant is None else (tenant, f"tenant/{tenant}")


def decide_create(
    plane: ControlPlane,
    webhook: str,
    *,
    url: str,
    types: Sequence[str],
    tenant: str | None,
    actor: str,
    allow_private: bool = False,
) -> list[Decision]:
    """Make a webhook; nothing where there is the same one. Raises `invalid_config`, `resource_constraint`."""
    problems = Problems()
    if not _ID.fullmatch(webhook):
        problems.add(
            "webhook", "expected 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
        )  # fmt: skip
    try:
        parse_address(url, allow_private=allow_private)
    except BadAddress as error:
        problems.add("url", str(error))
    if not types or len(types) > MAX_TYPES:
        problems.add("types", f"expected 1 to {MAX_TYPES} types of events")
    for pattern in types[:MAX_TYPES]:
        if not expand([pattern]):
            problems.add(
                "types",
                f"there are no events {pattern[:64]!r}: expected a type of docs/events.md or a group such as alert.*",
            )
    problems.check("the webhook")
    wanted = WebhookCreated(
        webhook=webhook, url=url, types=sorted(set(types)), tenant=tenant, actor=actor
    )  # fmt: skip
    there = plane.webhooks.webhooks.get(webhook)
    if there is not None:
        if (there.url, list(there.patterns), there.tenant) == (url, wanted.types, tenant):
            return []
        raise GatewayError(
            "resource_constraint",
            f"the webhook id {webhook!r} is taken: choose another, or delete that webhook first",
            details={"field": "webhook"},
        )
    if len(plane.webhooks.of(tenant)) >= MAX_WEBHOOKS:
        raise GatewayError(
            "resource_constraint", f"there are {MAX_WEBHOOKS} webhooks, the most there can be: delete one first"
        )
    return [_decision(tenant, wanted)]


def decide_delete(plane: ControlPlane, webhook: str, *, tenant: str | None, actor: str) -> list[Decision]:
    """Delete a webhook. Raises `not_found`."""
    plane.webhooks.find(webhook, tenant)
    return [_decision(tenant, WebhookDeleted(webhook=webhook, actor=actor))]


def decide_rotate(
    plane: ControlPlane, webhook: str, *, tenant: str | None, overlap_until: int, actor: str
) -> list[Decision]:
    """Say that a webhook has a new secret. Raises `not_found`."""
    plane.webhooks.find(webhook, tenant)
    return [_decision(tenant, WebhookSecretRotated(webhook=webhook, overlap_until=overlap_until, actor=actor))]


def delivery_failed(webhook: Webhook, data: WebhookDeliveryFailed, tries: int) -> NewEvent:
    """The event that a delivery was given up, logged once for its so many tries in all."""
    owner, stream = webhook_stream(webhook.tenant)
    return tenant_fact(owner, stream, data, f"{webhook.id}/{data.event}/{tries}", tries)


def _decision(tenant: str | None, data: EventData) -> Decision:
    owner, stream = webhook_stream(tenant)
    return Decision(owner, stream, data)
