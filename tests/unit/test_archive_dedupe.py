"""The dedupe keys that an import restores are those the service appended with."""

from __future__ import annotations

import pytest

from adapters.archive.dedupe import dedupe_key
from domain.events import EmbeddingReembedded, EventData, KeyRevoked
from domain.fingerprint import printable
from domain.keys import OUTCOME, REEMBEDDED, REQUESTED
from domain.ports.event_log import NewEvent, StoredEvent
from gateway.decisions import decision_event
from gateway.service.outcomes import request_event
from tests.support import projecting

FINGERPRINT = bytes(range(16))


def stored(event: NewEvent) -> StoredEvent:
    return StoredEvent(
        7, event.event_id, event.tenant, event.stream, None, event.type, event.schema_version, 5, event.data, bytes(32)
    )


def requested() -> EventData:
    import msgspec

    return msgspec.structs.replace(projecting.requested("r", 2), fingerprint=printable(FINGERPRINT))


@pytest.mark.parametrize(
    ("data", "number", "kind", "fingerprint"),
    [
        (requested(), 2, REQUESTED, FINGERPRINT),
        (projecting.generated("r", 2), 2, OUTCOME, None),
        (projecting.failed("r", 2), 2, OUTCOME, None),
        (projecting.abandoned("r", 2), 2, OUTCOME, None),
        (
            EmbeddingReembedded(
                request_id="r",
                agent="a",
                time=3,
                at=1,
                model="m",
                provider="p",
                endpoint="e",
                space="s",
                inputs=1,
                tokens=1,
            ),
            3,
            REEMBEDDED,
            None,
        ),
    ],
    ids=["requested", "generated", "failed", "abandoned", "reembedded"],
)
def test_an_event_of_a_request_has_the_key_it_was_appended_with(
    data: EventData, number: int, kind: bytes, fingerprint: bytes | None
) -> None:
    event = request_event("acme", "r", number, 1, kind, data, fingerprint)
    assert dedupe_key(stored(event)) == (event.key, fingerprint)


def test_a_decisions_key_is_its_id() -> None:
    event = decision_event("acme", "tenant/acme", KeyRevoked(key="k"))
    assert dedupe_key(stored(event)) == (event.key, None)


def test_an_event_of_a_newer_build_falls_back_to_its_id() -> None:
    event = request_event("acme", "r", 1, 1, OUTCOME, projecting.generated("r"))
    newer = StoredEvent(7, event.event_id, "acme", "s", None, "embedding.dreamt", 1, 5, b"{}", bytes(32))
    assert dedupe_key(newer) == (event.event_id, None)
