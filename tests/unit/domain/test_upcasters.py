"""Events of older schema versions are read as today's; the steps that do it are complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.decoding import ENDS_ACCESS, decode_data, decode_decision
from domain.events import EVENT_TYPES, EventData, KeyCreated, KeyRevoked, TenantCreated, encode_data
from domain.upcasters import STEPS, Step, UnknownSchema, upcast

# A type through three versions: a field gets another name, then one field becomes two and one with a default comes in.


class MeasuredV1(EventData, frozen=True, omit_defaults=True):
    TYPE = "test.measured"

    who: str
    size: str
    note: str | None = None


class MeasuredV2(EventData, frozen=True, omit_defaults=True):
    TYPE = "test.measured"
    SCHEMA = 2

    agent: str
    size: str
    note: str | None = None


class Measured(EventData, frozen=True, omit_defaults=True):
    TYPE = "test.measured"
    SCHEMA = 3

    agent: str
    width: int
    height: int
    note: str | None = None
    unit: str = "mm"


def _rename(data: dict[str, Any]) -> dict[str, Any]:
    return {"agent": data["who"]} | {k: v for k, v in data.items() if k != "who"}


def _split(data: dict[str, Any]) -> dict[str, Any]:
    width, _, height = data["size"].partition("x")
    return {k: v for k, v in data.items() if k != "size"} | {"width": int(width), "height": int(height)}


TYPES: Mapping[str, type[EventData]] = {"test.measured": Measured, "tenant.created": TenantCreated}
STEPS_OF_TEST: Mapping[tuple[str, int], Step] = {("test.measured", 1): _rename, ("test.measured", 2): _split}


def faults(types: Mapping[str, type[EventData]], steps: Mapping[tuple[str, int], Step]) -> list[str]:
    """What is missing from or superfluous in `steps`: a type at version n has the steps 1 to n-1, and no others."""
    wanted = {(name, version) for name, struct in types.items() for version in range(1, struct.SCHEMA)}
    missing = [f"{name}: no step from schema version {version}" for name, version in sorted(wanted - set(steps))]
    return missing + [f"{name}: a step from {version} leads nowhere" for name, version in sorted(set(steps) - wanted)]


def test_every_event_type_has_all_steps_up_to_its_schema_version_and_none_beyond() -> None:
    assert faults(EVENT_TYPES, STEPS) == []


def test_a_hole_a_step_too_many_and_a_step_of_no_type_are_found() -> None:
    assert faults(TYPES, STEPS_OF_TEST) == []
    assert faults(TYPES, {("test.measured", 2): _split}) == ["test.measured: no step from schema version 1"]
    assert faults(TYPES, {**STEPS_OF_TEST, ("test.measured", 3): _split}) == [
        "test.measured: a step from 3 leads nowhere"
    ]
    assert faults(TYPES, {**STEPS_OF_TEST, ("test.gone", 1): _rename}) == ["test.gone: a step from 1 leads nowhere"]


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
_NOTES = st.none() | _NAMES
_SIDES = st.integers(0, 2**62)


def _old(version: int, agent: str, width: int, height: int, note: str | None) -> EventData:
    match version:
        case 1:
            return MeasuredV1(who=agent, size=f"{width}x{height}", note=note)
        case 2:
            return MeasuredV2(agent=agent, size=f"{width}x{height}", note=note)
        case _:
            return Measured(agent=agent, width=width, height=height, note=note)


@given(version=st.integers(1, 3), agent=_NAMES, width=_SIDES, height=_SIDES, note=_NOTES)
def test_whatever_an_older_struct_encodes_is_read_as_the_same_fact_today(
    version: int, agent: str, width: int, height: int, note: str | None
) -> None:
    data = encode_data(_old(version, agent, width, height, note))
    today = upcast("test.measured", version, data, types=TYPES, steps=STEPS_OF_TEST)
    assert msgspec.json.decode(today, type=Measured) == Measured(agent=agent, width=width, height=height, note=note)


@given(agent=_NAMES, width=_SIDES, height=_SIDES, note=_NOTES)
def test_the_steps_one_by_one_give_what_they_give_at_once(
    agent: str, width: int, height: int, note: str | None
) -> None:
    first = encode_data(_old(1, agent, width, height, note))
    second = upcast("test.measured", 1, first, types={"test.measured": MeasuredV2}, steps=STEPS_OF_TEST)
    assert msgspec.json.decode(second, type=MeasuredV2) == _old(2, agent, width, height, note)
    at_once = upcast("test.measured", 1, first, types=TYPES, steps=STEPS_OF_TEST)
    assert upcast("test.measured", 2, second, types=TYPES, steps=STEPS_OF_TEST) == at_once


def test_without_its_step_old_data_does_not_pass_for_todays() -> None:
    old = encode_data(MeasuredV1(who="a", size="2x3"))
    with pytest.raises(KeyError):
        upcast("test.measured", 1, old, types=TYPES, steps={("test.measured", 2): _split})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(old, type=Measured)


def test_data_of_the_current_version_is_handed_back_untouched() -> None:
    for data in (b'{"agent":"a","width":1,"height":2}', b"not even JSON"):
        assert upcast("test.measured", 3, data, types=TYPES, steps=STEPS_OF_TEST) is data
    data = encode_data(TenantCreated(tenant="acme"))
    assert upcast("tenant.created", 1, data) is data


@pytest.mark.parametrize("version", [-1, 0, 4, 32767])
def test_a_version_outside_those_known_is_refused_with_what_to_run(version: int) -> None:
    with pytest.raises(
        UnknownSchema, match=rf"version {version}, this build knows 1 to 3: run the build that wrote"
    ) as e:
        upcast("test.measured", version, b'{"who": "secret"}', types=TYPES, steps=STEPS_OF_TEST)
    assert "secret" not in str(e.value)


def test_an_event_of_an_unknown_type_is_a_key_error_and_one_of_a_newer_schema_an_unknown_schema() -> None:
    with pytest.raises(KeyError):
        upcast("tenant.renamed", 1, b"{}")
    with pytest.raises(KeyError):
        decode_data("tenant.renamed", b"{}", 1)
    with pytest.raises(UnknownSchema):
        decode_data("tenant.created", b'{"tenant":"acme"}', TenantCreated.SCHEMA + 1)
    assert decode_data("tenant.created", b'{"tenant":"acme"}', 1) == TenantCreated(tenant="acme")


def test_a_decision_of_a_newer_build_changes_nothing_unless_it_takes_access_away() -> None:
    assert decode_decision("tenant.renamed", b"{}", 1) is None
    created = encode_data(KeyCreated(key="k", hash="h", scopes=["agent"]))
    assert decode_decision("key.created", created, KeyCreated.SCHEMA + 1) is None
    newer = b'{"key": "k", "by": "an admin"}'
    assert decode_decision("key.revoked", newer, KeyRevoked.SCHEMA + 1) == KeyRevoked(key="k")


def test_what_takes_access_away_keeps_its_schema_version_and_its_fields_for_ever() -> None:
    """Older gateways obey a newer `key.revoked` by the fields they know: these stay. Add optional fields, or a type of its own."""
    required = {
        name: [f.encode_name for f in msgspec.structs.fields(EVENT_TYPES[name]) if f.required] for name in ENDS_ACCESS
    }
    assert required == {"key.revoked": ["key"], "tenant.shredded": ["tenant"]}
    assert {EVENT_TYPES[name].SCHEMA for name in ENDS_ACCESS} == {1}
