"""What a projection is: a name, the events it reads, its table and the statements that fold them."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from domain.events import EVENT_TYPES, EventData

EVENTS = "emberlog.events"
"""What a fold reads unless events have to be brought from elsewhere."""


class Projection(msgspec.Struct, frozen=True):
    """A read model of the log.

    `table` makes the table of one generation, named {table}. `delta` selects what the events of {events} with $1 < position <= $2 mean
    for the view, under the names of the table's columns; `merge` brings {delta} into {table}. Every cut of the log into batches must
    give the same view, and so must an event folded later than its neighbours. `kept` is the condition on a row for being kept, with
    {time} for the time of the newest event folded; it must depend on the log alone. `reads` names the event types that `delta`
    understands, `key` the columns of the primary key. An event that cannot be folded halts a view that `halts`, and is parked by others.
    `rest` is how many seconds its owner waits from one fold to the next: what a view is behind under load, for a fold costs the same few
    round trips whether it takes twenty events or two hundred.
    """

    name: str
    reads: tuple[type[EventData], ...]
    key: tuple[str, ...]
    table: str
    delta: str
    merge: str
    kept: str | None = None
    halts: bool = True
    rest: float = 0.1

    @property
    def types(self) -> list[str]:
        """The names of the event types it reads."""
        return [t.TYPE for t in self.reads]

    @property
    def schemas(self) -> list[int]:
        """The schema version that `delta` understands of each type, in the order of `types`."""
        return [EVENT_TYPES[t.TYPE].SCHEMA for t in self.reads]

    @property
    def fold(self) -> bytes:
        """16 bytes that stand for how this build folds: what was begun by other statements cannot be gone on with."""
        text = "\0".join((self.table, self.delta, self.merge, self.kept or "", repr(self.schemas)))
        return blake2b(text.encode(), digest_size=16).digest()

    def table_of(self, generation: int) -> str:
        """The table of a generation."""
        return f"projections.{self.name}_{generation}"

    def create_sql(self, table: str) -> str:
        """Makes `table`."""
        return self.table.replace("{table}", table)

    def delta_sql(self, events: str = EVENTS) -> str:
        """Selects what the events in ($1, $2] mean for the view."""
        return self.delta.replace("{events}", events)

    def merge_sql(self, table: str, delta: str) -> str:
        """Brings `delta`, a table or a selection in parentheses, into `table`."""
        return self.merge.replace("{table}", table).replace("{delta}", delta)

    def prune_sql(self, table: str) -> str | None:
        """Forgets what is not kept as of the time $1; None where everything is."""
        if self.kept is None:
            return None
        return f"DELETE FROM {table} WHERE NOT ({self.kept.replace('{time}', '$1::timestamptz')})"  # noqa: S608

    def rows_sql(self, table: str) -> str:
        """The view's rows in `table` as of the time $1 of the newest event folded: what pruning would remove is left out."""
        kept = "$1::timestamptz IS NOT DISTINCT FROM $1" if self.kept is None else self.kept
        return f"SELECT * FROM {table} WHERE {kept.replace('{time}', '$1::timestamptz')}"  # noqa: S608


class ProjectionHalted(Exception):
    """A projection cannot fold an event: it stands before it, and is tried again with growing pauses. The message says which and why."""


class GapInLog(Exception):
    """Fewer events than positions were read: the log is not what it promises, so nothing was folded."""


class Ousted(Exception):
    """Another owner has taken the projection, or moved its cursor: nothing was changed."""


class Refused(Exception):
    """What was asked of a projection cannot be done now; the message says why and what to do. Nothing was changed."""
