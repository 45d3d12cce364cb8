"""The price book: what a unit costs at a provider, from when until when. Folded from its events, append-only."""

from __future__ import annotations

from domain.events import EventData, PriceSet


class PriceBook:
    """Every price ever set, by (model, provider, tenant or None for the list price), in the order of the log."""

    def __init__(self) -> None:
        self.version = 0
        self.entries: dict[tuple[str, str, str | None], list[PriceSet]] = {}

    def apply(self, data: EventData) -> None:
        """Fold one event."""
        if isinstance(data, PriceSet):
            self.version += 1
            self.entries.setdefault((data.model, data.provider, data.for_tenant), []).append(data)
