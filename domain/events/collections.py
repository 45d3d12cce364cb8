"""Collections: where tenants keep vectors for search. The vectors themselves are data beside the log."""

from __future__ import annotations

from domain.events.base import TENANT_STREAMS, EventData


class CollectionCreated(EventData, frozen=True, gc=False, omit_defaults=True):
    """A tenant keeps vectors of this space, and of no other, under this name. `table` (32 hex digits) names where they lie: a collection of the same name made later has another."""

    TYPE = "collection.created"
    STREAMS = TENANT_STREAMS
    DECISION = True

    collection: str
    table: str
    space: str
    actor: str | None = None


class CollectionDeleted(EventData, frozen=True, gc=False, omit_defaults=True):
    """A collection is gone with all that was kept in it."""

    TYPE = "collection.deleted"
    STREAMS = TENANT_STREAMS
    DECISION = True

    collection: str
    table: str
    actor: str | None = None
