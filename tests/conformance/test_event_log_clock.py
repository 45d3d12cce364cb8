"""What every event log makes of the time: the dedupe window around midnight, clocks that jump, leases. The clock is the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.memory.event_log import MemoryEventLog, MemoryStore
from adapters.postgres.event_log import PostgresEventLog
from domain.ports.event_log import AppendStatus, EventLog, InstanceFenced, NewEvent
from tests.conformance.conftest import new_event
from tests.support.clock import DAY, install_clock, set_clock
from tests.support.databases import with_user

APPENDED, DUPLICATE, MISMATCH = AppendStatus.APPENDED, AppendStatus.DUPLICATE, AppendStatus.MISMATCH
MINUTE, HOUR = 60_000_000, 3_600_000_000
START = 20_000 * DAY
"""A midnight in 2024."""

examples = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Timed:
    """A log whose clock the test sets, in microseconds since 1970 UTC, and the sweep of old keys where it has one."""

    log: EventLog
    instance: UUID
    set_clock: Callable[[int], Awaitable[None]]
    sweep: Callable[[], Awaitable[object]]

    async def append(self, event: NewEvent) -> tuple[AppendStatus, int | None]:
        [outcome] = await self.log.append(self.instance, [event])
        return outcome.status, outcome.position

    async def newest(self) -> int:
        """The time of the newest event."""
        return (await self.log.read(await self.log.head() - 1, 1))[0].recorded_at


@pytest.fixture
async def memory() -> Timed:
    now = [START]
    log = MemoryEventLog(MemoryStore(clock=lambda: now[0]))

    async def set_it(micros: int) -> None:
        now[0] = micros

    async def nothing() -> None: ...

    return Timed(log, await log.register_instance("clock", 10**9), set_it, nothing)


@pytest.fixture
async def postgres(migrated_dsn: str) -> AsyncIterator[Timed]:
    owner = await asyncpg.connect(migrated_dsn)
    await install_clock(owner)
    await set_clock(owner, START)
    log = await PostgresEventLog.connect(with_user(migrated_dsn, "emberlog_gateway"), pool_size=1, readers=1)
    instance = await log.register_instance("clock", 10**9)
    yield Timed(log, instance, lambda micros: set_clock(owner, micros), log.drop_old_dedupe_keys)
    await log.close()
    await owner.close()


@pytest.fixture(params=["memory", "postgres"])
def timed(request: pytest.FixtureRequest) -> Timed:
    made: Timed = request.getfixturevalue(request.param)
    return made


# -- the dedupe window --------------------------------------------------------------------------------------------------


async def test_a_key_of_one_minute_past_midnight_is_known_until_the_next_day_ends_and_free_after_it(
    timed: Timed,
) -> None:
    event = new_event(fingerprint=b"body")
    other = new_event(key=event.key, fingerprint=b"another body")
    await timed.set_clock(START + MINUTE)
    assert await timed.append(event) == (APPENDED, 1)
    for now in (START + DAY - 1, START + DAY, START + DAY + MINUTE, START + 2 * DAY - MINUTE, START + 2 * DAY - 1):
        await timed.set_clock(now)
        await timed.sweep()
        assert await timed.append(event) == (DUPLICATE, 1)
        assert await timed.append(other) == (MISMATCH, 1)
        assert set(await timed.log.find([event.key])) == {event.key}
    await timed.set_clock(START + 2 * DAY)
    assert await timed.log.find([event.key]) == {}
    assert await timed.append(other) == (APPENDED, 2)
    assert await timed.append(event) == (MISMATCH, 2)


async def test_a_key_of_the_last_moment_of_a_day_is_known_for_a_whole_day(timed: Timed) -> None:
    event = new_event(fingerprint=b"body")
    await timed.set_clock(START + DAY - 1)
    assert await timed.append(event) == (APPENDED, 1)
    await timed.set_clock(START + 2 * DAY - 1)
    await timed.sweep()
    assert await timed.append(event) == (DUPLICATE, 1)
    await timed.set_clock(START + 2 * DAY)
    assert await timed.append(event) == (APPENDED, 2)


MOMENTS = st.one_of(
    st.sampled_from([0, 1, MINUTE, DAY // 2, DAY - MINUTE, DAY - 1]), st.integers(min_value=0, max_value=DAY - 1)
)
"""Of a day: its borders, and any."""
FINGERPRINTS = st.sampled_from([None, b"a", b"b"])
_days = count(START // DAY + 1, 100)


@examples
@given(
    first=st.tuples(MOMENTS, FINGERPRINTS),
    later=st.lists(st.tuples(st.integers(0, 3), MOMENTS, FINGERPRINTS), min_size=1, max_size=6),
)
async def test_over_the_whole_window_a_key_is_known_with_its_body_and_asking_again_does_not_prolong_it(
    timed: Timed, first: tuple[int, bytes | None], later: list[tuple[int, int, bytes | None]]
) -> None:
    day = next(_days)  # the log's time never goes back, so each example has days of its own
    key = new_event().key
    held: tuple[int, bytes | None, int] | None = None
    now = day * DAY
    for days, moment, fingerprint in [(0, *first), *later]:
        now = max(now, (now // DAY + days) * DAY + moment)
        await timed.set_clock(now)
        await timed.sweep()
        got = await timed.append(new_event(key=key, fingerprint=fingerprint))
        if held is None or now // DAY - held[0] > 1:
            held = (now // DAY, fingerprint, await timed.log.head())
            assert got == (APPENDED, held[2])
        elif held[1] and fingerprint and held[1] != fingerprint:
            assert got == (MISMATCH, held[2])
        else:
            assert got == (DUPLICATE, held[2])


# -- clocks that jump ---------------------------------------------------------------------------------------------------

JUMPS = st.one_of(
    st.sampled_from([-400 * DAY, -DAY, -HOUR, -1, 0, 1, HOUR, DAY]),
    st.integers(min_value=-500 * DAY, max_value=3 * DAY),
)


@examples
@given(jumps=st.lists(JUMPS, min_size=1, max_size=8))
async def test_recorded_at_never_decreases_however_the_clock_jumps(timed: Timed, jumps: list[int]) -> None:
    await timed.append(new_event())
    now = newest = await timed.newest()
    for jump in jumps:
        now += jump
        await timed.set_clock(now)
        await timed.append(new_event())
        newest = max(newest, now)
        assert await timed.newest() == newest


async def test_while_the_clock_is_back_new_keys_are_found_and_old_ones_not_forgotten(timed: Timed) -> None:
    before, after = new_event(fingerprint=b"before"), new_event(fingerprint=b"after")
    await timed.set_clock(START + DAY)
    await timed.append(before)
    for back in (HOUR, 2 * DAY, 400 * DAY):
        await timed.set_clock(START + DAY - back)
        await timed.sweep()
        await timed.append(after)
        assert await timed.append(before) == (DUPLICATE, 1)
        assert await timed.append(after) == (DUPLICATE, 2)
        assert await timed.append(new_event(key=after.key, fingerprint=b"x")) == (MISMATCH, 2)
        assert set(await timed.log.find([before.key, after.key])) == {before.key, after.key}


async def test_a_clock_that_jumps_ahead_and_back_loses_no_key_to_the_sweep(timed: Timed) -> None:
    """As long as nothing was appended meanwhile: the log cannot tell such a jump from an idle month."""
    event = new_event()
    await timed.append(event)
    await timed.set_clock(START + 30 * DAY)
    await timed.sweep()
    await timed.set_clock(START + HOUR)
    assert await timed.append(event) == (DUPLICATE, 1)


async def test_leases_run_out_by_the_logs_clock_and_one_that_goes_back_fences_nobody(timed: Timed) -> None:
    short, renewed = [await timed.log.register_instance(name, 10) for name in ("short", "renewed")]
    await timed.set_clock(START - 400 * DAY)
    assert await timed.log.fence_expired() == []
    await timed.set_clock(START + 9_999_999)
    assert await timed.log.fence_expired() == []
    await timed.log.renew_instance(renewed, 10)
    await timed.set_clock(START + 10_000_001)
    assert await timed.log.fence_expired() == [short]
    with pytest.raises(InstanceFenced):
        await timed.log.append(short, [new_event()])
    [outcome] = await timed.log.append(renewed, [new_event()])
    assert outcome.status is APPENDED


async def test_with_only_todays_keys_probed_the_window_would_be_too_short(postgres: Timed, migrated_dsn: str) -> None:
    """Negative control: the tests above see it when yesterday is left out."""
    owner = await asyncpg.connect(migrated_dsn)
    definition = await owner.fetchval("SELECT pg_get_functiondef('emberlog.append'::regproc)")
    assert "v_day - 1" in definition
    await owner.execute(definition.replace("v_day - 1", "v_day - 1000"))
    await owner.close()
    event = new_event()
    await postgres.append(event)
    await postgres.set_clock(START + DAY)
    assert await postgres.append(event) == (APPENDED, 2)
