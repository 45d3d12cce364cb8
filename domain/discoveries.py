"""What the lists of providers last showed, by source: folded from `discovery.ran`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from domain.events import DiscoveryRan, EventData


class Discovered(msgspec.Struct, frozen=True):
    """How a source stands. `last` is its last run, well or badly ended; the rest is of the last list that could be used: our models that it
    held, those that it lacked with the time since when, and those that two such lists in a row lacked.
    """

    last: DiscoveryRan
    succeeded_at: int | None = None
    listed: frozenset[str] = frozenset()
    absent: Mapping[str, int] = {}
    gone: frozenset[str] = frozenset()


class Discoveries:
    """By source. `version` grows with every run."""

    def __init__(self) -> None:
        self.version = 0
        self.sources: dict[str, Discovered] = {}

    def apply(self, data: EventData) -> None:
        """Fold one event."""
        if isinstance(data, DiscoveryRan):
            self.version += 1
            self.sources[data.source] = after(self.sources.get(data.source), data)


def after(before: Discovered | None, ran: DiscoveryRan) -> Discovered:
    """How a source stands after a run."""
    if ran.error is not None:
        return Discovered(ran) if before is None else msgspec.structs.replace(before, last=ran)
    return Discovered(ran, ran.at, frozenset(ran.listed), ran.absent, frozenset(ran.gone))
