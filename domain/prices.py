"""The price book: what a unit costs at a provider, from when until when. Folded from its events, append-only.

The prices of one (model, provider, tenant or none for the list) are looked at in time order. One set without an end holds until the next
such one begins. One set with an end holds in its span instead of that, which goes on holding behind it. A tenant is charged its own price
where one holds, else the list price; where neither does, the price is unknown. A price may be said to end earlier than it was set to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

import msgspec

from domain.events import EventData, PriceSet
from domain.money import Price, Unit

UNKNOWN = Price("unknown", None)
"""What holds where nothing was ever set: its id names no price of the book."""

UNITS: tuple[Unit, ...] = ("token", "character")

Key = tuple[str, str, str | None]
"""Model, provider, tenant (None: the list price)."""


class Entry(msgspec.Struct, frozen=True):
    """A price of the book: `set` as it was set, `until` when it ends by what was said of it since (seconds since the epoch; None: never)."""

    set: PriceSet
    until: int | None

    @property
    def key(self) -> Key:
        """What it is the price of."""
        return self.set.model, self.set.provider, self.set.for_tenant

    @property
    def base(self) -> bool:
        """Whether it was set without an end: it holds until the next such one begins."""
        return self.set.effective_until is None

    @property
    def void(self) -> bool:
        """Whether it was ended before it began: it never holds."""
        return self.until is not None and self.until <= self.set.effective_from

    @property
    def price(self) -> Price:
        """What it says."""
        return _price(self.set)


class Timeline:
    """The prices of one key, with the one that held when it was last asked."""

    __slots__ = ("_now", "_since", "_spans", "_until", "entries")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._spans: list[tuple[int, float, Entry]] | None = None
        self._since, self._until = inf, -inf
        self._now: Price | None = None

    def put(self, entry: Entry) -> None:
        """A price was set, or its end."""
        self.entries[entry.set.price] = entry
        self._spans = None
        self._since, self._until = inf, -inf

    def at(self, at: float) -> Price | None:
        """The price that holds at `at` (seconds since the epoch); None where none does."""
        if not self._since <= at < self._until:
            self._seek(at)
        return self._now

    def spans(self) -> list[tuple[int, float, Entry]]:
        """When each begins and ends (never: infinity), by their beginnings; those that never hold are left out."""
        if self._spans is None:
            following: float = inf
            self._spans = []
            for entry in sorted(self.entries.values(), key=lambda e: e.set.effective_from, reverse=True):
                if entry.void:
                    continue
                end: float = inf if entry.until is None else entry.until
                if entry.base:
                    end, following = min(end, following), entry.set.effective_from
                self._spans.append((entry.set.effective_from, end, entry))
            self._spans.reverse()
        return self._spans

    def _seek(self, at: float) -> None:
        """Find what holds, and from when until when nothing else does."""
        self._since, self._until = -inf, inf
        found: Entry | None = None
        for begin, end, entry in self.spans():
            for bound in (begin, end):
                if bound <= at:
                    self._since = max(self._since, bound)
                else:
                    self._until = min(self._until, bound)
            if begin <= at < end and (found is None or not entry.base):
                found = entry
        self._now = None if found is None else found.price


class PriceBook:
    """Every price ever set, by its id, in the order of the log. `version` grows with every change."""

    def __init__(self) -> None:
        self.version = 0
        self.entries: dict[str, Entry] = {}
        self._timelines: dict[Key, Timeline] = {}
        self._next_change = -inf

    def version_at(self, at: float) -> int:
        """`version`, which grows also when a price has begun or ended by `at`: what was made of the prices before is out of date then."""
        if at >= self._next_change:
            self.version += 1
            bounds = (bound for line in self._timelines.values() for span in line.spans() for bound in span[:2])
            self._next_change = min((bound for bound in bounds if bound > at), default=inf)
        return self.version

    def ship(self, prices: Iterable[PriceSet]) -> None:
        """The list prices that this release comes with, before the first event is folded."""
        for data in prices:
            self.apply(data)

    def apply(self, data: EventData) -> None:
        """Fold one event. Of an id that is known only the end may change: what was charged by a price is what it says for ever."""
        if not isinstance(data, PriceSet):
            return
        self.version += 1
        self._next_change = -inf
        known = self.entries.get(data.price)
        entry = Entry(data if known is None else known.set, data.effective_until)
        self.entries[data.price] = entry
        self._timelines.setdefault(entry.key, Timeline()).put(entry)

    def price(self, model: str, provider: str, tenant: str, at: float) -> Price:
        """What a unit costs the tenant at the time `at` (seconds since the epoch)."""
        return self.both(model, provider, tenant, at)[0]

    def both(self, model: str, provider: str, tenant: str, at: float) -> tuple[Price, Price]:
        """What a unit costs the tenant, and what it costs us."""
        listed = self.list_price(model, provider, at)
        own = self._timelines.get((model, provider, tenant))
        return (listed if own is None else own.at(at) or listed), listed

    def list_price(self, model: str, provider: str, at: float) -> Price:
        """What a unit costs us, and every tenant that has no price of its own."""
        line = self._timelines.get((model, provider, None))
        return UNKNOWN if line is None else line.at(at) or UNKNOWN

    def spans(self, key: Key) -> list[tuple[int, float, Entry]]:
        """See `Timeline.spans`."""
        line = self._timelines.get(key)
        return [] if line is None else line.spans()

    def ending(self, entry: Entry) -> float:
        """When a price ends, by its own end or the next that takes its place; its beginning where it never holds."""
        return next((end for _, end, e in self.spans(entry.key) if e is entry), entry.set.effective_from)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())


def _price(data: PriceSet) -> Price:
    # A unit that this build does not know prices nothing: what it counts cannot be counted here.
    if data.unit not in UNITS:
        return Price(data.price, None)
    return Price(data.price, data.unit_pico_usd, data.unit)
