"""What discovery found, as the API and commands show it."""

from __future__ import annotations

import msgspec

from domain.discoveries import Discoveries
from gateway.event_document import time_text


class SourceDocument(msgspec.Struct, frozen=True):
    """A provider's list of models: `source` is the provider, with `@host` where it has another address than its own and `/region` where it
    has one. The numbers are of its last run, at `ran_at`, which failed where there is an `error`. `listed` are the catalogue's models that the
    last good list held, `absent` those that it lacked and the lists before held, with the time since when.
    """

    source: str
    provider: str
    ran_at: str
    succeeded_at: str | None
    error: str | None
    found: int
    added: int
    changed: int
    deprecated: int
    skipped: int
    listed: list[str]
    absent: dict[str, str]


def source_documents(discoveries: Discoveries) -> list[SourceDocument]:
    """Every source, by name."""
    return [
        SourceDocument(
            source=source,
            provider=found.last.provider,
            ran_at=time_text(found.last.at),
            succeeded_at=None if found.succeeded_at is None else time_text(found.succeeded_at),
            error=found.last.error,
            found=found.last.found,
            added=found.last.added,
            changed=found.last.changed,
            deprecated=found.last.deprecated,
            skipped=found.last.skipped,
            listed=sorted(found.listed),
            absent={model: time_text(since * 1_000_000) for model, since in sorted(found.absent.items())},
        )
        for source, found in sorted(discoveries.sources.items())
    ]
