"""Webhooks: where events are delivered to. Folded from their events."""

from __future__ import annotations

from domain.events import EventData, WebhookCreated, WebhookDeleted


class Webhooks:
    """The webhooks that there are, by id."""

    def __init__(self) -> None:
        self.version = 0
        self.webhooks: dict[str, WebhookCreated] = {}

    def apply(self, data: EventData) -> None:
        """Fold one event."""
        if isinstance(data, WebhookCreated):
            self.webhooks[data.webhook] = data
        elif isinstance(data, WebhookDeleted):
            self.webhooks.pop(data.webhook, None)
        else:
            return
        self.version += 1
