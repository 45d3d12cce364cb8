"""What a projection is: a name, the events it reads and the statements that fold them."""

from __future__ import annotations

import msgspec

from domain.events import EVENT_TYPES, EventData


class Projection(msgspec.Struct, frozen=True):
    """A read model of the log.

    `apply` are statements run in order, each with ($1, $2): the events with $1 < position <= $2, folded set-wise into the view; every
    cut of the log into batches must give the same view. `prune`, with ($1) the time of the newest event folded, forgets what is too
    old to be kept; it must depend on the log alone. `reads` names the event types that `apply` understands.
    """

    name: str
    reads: tuple[type[EventData], ...]
    apply: tuple[str, ...]
    prune: str | None = None
    generation: int = 1

    @property
    def types(self) -> list[str]:
        """The names of the event types it reads."""
        return [t.TYPE for t in self.reads]

    @property
    def schemas(self) -> list[int]:
        """The schema version that `apply` understands of each type, in the order of `types`."""
        return [EVENT_TYPES[t.TYPE].SCHEMA for t in self.reads]


class ProjectionHalted(Exception):
    """A projection cannot fold an event: it stands before it, and is tried again with growing pauses. The message says which and why."""


class GapInLog(Exception):
    """Fewer events than positions were read: the log is not what it promises, so nothing was folded."""


class UnknownSchema(Exception):
    """An event has a schema version that this build cannot fold: run the build that wrote it, or a newer one."""


class Ousted(Exception):
    """Another owner has taken the projection, or moved its cursor: nothing was changed."""
