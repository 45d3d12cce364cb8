"""What providers' lists of models showed."""

from __future__ import annotations

from domain.events.base import DISCOVERY_STREAMS, EventData


class DiscoveryRan(EventData, frozen=True, gc=False, omit_defaults=True):
    """A provider's list of models was read and held against the catalogue. `source` is the provider, with `@host` where it has another
    address than its own.

    `found` counts the embedding models of the list, `skipped` its entries that were of no use. `listed` are our models that it holds,
    `absent` those that it held before and does not hold, or marks as deprecated, with the time (seconds since the epoch) since when, `gone`
    those of them that two lists in a row lacked. With an `error` all three stay as they were.
    """

    TYPE = "discovery.ran"
    STREAMS = DISCOVERY_STREAMS
    DECISION = True

    source: str
    provider: str
    at: int
    found: int = 0
    added: int = 0
    changed: int = 0
    deprecated: int = 0
    skipped: int = 0
    error: str | None = None
    listed: list[str] = []
    absent: dict[str, int] = {}
    gone: list[str] = []
    actor: str | None = None
