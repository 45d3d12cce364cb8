"""A view's standing as the API and the commands show it."""

from __future__ import annotations

import msgspec

from projections.cursor import Standing


class ProjectionDocument(msgspec.Struct, frozen=True):
    """Where the live generation of a view stands.

    `state` is live, lagging (behind, and moving), stalled (behind, and nobody moves it) or halted (before the event at
    `failed_position`, which it cannot fold: `error` says why, without its data). `head` is the log's newest position, `behind` how many
    events are not folded yet, `lag_seconds` the age of the oldest of them, `parked` the events that the view went on without, `owner`
    who folds it (null: nobody).
    """

    id: str
    state: str
    generation: int
    position: int
    head: int
    behind: int
    lag_seconds: float
    owner: str | None
    parked: int
    failed_position: int | None
    error: str | None


def projection_document(name: str, seen: Standing) -> ProjectionDocument:
    """The document of the view `name`."""
    return ProjectionDocument(
        id=name,
        state=seen.state.value,
        generation=seen.generation,
        position=seen.position,
        head=seen.head,
        behind=max(0, seen.head - seen.position),
        lag_seconds=round(seen.lag_seconds, 3),
        owner=None if seen.free or seen.owner is None else str(seen.owner),
        parked=seen.parked,
        failed_position=seen.failed_position,
        error=seen.error,
    )
