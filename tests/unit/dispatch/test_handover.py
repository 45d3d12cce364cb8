"""Texts that fail at one endpoint and go to another, end to end through a dispatcher on a virtual clock."""

import asyncio
from itertools import pairwise

import pytest

from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.limits import DispatchLimits
from gateway.dispatch.ports import Item
from tests.unit.dispatch.doubles import FakeProvider, Recorder, Script, candidate
from tests.unit.dispatch.virtual_time import run


def broken(fault: ProviderFault, *, retry_after: float | None = None, times: int = 10**6) -> Script:
    return lambda call, number: ProviderError(fault, "down", retry_after=retry_after) if number <= times else None


class TwoPlaces:
    """A dispatcher with the lanes `a` and `b` of one model at two endpoints."""

    def __init__(
        self, a: Script | None, b: Script | None = None, *, max_inputs: int = 64, concurrency: int = 8
    ) -> None:
        self.providers = {"a": FakeProvider(0.01, a), "b": FakeProvider(0.01, b)}
        self.dispatcher = Dispatcher(self.providers, limits=DispatchLimits())
        self.a = self.dispatcher.lane(candidate(name="a", max_inputs=max_inputs, concurrency=concurrency), None, None)
        self.b = self.dispatcher.lane(candidate(name="b", max_inputs=max_inputs), None, None)

    def mover(self, texts: list[str], **named: str) -> Recorder:
        return Recorder(list(texts), submit=self.to_b, **named)  # type: ignore[arg-type] # names only

    def to_b(self, waiter: Recorder, items: list[Item]) -> None:
        self.dispatcher.submit(self.b, waiter, items)

    async def serve(self, *waiters: Recorder) -> None:
        for waiter in waiters:
            self.dispatcher.submit(self.a, waiter, waiter.items())
        for waiter in waiters:
            await waiter.done.wait()
            waiter.check()
        await asyncio.sleep(400)
        assert self.dispatcher.queued_texts == self.dispatcher.open_requests == self.dispatcher.calls_in_flight == 0
        assert not self.a.flights
        assert not self.b.flights

    def calls(self, name: str) -> list[list[str]]:
        return [list(c.texts) for c in self.providers[name].calls]  # type: ignore[arg-type] # strings only


@pytest.mark.parametrize(
    "fault",
    [
        ProviderFault.SERVER,
        ProviderFault.TIMEOUT,
        ProviderFault.CONNECTION,
        ProviderFault.AUTHENTICATION,
        ProviderFault.RATE_LIMITED,
    ],
)
def test_texts_that_another_endpoint_takes_go_there_after_the_first_failure_and_are_paid_once(
    fault: ProviderFault,
) -> None:
    async def main() -> None:
        places = TwoPlaces(broken(fault, retry_after=2.0))
        waiter = places.mover(["x", "y", "x"])
        started = asyncio.get_running_loop().time()
        await places.serve(waiter)
        assert waiter.error is None
        assert waiter.handed_over == [([0, 1, 2], fault)]
        assert waiter.ended_at - started == pytest.approx(0.02), "nothing waits in between"
        assert set(waiter.charged) == {0, 1}
        assert (places.calls("a"), places.calls("b")) == ([["x", "y"]], [["x", "y"]])
        assert bool(waiter.wastes) == (fault is ProviderFault.TIMEOUT)

    run(main())


def test_those_who_know_no_other_endpoint_stay_and_are_tried_again() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.SERVER, times=2))
        goes, stays = places.mover(["x", "y"], agent="goes"), Recorder(["z", "w"], agent="stays")
        await places.serve(goes, stays)
        assert [sorted(texts) for texts in places.calls("a")] == [["w", "x", "y", "z"], ["w", "z"], ["w", "z"]]
        assert places.calls("b") == [["x", "y"]]
        assert goes.error is stays.error is None
        assert set(goes.charged) == set(stays.charged) == {0, 1}

    run(main())


def test_a_text_whose_askers_disagree_is_split_and_each_part_is_paid_for_by_its_own() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.SERVER, times=1))
        goes, stays = places.mover(["same"], agent="goes"), Recorder(["mine", "same", "same"], agent="stays")
        await places.serve(goes, stays)
        assert places.calls("b") == [["same"]]
        assert sorted(places.calls("a")[1]) == ["mine", "same"]
        assert goes.charged == {0: 1}
        assert stays.charged == {0: 1, 1: 1}

    run(main())


def test_a_short_pause_at_a_rate_limit_is_waited_out_and_a_longer_one_is_not() -> None:
    async def main(pause: float) -> list[tuple[list[int], ProviderFault]]:
        places = TwoPlaces(broken(ProviderFault.RATE_LIMITED, retry_after=pause, times=1))
        waiter = places.mover(["x"])
        await places.serve(waiter)
        assert waiter.error is None
        return waiter.handed_over

    assert run(main(0.25)) == []
    assert run(main(0.26)) == [([0], ProviderFault.RATE_LIMITED)]


def test_short_pauses_that_bring_nothing_leave_a_call_for_another_endpoint() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.RATE_LIMITED, retry_after=0.1))
        waiter = places.mover(["x"])
        await places.serve(waiter)
        assert waiter.error is None
        assert (len(places.calls("a")), len(places.calls("b"))) == (3, 1)

    run(main())


@pytest.mark.parametrize("other_lane", [False, True])
def test_texts_that_wait_for_an_endpoint_which_is_paused_go_elsewhere(other_lane: bool) -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.RATE_LIMITED, retry_after=60.0, times=1), concurrency=1)
        queued_at = places.dispatcher.lane(places.a.candidate, None, "query" if other_lane else None)
        first, second = places.mover(["x"], agent="first"), places.mover(["y"], agent="second")
        stays = Recorder(["z", "y"], agent="third")
        places.dispatcher.submit(places.a, first, first.items())
        await asyncio.sleep(0.005)
        places.dispatcher.submit(queued_at, second, second.items())
        places.dispatcher.submit(queued_at, stays, stays.items())
        begun = places.a.now()
        await second.done.wait()
        assert places.a.now() - begun < 0.2
        assert second.handed_over == [([0], ProviderFault.RATE_LIMITED)]
        await stays.done.wait()
        assert places.a.now() - begun > 59
        assert [w.error for w in (first, second, stays)] == [None] * 3
        assert (second.charged, stays.charged) == ({0: 1}, {0: 1, 1: 1})
        assert places.dispatcher.queued_texts == places.dispatcher.queued_tokens == places.dispatcher.open_requests == 0

    run(main())


def test_texts_that_are_to_go_again_when_a_pause_has_begun_go_elsewhere() -> None:
    async def main() -> None:
        def script(call: EmbedCall, number: int) -> ProviderError | None:
            if number == 1:
                return ProviderError(ProviderFault.RATE_LIMITED, "slow down", retry_after=60.0)
            return ProviderError(ProviderFault.TOO_LARGE, "too many") if len(call.texts) > 1 else None

        places = TwoPlaces(script)
        limited, large = places.mover(["x"], agent="first"), places.mover(["y", "z"], agent="second")
        places.dispatcher.submit(places.a, limited, limited.items())
        await asyncio.sleep(0.005)
        places.a.queue.resize(2, 300_000)  # its two texts are a full call, which goes out beside the first
        places.dispatcher.submit(places.a, large, large.items())
        stays = Recorder(["w"], agent="third")
        places.dispatcher.submit(places.a, stays, stays.items())
        begun = places.a.now()
        await large.done.wait()
        assert places.a.now() - begun < 0.2
        assert large.error is None
        assert {text for call in places.calls("b") for text in call} >= {"y", "z"}

    run(main())


def test_texts_that_cannot_wait_for_the_end_of_a_pause_are_told_at_once() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.RATE_LIMITED, retry_after=60.0, times=1), concurrency=1)
        first, hasty = places.mover(["x"]), Recorder(["y"], deadline=places.a.now() + 30)
        places.dispatcher.submit(places.a, first, first.items())
        await asyncio.sleep(0.005)
        places.dispatcher.submit(places.a, hasty, hasty.items())
        begun = places.a.now()
        await hasty.done.wait()
        assert places.a.now() - begun < 0.2
        assert hasty.error is not None
        assert (hasty.error.code, hasty.fault) == ("provider_unavailable", ProviderFault.RATE_LIMITED)
        assert 59_000 < (hasty.error.retry_after_ms or 0) <= 60_001
        assert places.dispatcher.queued_texts == places.dispatcher.queued_tokens == 0

    run(main())


def test_who_joins_a_text_at_its_last_call_is_not_charged_with_those_before() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.SERVER))
        stays, joins = Recorder(["same"], agent="stays"), places.mover(["same"], agent="joins")
        places.dispatcher.submit(places.a, stays, stays.items())
        while len(places.calls("a")) < 4:
            await asyncio.sleep(0.001)
        places.dispatcher.submit(places.a, joins, joins.items())
        await joins.done.wait()
        assert joins.error is None
        assert places.calls("b") == [["same"]]
        assert stays.error is not None

    run(main())


def test_texts_of_a_request_that_left_before_do_not_count_against_those_that_stayed() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.RATE_LIMITED, retry_after=0.1), concurrency=1)
        waiter = places.mover(["x", "y"])
        places.dispatcher.submit(places.a, waiter, waiter.items()[:1])
        await asyncio.sleep(0.35)  # three calls with short pauses: the next failure lets `x` go
        assert waiter.handed_over == [([0], ProviderFault.RATE_LIMITED)]
        waiter.tries = 0
        places.dispatcher.submit(places.a, waiter, waiter.items()[1:])
        waiter.tries = 3
        await waiter.done.wait()
        assert waiter.error is None
        assert places.calls("b") == [["x"], ["y"]]

    run(main())


def test_calls_made_elsewhere_count_against_the_most_that_are_made() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.SERVER), broken(ProviderFault.SERVER))
        waiter = places.mover(["x"])

        def once(w: Recorder, items: list[Item]) -> None:
            w.submit = None
            places.to_b(w, items)

        waiter.submit = once
        await places.serve(waiter)
        assert waiter.error is not None
        assert (waiter.error.code, waiter.fault) == ("provider_unavailable", ProviderFault.SERVER)
        assert (len(places.calls("a")), len(places.calls("b"))) == (1, 3)
        assert waiter.charged == {}

    run(main())


def test_texts_that_came_from_elsewhere_do_not_make_others_give_up_early() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.SERVER, times=2))
        worn, fresh = Recorder(["w"], agent="worn"), Recorder(["f"], agent="fresh")
        worn.tries = 2
        await places.serve(worn, fresh)
        assert worn.error is not None
        assert fresh.error is None
        assert places.calls("a") == [["w", "f"], ["w", "f"], ["f"]]

    run(main())


def test_endpoints_that_all_fail_end_a_request_after_four_calls_wherever_they_were() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.SERVER), broken(ProviderFault.CONNECTION))
        waiter = places.mover(["x"])
        lanes = [places.b, places.a, places.b, places.a]

        def back_and_forth(w: Recorder, items: list[Item]) -> None:
            w.tries = 4 - len(lanes) + 1
            places.dispatcher.submit(lanes.pop(0), w, items)

        waiter.submit = back_and_forth
        await places.serve(waiter)
        assert waiter.error is not None
        assert [len(places.calls(n)) for n in "ab"] == [2, 2]
        assert waiter.fault is ProviderFault.CONNECTION

    run(main())


def test_a_refusal_of_a_text_is_not_a_fault_of_the_endpoint() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.REFUSED))
        waiter = places.mover(["x"])
        await places.serve(waiter)
        assert (waiter.handed_over, waiter.fault) == ([], None)
        assert waiter.error is not None

    run(main())


def test_parts_of_a_request_that_arrive_one_after_the_other_are_kept_apart_and_put_together() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.SERVER), max_inputs=2)
        waiter = places.mover([f"t{i}" for i in range(9)])
        await places.serve(waiter)
        assert waiter.error is None
        assert len(waiter.rows) == 9
        assert len(waiter.handed_over) == 5
        assert set(waiter.charged) == set(range(9))

    run(main())


def test_a_request_that_is_withdrawn_leaves_every_lane() -> None:
    async def main() -> None:
        places = TwoPlaces(None)
        for provider in places.providers.values():
            provider.latency = 5.0
        waiter = Recorder(["x", "y"])
        first, second = waiter.items()
        places.dispatcher.submit(places.a, waiter, [first])
        places.dispatcher.submit(places.b, waiter, [second])
        assert places.dispatcher.open_requests == 1
        places.dispatcher.withdraw(waiter)
        assert places.dispatcher.open_requests == places.dispatcher.queued_texts == 0
        await asyncio.sleep(20)
        assert waiter.rows == {}
        assert not places.providers["a"].calls

    run(main())


def test_a_failure_in_one_lane_ends_the_request_in_all_and_once() -> None:
    async def main() -> None:
        places = TwoPlaces(broken(ProviderFault.REFUSED))
        places.providers["b"].latency = 1.0
        waiter = Recorder(["x", "y"])
        first, second = waiter.items()
        places.dispatcher.submit(places.a, waiter, [first])
        places.dispatcher.submit(places.b, waiter, [second])
        await waiter.done.wait()
        assert waiter.error is not None
        assert places.dispatcher.open_requests == 0
        await asyncio.sleep(5)
        assert waiter.rows == {}

    run(main())


def test_two_submissions_answered_by_one_call_are_flushed_together() -> None:
    async def main() -> None:
        places = TwoPlaces(None)
        waiter = Recorder(["x", "y"])
        for item in waiter.items():
            places.dispatcher.submit(places.a, waiter, [item])
        await waiter.done.wait()
        assert len(waiter.reports) == 1
        assert places.calls("a") == [["x", "y"]]
        assert places.dispatcher.open_requests == 0

    run(main())


def one_at_a_time(a: Script | None) -> TwoPlaces:
    """Two endpoints of one call at a time, a tenth of a second each."""
    places = TwoPlaces(a)
    for provider in places.providers.values():
        provider.latency = 0.1
    places.a, places.b = (
        places.dispatcher.lane(candidate(name=n, max_inputs=64, concurrency=1), None, None) for n in "ab"
    )
    return places


def test_ten_thousand_texts_that_are_handed_over_delay_another_tenants_text_by_at_most_one_call() -> None:
    async def main() -> None:
        places = one_at_a_time(broken(ProviderFault.SERVER))
        big = places.mover([f"t{i}" for i in range(10_000)], tenant="big")
        places.dispatcher.submit(places.a, big, big.items())
        await asyncio.sleep(3.05)
        small = Recorder(["one"], tenant="small")
        asked = asyncio.get_running_loop().time()
        places.to_b(small, small.items())
        await small.done.wait()
        assert len(big.handed_over) > 20
        assert small.ended_at - asked <= 0.2 + 1e-6
        places.dispatcher.withdraw(big)
        await asyncio.sleep(5)

    run(main())


def test_ten_thousand_texts_that_go_again_delay_another_tenants_new_text_and_its_next_try_by_a_few_calls_at_most() -> (
    None
):
    async def main() -> None:
        hold = {"broken": True, "flaky": False}

        def script(call: EmbedCall, number: int) -> ProviderError | None:
            fails = hold["broken"] or (hold["flaky"] and "flaky" in call.texts)
            return ProviderError(ProviderFault.SERVER, "down") if fails else None

        places = one_at_a_time(script)
        loop = asyncio.get_running_loop()
        for n in range(160):
            big = Recorder([f"{n}/{i}" for i in range(64)], tenant="big", agent=str(n))
            big.tries = -100
            places.dispatcher.submit(places.a, big, big.items())
        await asyncio.sleep(20.05)
        hold["broken"] = False
        new, flaky = Recorder(["one"], tenant="small"), Recorder(["flaky"], tenant="unlucky")
        asked = loop.time()
        places.dispatcher.submit(places.a, new, new.items())
        await new.done.wait()
        assert new.ended_at - asked <= 0.3 + 1e-6, "the call under way, one that goes again, and its own"
        again = places.a._again
        assert sum(map(len, again._waiting.values())) > 20
        hold["flaky"] = True
        places.dispatcher.submit(places.a, flaky, flaky.items())
        await asyncio.sleep(2.0)
        hold["flaky"] = False
        await flaky.done.wait()
        provider = places.providers["a"]
        sent = [at for at, call in zip(provider.sent_at, provider.calls, strict=True) if "flaky" in call.texts]
        assert len(sent) > 1
        for tries, (earlier, later) in enumerate(pairwise(sent), 1):
            assert later - earlier - 0.1 <= 0.5 * 1.5 ** (tries - 1) * 1.5 + 0.3 + 1e-6
        await places.dispatcher.close()

    run(main())


def test_a_hang_leaves_half_of_the_time_for_another_endpoint_where_there_is_one() -> None:
    async def main() -> None:
        places = TwoPlaces(None)
        places.providers["a"].latency = 1e6
        deadline = asyncio.get_running_loop().time() + 10
        moves = places.mover(["x"])
        moves.deadline = deadline
        await places.serve(moves)
        assert moves.error is None
        assert moves.handed_over == [([0], ProviderFault.TIMEOUT)]
        stays = Recorder(["y"], deadline=asyncio.get_running_loop().time() + 10)
        await places.serve(stays)
        assert [c.timeout for c in places.providers["a"].calls] == [5.0, 10.1]

    run(main())
