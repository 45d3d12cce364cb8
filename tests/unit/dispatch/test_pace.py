"""How an endpoint's pace is learnt from its 429s: the rule alone, and against providers that limit rates, on a virtual clock."""

import asyncio
from itertools import pairwise

import pytest

from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.limits import DispatchLimits
from gateway.dispatch.pace import Pace
from tests.unit.dispatch.doubles import FakeProvider, Recorder, candidate
from tests.unit.dispatch.virtual_time import run


def test_a_429_halves_the_calls_at_once_and_counts_once_for_all_that_were_under_way() -> None:
    pace = Pace(16)
    assert pace.allowed == 16
    for _ in range(10):
        pace.refused(1.0, 2.0, 16)
    assert pace.allowed == 8
    pace.refused(2.5, 3.0, 8)
    assert pace.allowed == 4


def test_a_429_halves_what_was_under_way_rather_than_what_would_have_been_allowed() -> None:
    pace = Pace(64)
    pace.refused(1.0, 2.0, 4)
    assert pace.allowed == 2


def test_answers_add_back_one_call_for_each_round_up_to_what_is_configured() -> None:
    pace = Pace(8)
    pace.refused(1.0, 2.0, 8)
    rounds = [pace.allowed]
    for _ in range(6):
        for _ in range(pace.allowed):
            pace.succeeded(3.0)
        rounds.append(pace.allowed)
    assert rounds[0] == 4
    assert rounds[-1] == 8
    assert all(0 <= after - before <= 1 for before, after in pairwise(rounds))


def test_never_less_than_one_call_is_allowed() -> None:
    pace = Pace(2)
    for n in range(10):
        pace.refused(n + 0.5, n + 1, 1)
    assert pace.allowed == 1


def test_the_rate_is_what_was_lately_answered_less_a_tenth_and_grows_back_slowly() -> None:
    pace = Pace(8)
    for n in range(100):
        pace.succeeded(n * 0.1)
    pace.refused(9.9, 10.0, 8)
    assert pace.rate == pytest.approx(9.0, rel=0.05)
    assert pace.rate is not None
    learnt = pace.rate
    now = 10.0
    for _ in range(100):
        pace.hold(now)
        now = max(now, pace.ready_at())
        pace.start(now)
        pace.succeeded(now)
    assert pace.rate == pytest.approx(learnt / 0.9, rel=0.02)
    assert now - 10.0 == pytest.approx(100 / 9.5, rel=0.05)


def test_a_rate_that_keeps_nobody_waiting_is_forgotten() -> None:
    pace = Pace(8)
    for n in range(10):
        pace.succeeded(float(n))
    pace.refused(9.5, 10.0, 1)
    assert pace.rate is not None
    assert pace.ready_at() > 10.0
    pace.start(71.0)
    assert pace.ready_at() == 0.0


def test_an_endpoint_that_is_configured_anew_takes_its_new_limit() -> None:
    pace = Pace(8)
    pace.resize(32)
    assert pace.allowed == 32
    pace.resize(2)
    assert pace.allowed == 2


class Metered(FakeProvider):
    """Takes `rate` calls a second, `burst` of them at once; the others get a 429, with a retry-after where `tells`."""

    def __init__(self, rate: float, burst: float, latency: float, *, tells: bool) -> None:
        super().__init__(latency, self._meter)
        self.rate, self.burst, self.tells = rate, burst, tells
        self.bucket, self.at = burst, 0.0
        self.refused_at: list[float] = []

    def _meter(self, call: EmbedCall, number: int) -> ProviderError | None:
        now = asyncio.get_running_loop().time()
        self.bucket = min(self.burst, self.bucket + (now - self.at) * self.rate)
        self.at = now
        if self.bucket >= 1:
            self.bucket -= 1
            return None
        self.refused_at.append(now)
        after = (1 - self.bucket) / self.rate if self.tells else None
        return ProviderError(ProviderFault.RATE_LIMITED, "too many", status=429, retry_after=after)


def against(provider: Metered) -> tuple[float, float]:
    """The share of 429s and the calls answered a second, once that has settled, with a hundred agents that ask again at once."""
    seconds, settled = (240.0, 60.0) if provider.rate < 20 else (80.0, 30.0)

    async def main() -> tuple[float, float]:
        dispatcher = Dispatcher({"main": provider}, limits=DispatchLimits(max_attempts=1000))
        lane = dispatcher.lane(candidate(max_inputs=1, concurrency=32), None, None)
        loop = asyncio.get_running_loop()
        started = loop.time()

        async def agent(name: str) -> None:
            n = 0
            while loop.time() < started + seconds:
                n += 1
                waiter = Recorder([f"{name}/{n}"], agent=name)
                dispatcher.submit(lane, waiter, waiter.items())
                await waiter.done.wait()
                assert waiter.error is None

        await asyncio.gather(*(agent(str(i)) for i in range(100)))
        sent = [at for at in provider.sent_at if started + settled < at < started + seconds]
        refused = [at for at in provider.refused_at if started + settled < at < started + seconds]
        await dispatcher.close()
        return len(refused) / len(sent), (len(sent) - len(refused)) / (seconds - settled)

    return run(main())


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize(("rate", "burst", "latency"), [(10.0, 1.0, 0.1), (50.0, 50.0, 0.2), (5.0, 20.0, 1.0)])
def test_against_a_provider_of_so_many_calls_a_second_few_429s_are_left_and_most_of_its_rate_is_used(
    rate: float, burst: float, latency: float, tells: bool
) -> None:
    share, throughput = against(Metered(rate, burst, latency, tells=tells))
    assert share < 0.05
    assert throughput >= 0.8 * rate


def test_a_429_holds_all_lanes_of_the_endpoint_and_no_others() -> None:
    async def main() -> None:
        providers = {
            "main": FakeProvider(
                0.01,
                lambda call, number: (
                    ProviderError(ProviderFault.RATE_LIMITED, "", retry_after=5.0) if number == 1 else None
                ),
            ),
            "else": FakeProvider(0.01),
        }
        dispatcher = Dispatcher(providers)
        lanes = [
            dispatcher.lane(candidate(), None, None),
            dispatcher.lane(candidate(model="n"), None, "query"),
            dispatcher.lane(candidate(name="else"), None, None),
        ]
        first = Recorder(["x"])
        dispatcher.submit(lanes[0], first, first.items())
        await asyncio.sleep(1.0)
        others = [Recorder(["y"]), Recorder(["z"])]
        for lane, waiter in zip(lanes[1:], others, strict=True):
            dispatcher.submit(lane, waiter, waiter.items())
        for waiter in (first, *others):
            await waiter.done.wait()
            assert waiter.error is None
        assert providers["main"].sent_at[1] - providers["main"].sent_at[0] == pytest.approx(5.01)
        assert others[0].ended_at > providers["main"].sent_at[0] + 5
        assert providers["else"].sent_at[0] == pytest.approx(providers["main"].sent_at[0] + 1.0)

    run(main())


def test_without_learning_a_large_share_of_the_calls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: pauses are kept, and no more."""
    monkeypatch.setattr(Pace, "refused", lambda *_: None)
    share, _ = against(Metered(10.0, 1.0, 0.1, tells=True))
    assert share > 0.2


def test_what_was_learnt_of_an_endpoint_that_is_gone_is_not_held_against_the_next_of_its_name() -> None:
    async def main() -> None:
        def script(call: EmbedCall, number: int) -> ProviderError | None:
            return ProviderError(ProviderFault.RATE_LIMITED, "", retry_after=200.0) if number == 1 else None

        dispatcher = Dispatcher({"main": FakeProvider(0.01, script), "else": FakeProvider(1.0)})
        other = Recorder(["b"])
        lane = dispatcher.lane(candidate(name="else"), None, None)
        dispatcher.submit(lane, other, other.items())
        lane = dispatcher.lane(candidate(), None, None)
        soon = asyncio.get_running_loop().time() + 5.0
        first = Recorder(["a"], deadline=soon)
        dispatcher.submit(lane, first, first.items())
        await first.done.wait()
        assert first.error is not None
        assert dispatcher.paused("main")
        for name in ("main", "else", "never there"):
            dispatcher.forget(name)
        assert not dispatcher.paused("main")
        assert [gauge.endpoint for gauge in dispatcher.gauges()] == ["else"], "one that has texts is let be"
        second = Recorder(["a"], deadline=soon)
        lane = dispatcher.lane(candidate(), None, None)
        dispatcher.submit(lane, second, second.items())
        for waiter in (second, other):
            await waiter.done.wait()
            assert waiter.error is None
        await dispatcher.close()

    run(main())
