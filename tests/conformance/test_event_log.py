"""What every event log does, whatever it is made of."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from domain.ports.event_log import ANY_VERSION, AppendStatus, EventLog, InstanceFenced, NewEvent
from tests.conformance.conftest import LogWorld, new_event

APPENDED, DUPLICATE, MISMATCH, CONFLICT, REJECTED = (
    AppendStatus.APPENDED,
    AppendStatus.DUPLICATE,
    AppendStatus.MISMATCH,
    AppendStatus.CONFLICT,
    AppendStatus.REJECTED,
)


async def statuses(log: EventLog, instance: UUID, events: list[NewEvent]) -> list[tuple[AppendStatus, int | None]]:
    return [(outcome.status, outcome.position) for outcome in await log.append(instance, events)]


# -- order and reading --------------------------------------------------------------------------------------------------


async def test_a_new_log_is_empty(log: EventLog) -> None:
    assert await log.head() == 0
    assert await log.read(0, 10) == []
    assert await log.read_decisions(0, 10) == []


async def test_an_empty_batch_appends_nothing(log: EventLog, instance: UUID) -> None:
    assert await log.append(instance, []) == []
    assert await log.head() == 0


async def test_positions_count_up_from_one_in_the_order_given(log: EventLog, instance: UUID) -> None:
    assert await statuses(log, instance, [new_event(), new_event()]) == [(APPENDED, 1), (APPENDED, 2)]
    assert await statuses(log, instance, [new_event()]) == [(APPENDED, 3)]
    assert await log.head() == 3


async def test_an_event_is_read_back_as_it_was_written(log: EventLog, instance: UUID) -> None:
    event = new_event(schema_version=3, data='{"text": "ä 🔥 \\" \\\\u0000", "n": [1, 2.5, null, true]}'.encode())
    await log.append(instance, [new_event(), event])
    [stored] = await log.read(1, 1)
    assert (stored.position, stored.event_id, stored.tenant, stored.stream) == (
        2,
        event.event_id,
        event.tenant,
        event.stream,
    )
    assert (stored.type, stored.schema_version, stored.version) == (event.type, 3, None)
    assert json.loads(stored.data) == json.loads(event.data)
    assert len(stored.content_hash) == 32


async def test_reading_starts_behind_a_position_and_stops_at_the_limit(log: EventLog, instance: UUID) -> None:
    await log.append(instance, [new_event() for _ in range(10)])
    assert [event.position for event in await log.read(3, 4)] == [4, 5, 6, 7]
    assert [event.position for event in await log.read(8, 100)] == [9, 10]
    assert await log.read(10, 100) == []
    assert await log.read(99, 100) == []


async def test_equal_content_at_two_positions_has_two_hashes(log: EventLog, instance: UUID) -> None:
    event = new_event()
    await log.append(instance, [event, new_event(event_id=event.event_id, stream=event.stream, data=event.data)])
    first, second = await log.read(0, 2)
    assert first.content_hash != second.content_hash


async def test_concurrent_appenders_leave_one_dense_order_that_keeps_each_ones_own(world: LogWorld) -> None:
    logs = [await world.open() for _ in range(3)]
    writers = [(log, await log.register_instance(f"writer {n}", 60)) for n, log in enumerate(logs)]

    async def write(log: EventLog, instance: UUID, name: str) -> list[int]:
        positions = []
        for size in (1, 5, 2, 9, 3, 7, 1, 4):
            outcomes = await log.append(instance, [new_event(tenant=name) for _ in range(size)])
            positions += [outcome.position for outcome in outcomes if outcome.position]
        return positions

    written = await asyncio.gather(*(write(log, instance, f"t{n}") for n, (log, instance) in enumerate(writers)))
    events = await logs[0].read(0, 1000)
    assert [event.position for event in events] == list(range(1, 3 * 32 + 1))
    for n, positions in enumerate(written):
        assert positions == sorted(positions)
        assert positions == [event.position for event in events if event.tenant == f"t{n}"]


async def test_a_reader_that_follows_concurrent_appenders_misses_nothing(world: LogWorld) -> None:
    logs = [await world.open() for _ in range(3)]
    writers = [(log, await log.register_instance("writer", 60)) for log in logs[1:]]
    total = 2 * 20 * 3

    async def follow() -> list[int]:
        seen: list[int] = []
        while len(seen) < total:
            seen += [event.position for event in await logs[0].read(len(seen), 7)]
            await asyncio.sleep(0)  # the log in memory never waits: its writers need a turn
        return seen

    async def write(log: EventLog, instance: UUID) -> None:
        for _ in range(20):
            await log.append(instance, [new_event() for _ in range(3)])

    seen, *_ = await asyncio.gather(follow(), *(write(log, instance) for log, instance in writers))
    assert seen == list(range(1, total + 1))


async def test_recorded_at_never_decreases_with_position(world: LogWorld) -> None:
    logs = [await world.open() for _ in range(2)]
    for log in logs * 5:
        await log.append(await log.register_instance("writer", 60), [new_event(), new_event()])
    times = [event.recorded_at for event in await logs[0].read(0, 100)]
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert times[0] > 1_700_000_000_000_000


async def test_two_logs_on_one_storage_see_each_other(world: LogWorld) -> None:
    one, two = await world.open(), await world.open()
    instance = await one.register_instance("one", 60)
    event = new_event(expected_version=0)
    await one.append(instance, [event])
    assert await two.head() == 1
    assert (await two.read(0, 1))[0].event_id == event.event_id
    assert await statuses(two, instance, [event]) == [(DUPLICATE, 1)]
    assert await one.identity() == await two.identity()


# -- duplicates ---------------------------------------------------------------------------------------------------------


async def test_a_duplicate_in_the_same_batch_is_answered_with_the_first_position(log: EventLog, instance: UUID) -> None:
    event, other = new_event(), new_event()
    outcomes = await statuses(log, instance, [new_event(), event, event, other, event])
    assert outcomes == [(APPENDED, 1), (APPENDED, 2), (DUPLICATE, 2), (APPENDED, 3), (DUPLICATE, 2)]
    assert await log.head() == 3


async def test_a_later_duplicate_is_answered_with_the_first_position_and_its_neighbours_are_appended(
    log: EventLog, instance: UUID
) -> None:
    event = new_event()
    await log.append(instance, [new_event(), event])
    outcomes = await statuses(log, instance, [new_event(), event, new_event()])
    assert outcomes == [(APPENDED, 3), (DUPLICATE, 2), (APPENDED, 4)]


async def test_a_whole_batch_sent_again_writes_nothing(log: EventLog, instance: UUID) -> None:
    batch = [new_event() for _ in range(20)] + [new_event(stream="tenant/x", expected_version=0)]
    first = await log.append(instance, batch)
    again = await log.append(instance, batch)
    assert [(o.position, o.version) for o in again] == [(o.position, o.version) for o in first]
    assert {o.status for o in again} == {DUPLICATE}
    assert await log.head() == 21


async def test_a_duplicate_is_known_after_a_restart(world: LogWorld) -> None:
    log = await world.open()
    event = new_event()
    await log.append(await log.register_instance("before", 60), [new_event(), event])
    log = await world.reopen()
    assert await statuses(log, await log.register_instance("after", 60), [event]) == [(DUPLICATE, 2)]


async def test_a_taken_key_with_another_fingerprint_is_a_mismatch(log: EventLog, instance: UUID) -> None:
    event = new_event(fingerprint=b"body one")
    same = new_event(key=event.key, fingerprint=b"body one")
    other = new_event(key=event.key, fingerprint=b"body two")
    unsaid = new_event(key=event.key)
    assert await statuses(log, instance, [event, same, other, unsaid]) == [
        (APPENDED, 1),
        (DUPLICATE, 1),
        (MISMATCH, 1),
        (DUPLICATE, 1),
    ]
    assert await statuses(log, instance, [same, other, unsaid]) == [(DUPLICATE, 1), (MISMATCH, 1), (DUPLICATE, 1)]


async def test_a_key_without_a_fingerprint_never_mismatches(log: EventLog, instance: UUID) -> None:
    event = new_event()
    assert await statuses(log, instance, [event, new_event(key=event.key, fingerprint=b"x")]) == [
        (APPENDED, 1),
        (DUPLICATE, 1),
    ]
    assert await statuses(log, instance, [new_event(key=event.key, fingerprint=b"x")]) == [(DUPLICATE, 1)]


async def test_events_are_found_by_their_keys(log: EventLog, instance: UUID) -> None:
    events = [new_event() for _ in range(5)]
    await log.append(instance, events)
    found = await log.find([events[3].key, events[1].key, bytes(16)])
    assert {key: event.position for key, event in found.items()} == {events[1].key: 2, events[3].key: 4}
    assert found[events[1].key].event_id == events[1].event_id
    assert await log.find([]) == {}


# -- decision streams ---------------------------------------------------------------------------------------------------


async def test_a_decision_stream_numbers_its_events_from_one(log: EventLog, instance: UUID) -> None:
    outcomes = await log.append(
        instance,
        [
            new_event(stream="tenant/a", expected_version=0),
            new_event(),
            new_event(stream="tenant/b", expected_version=ANY_VERSION),
            new_event(stream="tenant/a", expected_version=1),
            new_event(stream="tenant/a", expected_version=ANY_VERSION),
        ],
    )
    assert [outcome.version for outcome in outcomes] == [1, None, 1, 2, 3]
    assert [event.version for event in await log.read(0, 10)] == [1, None, 1, 2, 3]


@pytest.mark.parametrize("events_before", [0, 2], ids=["on a new stream", "on a stream of two"])
@pytest.mark.parametrize(
    ("expected", "fits"),
    [(None, (0, 2)), (ANY_VERSION, (0, 2)), (0, (0,)), (1, ()), (2, (2,)), (3, ())],
    ids=["none", "any", "0", "1", "2", "3"],
)
async def test_an_expected_version_is_none_of_facts_any_or_exactly_the_number_of_events_before(
    log: EventLog, instance: UUID, expected: int | None, fits: tuple[int, ...], events_before: int
) -> None:
    for _ in range(events_before):
        await log.append(instance, [new_event(stream="tenant/a", expected_version=ANY_VERSION)])
    [outcome] = await log.append(instance, [new_event(stream="tenant/a", expected_version=expected)])
    if events_before not in fits:
        assert (outcome.status, outcome.position, outcome.version) == (CONFLICT, None, events_before)
        assert await log.head() == events_before
    else:
        assert (outcome.status, outcome.position) == (APPENDED, events_before + 1)
        assert outcome.version == (None if expected is None else events_before + 1)
        [stored] = await log.read(events_before, 1)
        assert stored.version == outcome.version
    # A fact on the stream is not counted, a refused decision neither.
    [next_one] = await log.append(instance, [new_event(stream="tenant/a", expected_version=ANY_VERSION)])
    counted = events_before + (events_before in fits and expected is not None)
    assert next_one.version == counted + 1


async def test_a_conflict_fails_alone_says_the_version_and_leaves_no_hole(log: EventLog, instance: UUID) -> None:
    await log.append(instance, [new_event(stream="tenant/a", expected_version=0)])
    outcomes = await log.append(
        instance,
        [
            new_event(),
            new_event(stream="tenant/a", expected_version=0),
            new_event(stream="tenant/a", expected_version=7),
            new_event(),
        ],
    )
    assert [(o.status, o.position, o.version) for o in outcomes] == [
        (APPENDED, 2, None),
        (CONFLICT, None, 1),
        (CONFLICT, None, 1),
        (APPENDED, 3, None),
    ]
    assert [event.position for event in await log.read(0, 10)] == [1, 2, 3]


async def test_a_wrong_version_ahead_of_a_right_one_of_the_same_stream_harms_it_not(
    log: EventLog, instance: UUID
) -> None:
    wrong, right = (new_event(stream="tenant/a", expected_version=version) for version in (5, 0))
    assert await statuses(log, instance, [wrong, right]) == [(CONFLICT, None), (APPENDED, 1)]


async def test_a_key_whose_first_copy_conflicts_is_free_for_the_second(log: EventLog, instance: UUID) -> None:
    first = new_event(stream="tenant/a", expected_version=5)
    second = new_event(key=first.key, stream="tenant/a", expected_version=0)
    third = new_event(key=first.key, stream="tenant/a", expected_version=1)
    assert await statuses(log, instance, [first, second, third]) == [(CONFLICT, None), (APPENDED, 1), (DUPLICATE, 1)]


async def test_a_key_whose_first_copy_is_refused_for_its_data_is_free_for_the_second(
    log: EventLog, instance: UUID
) -> None:
    bad = new_event(data=b'{"a": "\\u0000"}', fingerprint=b"one")
    good = new_event(key=bad.key, fingerprint=b"two")
    outcomes = await statuses(log, instance, [new_event(), bad, good, bad, new_event()])
    # The second copy of the bad one is not looked into any more: its key is taken.
    assert outcomes == [(APPENDED, 1), (REJECTED, None), (APPENDED, 2), (MISMATCH, 2), (APPENDED, 3)]


async def test_of_many_that_expect_the_same_version_one_wins(world: LogWorld) -> None:
    logs = [await world.open() for _ in range(4)]
    instances = [await log.register_instance("writer", 60) for log in logs]
    outcomes = await asyncio.gather(
        *(
            log.append(instance, [new_event(stream="tenant/a", expected_version=0)])
            for log, instance in zip(logs, instances, strict=True)
        )
    )
    assert sorted(outcome.status for [outcome] in outcomes) == [APPENDED, CONFLICT, CONFLICT, CONFLICT]
    assert await logs[0].head() == 1


async def test_a_duplicate_decision_is_no_conflict(log: EventLog, instance: UUID) -> None:
    event = new_event(stream="tenant/a", expected_version=0)
    await log.append(instance, [event, new_event(stream="tenant/a", expected_version=1)])
    [outcome] = await log.append(instance, [event])
    assert (outcome.status, outcome.position, outcome.version) == (DUPLICATE, 1, 1)


async def test_decisions_are_read_without_the_facts_between_them(log: EventLog, instance: UUID) -> None:
    for _ in range(4):
        await log.append(
            instance, [new_event(), new_event(stream="tenant/a", expected_version=ANY_VERSION), new_event()]
        )
    assert [event.position for event in await log.read_decisions(0, 3)] == [2, 5, 8]
    assert [event.position for event in await log.read_decisions(5, 100)] == [8, 11]


# -- bad events ---------------------------------------------------------------------------------------------------------

BAD: dict[str, dict[str, Any]] = {
    "not JSON": {"data": b"{"},
    "no object": {"data": b"[1]"},
    "empty data": {"data": b""},
    "two objects": {"data": b'{"a": 1}, {"b": 2}'},
    "U+0000 in the data": {"data": b'{"a": "\\u0000"}'},
    "a lone surrogate in the data": {"data": b'{"a": "\\ud800"}'},
    "no UTF-8": {"data": b'{"a": "\xff"}'},
    "a separator in the data": {"data": b'{"a": 1}\x1e{"b": 2}'},
    "a separator in the stream": {"stream": "a\x1eb"},
    "U+0000 in the tenant": {"tenant": "a\0b"},
    "a lone surrogate in the type": {"type": "a\ud800"},
    "an empty stream": {"stream": ""},
    "a short key": {"key": b"short"},
}


@pytest.mark.parametrize("fault", BAD)
async def test_a_bad_event_is_refused_alone(log: EventLog, instance: UUID, fault: str) -> None:
    bad = new_event(**BAD[fault])
    good = [new_event() for _ in range(6)]
    outcomes = await log.append(instance, [*good[:3], bad, *good[3:]])
    assert [o.status for o in outcomes] == [APPENDED] * 3 + [REJECTED] + [APPENDED] * 3
    assert [o.position for o in outcomes] == [1, 2, 3, None, 4, 5, 6]
    assert outcomes[3].detail
    assert [event.event_id for event in await log.read(0, 10)] == [event.event_id for event in good]


async def test_the_detail_of_a_refusal_repeats_none_of_the_data(log: EventLog, instance: UUID) -> None:
    for data in (b'{"secret": \x00}', b'{"secret": nope}', b'["secret"]', b'{"x": "secret\\u0000"}', b'"secret"'):
        [outcome] = await log.append(instance, [new_event(data=data)])
        assert outcome.status is REJECTED
        assert "secret" not in (outcome.detail or "")


# -- instances ----------------------------------------------------------------------------------------------------------


async def test_a_fenced_instance_is_refused_and_writes_nothing(log: EventLog, instance: UUID) -> None:
    await log.append(instance, [new_event()])
    assert not await log.fenced(instance)
    assert await log.fence_instance(instance) == 1
    assert await log.fenced(instance)
    with pytest.raises(InstanceFenced):
        await log.append(instance, [new_event()])
    with pytest.raises(InstanceFenced):
        await log.renew_instance(instance, 60)
    assert await log.head() == 1


async def test_an_unknown_instance_counts_as_fenced(log: EventLog) -> None:
    assert await log.fenced(uuid4())
    with pytest.raises(InstanceFenced):
        await log.append(uuid4(), [new_event()])


async def test_fencing_again_returns_the_head_of_the_first_time(log: EventLog, instance: UUID) -> None:
    other = await log.register_instance("other", 60)
    await log.append(instance, [new_event()])
    assert await log.fence_instance(instance) == 1
    await log.append(other, [new_event()])
    assert await log.fence_instance(instance) == 1


async def test_nothing_of_a_fenced_instance_lies_behind_the_returned_head(world: LogWorld) -> None:
    writer_log, log = await world.open(), await world.open()
    instance = await writer_log.register_instance("writer", 60)
    started = asyncio.Event()

    async def write() -> None:
        while True:
            await writer_log.append(instance, [new_event() for _ in range(5)])
            started.set()
            await asyncio.sleep(0)  # the log in memory never waits: whoever fences needs a turn

    writing = asyncio.create_task(write())
    await started.wait()
    head = await log.fence_instance(instance)
    with pytest.raises(InstanceFenced):
        await writing
    assert await log.head() == head


async def test_an_expired_lease_is_fenced_once_and_a_renewed_one_is_not(log: EventLog) -> None:
    expired = await log.register_instance("expired", -1)
    renewed = await log.register_instance("renewed", -1)
    alive = await log.register_instance("alive", 60)
    await log.renew_instance(renewed, 60)
    assert await log.fence_expired() == [expired]
    assert await log.fence_expired() == []
    with pytest.raises(InstanceFenced):
        await log.append(expired, [new_event()])
    for instance in (renewed, alive):
        [outcome] = await log.append(instance, [new_event()])
        assert outcome.status is APPENDED
