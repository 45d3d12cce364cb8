"""Whatever is appended, the log in Postgres answers and keeps what the plain double does."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.memory.event_log import MemoryEventLog
from adapters.postgres.event_log import PostgresEventLog
from domain.ports.event_log import NewEvent
from tests.support.databases import with_user

_examples = itertools.count(1)


@pytest.fixture
async def logs(migrated_dsn: str) -> AsyncIterator[tuple[MemoryEventLog, PostgresEventLog]]:
    made = await PostgresEventLog.connect(with_user(migrated_dsn, "emberlog_gateway"))
    yield MemoryEventLog(), made
    await made.close()


class Item(msgspec.Struct, frozen=True):
    """An event in small numbers, so that keys, streams and versions meet often."""

    key: int
    stream: int
    fingerprint: bytes | None
    expected: int | None
    schema: int
    data: bytes


ITEMS = st.builds(
    Item,
    key=st.integers(0, 6),
    stream=st.integers(0, 2),
    fingerprint=st.sampled_from([None, None, b"a", b"b"]),
    expected=st.sampled_from([None, None, None, -1, 0, 1, 2]),
    schema=st.sampled_from([1, 1, 2]),
    data=st.sampled_from([b"{}", b"{}", b'{"a": 1}', b'{"a": "\xc3\xbc"}', b"[]", b"{", b'{"a": "\\u0000"}']),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(ITEMS, min_size=1, max_size=9), min_size=1, max_size=4))
async def test_the_log_in_postgres_agrees_with_the_plain_double(
    logs: tuple[MemoryEventLog, PostgresEventLog], batches: list[list[Item]]
) -> None:
    memory, postgres = logs
    example = next(_examples)
    start = await memory.head()
    one, two = await memory.register_instance("x", 600), await postgres.register_instance("x", 600)
    for batch in batches:
        events = [_event(example, item) for item in batch]
        expected = await memory.append(one, events)
        got = await postgres.append(two, events)
        assert [(o.status, o.position, o.version) for o in got] == [(o.status, o.position, o.version) for o in expected]
    assert await postgres.head() == await memory.head()
    plain, stored = await memory.read(start, 100), await postgres.read(start, 100)
    for left, right in zip(plain, stored, strict=True):
        assert json.loads(left.data) == json.loads(right.data)
        assert _without_time(left) == _without_time(right)
    keys = [_event(example, Item(key, 0, None, None, 1, b"")).key for key in range(7)]
    assert {k: e.position for k, e in (await postgres.find(keys)).items()} == {
        k: e.position for k, e in (await memory.find(keys)).items()
    }


def _event(example: int, item: Item) -> NewEvent:
    return NewEvent(
        key=(example * 100 + item.key).to_bytes(16, "big"),
        event_id=(example * 100 + item.key).to_bytes(16, "little"),
        tenant="acme",
        stream=f"tenant/{example}/{item.stream}",
        type="tested",
        data=item.data,
        schema_version=item.schema,
        fingerprint=item.fingerprint,
        expected_version=item.expected,
    )


def _without_time(event: object) -> dict[str, object]:
    fields: dict[str, object] = msgspec.structs.asdict(event)  # type: ignore[arg-type]  # a StoredEvent; two fields differ by nature
    return {name: value for name, value in fields.items() if name not in ("recorded_at", "content_hash", "data")}
