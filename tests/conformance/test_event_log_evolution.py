"""Events of other releases in every event log: kept as they were written, read as today's, and no harm to those beside them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from domain.decoding import decode_data, decode_decision
from domain.events import EVENT_TYPES, TenantCreated, encode_data
from domain.ports.event_log import ANY_VERSION, EventLog
from domain.upcasters import UnknownSchema, upcast
from tests.conformance.conftest import new_event
from tests.support.corpus import corpus


async def test_every_event_of_every_release_is_kept_and_read_as_the_fact_it_was(log: EventLog, instance: UUID) -> None:
    events = list(corpus())
    await log.append(instance, [new_event(type=e.type, schema_version=e.schema_version, data=e.data) for e in events])
    stored = await log.read(0, 1000)
    assert [(e.type, e.schema_version) for e in stored] == [(e.type, e.schema_version) for e in events]
    for was, now in zip(events, stored, strict=True):
        assert decode_data(now.type, now.data, now.schema_version) == decode_data(
            was.type, was.data, was.schema_version
        )


class Renamed(TenantCreated, frozen=True):
    """A type of three versions: a field was renamed twice."""

    SCHEMA = 3


def _rename(old: str, new: str, data: dict[str, Any]) -> dict[str, Any]:
    return {new if name == old else name: value for name, value in data.items()}


STEPS = {
    (TenantCreated.TYPE, 1): lambda data: _rename("name", "called", data),
    (TenantCreated.TYPE, 2): lambda data: _rename("called", "tenant", data),
}


async def test_an_old_event_is_read_in_todays_shape_and_stays_in_its_own_in_the_log(
    log: EventLog, instance: UUID
) -> None:
    written = [b'{"name": "acme"}', b'{"called": "acme"}', b'{"tenant": "acme"}']
    await log.append(
        instance,
        [new_event(type=TenantCreated.TYPE, schema_version=n, data=data) for n, data in enumerate(written, 1)],
    )
    for data, event in zip(written, await log.read(0, 10), strict=True):
        today = upcast(
            event.type,
            event.schema_version,
            event.data,
            types={**EVENT_TYPES, TenantCreated.TYPE: Renamed},
            steps=STEPS,
        )
        assert msgspec.json.decode(today, type=TenantCreated) == TenantCreated(tenant="acme")
        assert msgspec.json.decode(event.data) == msgspec.json.decode(data)


async def test_an_event_of_a_type_or_version_that_this_build_does_not_know_is_kept_and_passed(
    log: EventLog, instance: UUID
) -> None:
    known = {"type": TenantCreated.TYPE, "data": encode_data(TenantCreated(tenant="acme"))}
    await log.append(
        instance,
        [
            new_event(expected_version=ANY_VERSION, **fields)
            for fields in (
                known,
                {"type": "tenant.moved", "data": b'{"to": "mars"}'},
                {"type": TenantCreated.TYPE, "schema_version": 999, "data": b'{"who": {"name": "acme"}}'},
                known,
            )
        ],
    )
    first, moved, newer, last = await log.read_decisions(0, 10)
    assert [event.position for event in (first, moved, newer, last)] == [1, 2, 3, 4]
    with pytest.raises(KeyError):
        decode_data(moved.type, moved.data, moved.schema_version)
    with pytest.raises(UnknownSchema):
        decode_data(newer.type, newer.data, newer.schema_version)
    decisions = [decode_decision(e.type, e.data, e.schema_version) for e in (first, moved, newer, last)]
    assert decisions == [TenantCreated(tenant="acme"), None, None, TenantCreated(tenant="acme")]
    assert msgspec.json.decode(moved.data) == {"to": "mars"}
