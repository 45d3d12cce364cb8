"""What every breaker keeps to: trial calls gated and counted, neutral ends neutral, errors as they are, no clock but the one it is given."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import aiobreaker
import pytest

from adapters.breaker import AioBreaker, CircuitPolicy, Transition
from domain.ports.breaker import Breaker, CircuitState
from domain.ports.provider import ProviderError, ProviderFault

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
COUNTED = {ProviderFault.TIMEOUT, ProviderFault.CONNECTION, ProviderFault.SERVER}
NEUTRAL = sorted(set(ProviderFault) - COUNTED)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> list[Transition]:
    return []


@pytest.fixture
def breaker(clock: Clock, changes: list[Transition]) -> AioBreaker:
    return AioBreaker(CircuitPolicy(), clock=clock, on_change=changes.append)


def failing(fault: ProviderFault) -> Callable[[], Awaitable[str]]:
    async def work() -> str:
        raise ProviderError(fault, "no")

    return work


async def good() -> str:
    return "vectors"


async def call(breaker: Breaker, work: Callable[[], Awaitable[str]] = good) -> str:
    permit = breaker.admit()
    assert permit is not None
    return await permit.run(work)


async def fail(breaker: Breaker, times: int = 1, fault: ProviderFault = ProviderFault.SERVER) -> None:
    for _ in range(times):
        with pytest.raises(ProviderError):
            await call(breaker, failing(fault))


async def test_five_failures_in_a_row_open_it_and_thirty_seconds_later_it_is_half_open(
    breaker: AioBreaker, clock: Clock
) -> None:
    await fail(breaker, 4)
    assert await call(breaker) == "vectors"
    await fail(breaker, 4)
    assert breaker.state is CLOSED
    await fail(breaker)
    assert breaker.state is OPEN
    assert breaker.admit() is None
    assert not breaker.would_admit()
    assert breaker.open_for == 30.0
    clock.now += 29.9
    assert breaker.admit() is None
    assert breaker.open_for == pytest.approx(0.1)
    clock.now += 0.1
    assert breaker.state is HALF_OPEN
    assert breaker.open_for == 0.0
    assert breaker.would_admit()


@pytest.mark.parametrize("fault", sorted(COUNTED))
async def test_the_error_of_the_call_that_trips_it_is_the_providers(breaker: AioBreaker, fault: ProviderFault) -> None:
    await fail(breaker, 4)
    error = ProviderError(fault, "the fifth", status=503, retry_after=2.0)

    async def work() -> str:
        raise error

    with pytest.raises(ProviderError) as raised:
        await call(breaker, work)
    assert raised.value is error
    assert breaker.state is OPEN


async def test_the_error_of_the_trial_call_that_opens_it_again_is_the_providers(
    breaker: AioBreaker, clock: Clock
) -> None:
    await fail(breaker, 5)
    clock.now += 30
    with pytest.raises(ProviderError, match="no"):
        await call(breaker, failing(ProviderFault.TIMEOUT))
    assert breaker.state is OPEN
    assert breaker.open_for == 30.0


async def test_of_fifty_calls_at_half_open_exactly_three_reach_the_provider(breaker: AioBreaker, clock: Clock) -> None:
    await fail(breaker, 5)
    clock.now += 30
    reached, answer = 0, asyncio.Event()

    async def work() -> str:
        nonlocal reached
        reached += 1
        await answer.wait()
        return "vectors"

    permits = [breaker.admit() for _ in range(50)]
    admitted = [permit for permit in permits if permit is not None]
    calls = [asyncio.create_task(permit.run(work)) for permit in admitted]
    await asyncio.sleep(0)  # the calls that were made have their turn
    assert (reached, len(permits) - len(admitted)) == (3, 47)
    assert breaker.state is HALF_OPEN
    answer.set()
    assert await asyncio.gather(*calls) == ["vectors"] * 3
    assert breaker.state is CLOSED


async def test_aiobreaker_alone_lets_all_fifty_through() -> None:
    bare = aiobreaker.CircuitBreaker(fail_max=5, timeout_duration=timedelta(microseconds=1))
    reached, answer = 0, asyncio.Event()

    async def work() -> str:
        nonlocal reached
        reached += 1
        await answer.wait()
        return "vectors"

    for _ in range(5):
        with suppress(ProviderError, aiobreaker.CircuitBreakerError), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            await bare.call_async(failing(ProviderFault.SERVER))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        calls = [asyncio.create_task(bare.call_async(work)) for _ in range(50)]
        await asyncio.sleep(0)  # the calls that were made have their turn
    assert reached == 50
    answer.set()
    await asyncio.gather(*calls)


async def test_two_successes_close_it_and_one_does_not(
    breaker: AioBreaker, clock: Clock, changes: list[Transition]
) -> None:
    await fail(breaker, 5)
    clock.now += 30
    await call(breaker)
    assert breaker.state is HALF_OPEN
    await call(breaker)
    assert breaker.state is CLOSED
    assert breaker.failures == 0
    await fail(breaker, 4)
    assert breaker.state is CLOSED
    assert [(t.previous, t.state, t.reason, t.failures) for t in changes] == [
        (CLOSED, OPEN, "failures", 5),
        (OPEN, HALF_OPEN, "elapsed", 5),
        (HALF_OPEN, CLOSED, "trials_succeeded", 0),
    ]


async def test_one_failed_trial_opens_it_again_whatever_succeeded_before(breaker: AioBreaker, clock: Clock) -> None:
    await fail(breaker, 5)
    clock.now += 30
    await call(breaker)
    await fail(breaker)
    assert breaker.state is OPEN
    clock.now += 30
    await call(breaker)
    assert breaker.state is HALF_OPEN  # the success of the period before does not count
    await call(breaker)
    assert breaker.state is CLOSED


@pytest.mark.parametrize("fault", NEUTRAL)
async def test_a_neutral_end_neither_counts_nor_forgives(
    breaker: AioBreaker, clock: Clock, fault: ProviderFault
) -> None:
    await fail(breaker, 4)
    await fail(breaker, 20, fault)
    assert (breaker.state, breaker.failures) == (CLOSED, 4)
    await fail(breaker)
    assert breaker.state is OPEN
    clock.now += 30
    await call(breaker)
    await fail(breaker, 20, fault)
    assert breaker.state is HALF_OPEN
    await call(breaker)
    assert breaker.state is CLOSED


async def test_an_excluded_error_counts_as_a_success_with_aiobreaker_alone() -> None:
    bare = aiobreaker.CircuitBreaker(fail_max=5, exclude=[lambda e: e.fault is ProviderFault.RATE_LIMITED])
    for fault in [ProviderFault.SERVER] * 4 + [ProviderFault.RATE_LIMITED]:
        with suppress(ProviderError):
            await bare.call_async(failing(fault))
    assert bare.fail_counter == 0


async def test_whatever_else_an_adapter_raises_counts(breaker: AioBreaker) -> None:
    async def work() -> str:
        raise TimeoutError

    for _ in range(5):
        with pytest.raises(TimeoutError):
            await call(breaker, work)
    assert breaker.state is OPEN


async def test_deadlines_that_are_too_short_do_not_trip_it_and_a_provider_that_has_become_slow_does(
    clock: Clock,
) -> None:
    """One sender gives its calls 0.2 seconds, and the provider takes 0.1 to answer the others, or hangs."""
    breaker = AioBreaker(CircuitPolicy(), patience=5.0, clock=clock)

    def taking(seconds: float, fault: ProviderFault | None = None) -> Callable[[], Awaitable[str]]:
        async def work() -> str:
            clock.now += seconds
            if fault is not None:
                raise ProviderError(fault, "no")
            return "vectors"

        return work

    async def end(seconds: float, fault: ProviderFault | None = None) -> None:
        with suppress(ProviderError):
            await call(breaker, taking(seconds, fault))

    for _ in range(20):
        await end(4.9, ProviderFault.TIMEOUT)  # nothing is known yet: it may be slow
    assert breaker.state is CLOSED
    await end(0.1)
    for _ in range(20):
        await end(0.2, ProviderFault.TIMEOUT)
    assert breaker.state is CLOSED
    for _ in range(5):
        await end(0.31, ProviderFault.TIMEOUT)
    assert breaker.state is OPEN
    clock.now += 30
    await end(3.0)
    await end(0.1)
    assert breaker.state is CLOSED
    for _ in range(5):
        await end(5.0, ProviderFault.TIMEOUT)
    assert breaker.state is OPEN


async def test_a_cancelled_trial_frees_its_slot_and_says_nothing(clock: Clock) -> None:
    freed = 0

    def on_free() -> None:
        nonlocal freed
        freed += 1

    breaker = AioBreaker(CircuitPolicy(), clock=clock, on_free=on_free)
    await fail(breaker, 5)
    clock.now += 30
    permits = [breaker.admit() for _ in range(3)]
    calls = [asyncio.create_task(p.run(asyncio.Event().wait)) for p in permits if p is not None]
    await asyncio.sleep(0)  # the calls that were made have their turn
    assert breaker.admit() is None
    calls[0].cancel()
    await asyncio.gather(calls[0], return_exceptions=True)
    assert breaker.state is HALF_OPEN
    assert freed == 1
    assert breaker.would_admit()
    for task in calls:
        task.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert freed == 3


async def test_a_permit_that_is_given_back_frees_its_slot_and_is_for_one_call(
    breaker: AioBreaker, clock: Clock
) -> None:
    await fail(breaker, 5)
    clock.now += 30
    permits = [breaker.admit() for _ in range(3)]
    assert breaker.admit() is None
    assert permits[0] is not None
    permits[0].give_back()
    assert breaker.would_admit()
    with pytest.raises(RuntimeError, match="for one call"):
        await permits[0].run(good)


async def test_calls_that_were_admitted_before_the_circuit_changed_say_nothing_about_it(
    breaker: AioBreaker, clock: Clock
) -> None:
    """A hundred calls are out when it opens: what becomes of them neither opens it anew nor closes it."""
    late, unsent = [breaker.admit() for _ in range(4)], breaker.admit()
    assert unsent is not None
    end: list[asyncio.Future[str]] = []

    def work() -> asyncio.Future[str]:
        end.append(asyncio.get_running_loop().create_future())
        return end[-1]

    calls = [asyncio.create_task(p.run(work)) for p in late if p is not None]
    await asyncio.sleep(0)  # the calls that were made have their turn
    await fail(breaker, 5)
    assert breaker.state is OPEN
    end[0].set_result("vectors")
    assert await calls[0] == "vectors"
    assert breaker.state is OPEN
    clock.now += 30
    trial = breaker.admit()
    assert trial is not None
    end[1].set_exception(ProviderError(ProviderFault.SERVER, "late"))
    end[2].set_result("vectors")
    end[3].set_result("vectors")
    with pytest.raises(ProviderError, match="late"):
        await calls[1]
    await asyncio.gather(*calls[2:])
    with pytest.raises(ProviderError):
        await unsent.run(failing(ProviderFault.SERVER))
    assert breaker.state is HALF_OPEN
    assert breaker.failures == 5
    trial.give_back()


async def test_it_can_be_opened_and_closed_by_word_without_saying_so_itself(
    breaker: AioBreaker, clock: Clock, changes: list[Transition]
) -> None:
    breaker.force_open(7.0)
    assert (breaker.state, breaker.open_for) == (OPEN, 7.0)
    clock.now += 7
    assert breaker.state is HALF_OPEN
    breaker.force_close()
    assert breaker.state is CLOSED
    assert changes == []


# -- clocks ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["EAST-14", "UTC0", "WEST+11"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


class Asked(Exception):
    pass


class NoClock:
    @staticmethod
    def now() -> None:
        raise Asked

    utcnow = now


@pytest.fixture
def no_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the time of day in `aiobreaker` fails: no step of that clock can matter then."""
    monkeypatch.setattr("aiobreaker.circuitbreaker.datetime", NoClock)
    monkeypatch.setattr("aiobreaker.state.datetime", NoClock)


@pytest.mark.usefixtures("zone", "no_wall_clock")
async def test_wherever_it_runs_and_however_the_clock_is_set_it_opens_for_thirty_seconds(clock: Clock) -> None:
    breaker = AioBreaker(CircuitPolicy(), clock=clock)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            await fail(breaker, 5)
            assert breaker.state is OPEN
            clock.now += 29.999
            assert breaker.admit() is None
            clock.now += 0.001
            await call(breaker)
            await fail(breaker)
            assert breaker.open_for == 30.0
            clock.now += 30
            await call(breaker)
            await call(breaker)
            assert breaker.state is CLOSED


@pytest.mark.usefixtures("no_wall_clock")
async def test_aiobreaker_alone_asks_the_wall_clock() -> None:
    bare = aiobreaker.CircuitBreaker(fail_max=1)
    with pytest.raises(Asked):
        await bare.call_async(failing(ProviderFault.SERVER))


async def test_aiobreaker_alone_is_hours_out_in_the_east(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "EAST-14")
    time.tzset()
    try:
        bare = aiobreaker.CircuitBreaker(fail_max=1, timeout_duration=timedelta(seconds=30))
        with suppress(aiobreaker.CircuitBreakerError), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            await bare.call_async(failing(ProviderFault.SERVER))
        assert bare.current_state is aiobreaker.CircuitBreakerState.OPEN
        assert bare.opens_at is None  # though it is open for thirty seconds yet
    finally:
        monkeypatch.undo()
        time.tzset()
