"""Texts that fail at one endpoint and go to another, end to end through a dispatcher on a virtual clock."""

import asyncio

import pytest

from domain.ports.provider import ProviderError, ProviderFault
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.limits import DispatchLimits
from gateway.dispatch.ports import Item
from tests.unit.dispatch.doubles import FakeProvider, Recorder, Script, candidate
from tests.unit.dispatch.virtual_time import run


def broken(fault: ProviderFault, *, retry_after: float | None = None, times: int = 10**6) -> Script:
    return lambda call, number: ProviderError(fault, "down", retry_after=retry_after) if number <= times else None


class TwoPlaces:
    """A dispatcher with the lanes `a` and `b` of one model at two endpoints."""

    def __init__(self, a: Script | None, b: Script | None = None, *, max_inputs: int = 64) -> None:
        self.providers = {"a": FakeProvider(0.01, a), "b": FakeProvider(0.01, b)}
        self.dispatcher = Dispatcher(self.providers, limits=DispatchLimits())
        self.a = self.dispatcher.lane(candidate(name="a", max_inputs=max_inputs), None, None)
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
