import asyncio

import pytest

from domain.errors import GatewayError
from domain.ports.provider import ProviderFault
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.limits import DispatchLimits
from tests.unit.dispatch.doubles import Bench, FakeProvider, Recorder, candidate, poisoned
from tests.unit.dispatch.virtual_time import run


def test_an_idle_dispatcher_sends_within_the_same_instant() -> None:
    async def main() -> None:
        bench = Bench()
        now = asyncio.get_running_loop().time()
        await bench.serve(Recorder(["a"]))
        assert bench.provider.sent_at == [now]

    run(main())


def test_requests_submitted_together_go_together() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.serve(*(Recorder([f"t{i}"], agent=str(i)) for i in range(50)))
        assert bench.provider.sizes == [50]

    run(main())


def test_an_oversized_request_is_split_over_calls_within_the_caps_and_put_together_again() -> None:
    async def main() -> None:
        bench = Bench(where=candidate(max_inputs=64, max_tokens=300))
        waiter = Recorder([f"{i} " + "word " * (i % 40) for i in range(1000)])
        await bench.serve(waiter)
        assert len(waiter.rows) == 1000
        assert max(bench.provider.sizes) <= 64
        for outcome in bench.outcomes:
            assert outcome.tokens <= 300
        assert sum(waiter.charged.values()) == sum(i.tokens for i in waiter.items())

    run(main())


def test_a_text_over_the_token_cap_of_a_call_goes_alone() -> None:
    async def main() -> None:
        bench = Bench(where=candidate(max_inputs=64, max_tokens=100))
        waiter = Recorder(["a", "x" * 1000, "b"])
        await bench.serve(waiter)
        assert [c.texts for c in bench.provider.calls if len(c.texts[0]) == 1000] == [["x" * 1000]]

    run(main())


def test_strings_and_token_lists_never_share_a_call() -> None:
    async def main() -> None:
        bench = Bench()
        words, tokens = Recorder(["a", "b"]), Recorder([[1, 2], [3]])
        bench.submit(words, tokens)
        await asyncio.gather(words.done.wait(), tokens.done.wait())
        tokens.check()
        assert sorted(map(repr, (c.texts for c in bench.provider.calls))) == ["['a', 'b']", "[[1, 2], [3]]"]
        with pytest.raises(ValueError, match="one kind only"):
            bench.submit(Recorder(["a", [1]]))
        await bench.drained()

    run(main())


def test_a_submission_without_texts_is_refused() -> None:
    async def main() -> None:
        bench = Bench()
        with pytest.raises(ValueError, match="at least one text"):
            bench.submit(Recorder([]))
        bench.check_empty()

    run(main())


@pytest.mark.parametrize("limits", [DispatchLimits(max_queued_texts=10), DispatchLimits(max_queued_tokens=10)])
def test_a_full_queue_refuses_whole_requests_and_leaves_room_for_other_tenants(limits: DispatchLimits) -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(1.0), where=candidate(concurrency=1), limits=limits)
        busy = Recorder(["busy"], tenant="other")
        bench.submit(busy)
        await asyncio.sleep(0.1)
        greedy = [Recorder([f"{i}", f"{i}+"], agent=str(i)) for i in range(4)]
        bench.submit(*greedy[:2])
        with pytest.raises(GatewayError) as refused:
            bench.submit(*greedy[2:])
        assert refused.value.code == "overloaded"
        modest = Recorder(["x", "y"], tenant="modest")
        bench.submit(modest)
        for waiter in (busy, *greedy[:2], modest):
            await waiter.done.wait()
            waiter.check()
        assert greedy[2].rows == {}
        await bench.drained()

    run(main())


def test_ten_thousand_queued_texts_of_one_tenant_delay_another_by_at_most_one_call() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.1), where=candidate(max_inputs=64, concurrency=1))
        big = Recorder([f"t{i}" for i in range(10_000)], tenant="big")
        bench.submit(big)
        await asyncio.sleep(0.25)
        single = Recorder(["one"], tenant="small")
        asked = asyncio.get_running_loop().time()
        bench.submit(single)
        await single.done.wait()
        assert single.ended_at - asked <= 0.2 + 1e-6
        bench.dispatcher.withdraw(big)
        await bench.drained()

    run(main())


def test_lanes_of_one_endpoint_take_turns_when_its_slots_are_taken() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.1), where=candidate(max_inputs=10, concurrency=2))
        other = bench.dispatcher.lane(candidate(model="n", max_inputs=10, concurrency=2), None, None)
        big = Recorder([f"t{i}" for i in range(1000)], tenant="big")
        bench.submit(big)
        await asyncio.sleep(0.05)
        single = Recorder(["one"], tenant="small")
        bench.dispatcher.submit(other, single, single.items())
        await single.done.wait()
        assert single.ended_at - bench.provider.sent_at[0] <= 0.2 + 1e-6
        await big.done.wait()
        assert bench.provider.most_in_flight == 2

    run(main())


def test_a_flood_of_poisonous_texts_does_not_hold_up_another_tenants_text() -> None:
    async def main() -> None:
        poison = [f"p{i}" for i in range(64)]
        bench = Bench(
            FakeProvider(0.1, poisoned(ProviderFault.REFUSED, *poison)), where=candidate(max_inputs=64, concurrency=1)
        )
        bench.submit(*(Recorder([p], tenant="bad", agent=p) for p in poison))
        await asyncio.sleep(0.25)
        single = Recorder(["fine"], tenant="good")
        asked = asyncio.get_running_loop().time()
        bench.submit(single)
        await single.done.wait()
        assert single.ended_at - asked <= 0.35
        await bench.drained()

    run(main())


def test_lanes_are_told_apart_by_what_changes_a_call_and_reused_otherwise() -> None:
    async def main() -> None:
        dispatcher = Dispatcher(lambda endpoint: FakeProvider())
        where = candidate()
        lanes = [
            dispatcher.lane(where, None, None),
            dispatcher.lane(where, 2, None),
            dispatcher.lane(where, None, "query"),
            dispatcher.lane(where, None, None, takes_tokens=True),
            dispatcher.lane(candidate(model="n"), None, None),
            dispatcher.lane(candidate(name="elsewhere"), None, None),
        ]
        assert len(set(lanes)) == len(lanes)
        newer = candidate(max_inputs=7)
        assert dispatcher.lane(newer, None, None) is lanes[0]
        assert lanes[0].queue.max_inputs == 7

    run(main())


def test_idle_lanes_are_forgotten_when_there_are_many_and_busy_ones_are_kept() -> None:
    async def main() -> None:
        bench = Bench()
        waiter = Recorder(["a"])
        bench.submit(waiter)
        for dimensions in range(5000):
            bench.dispatcher.lane(candidate(), dimensions, None)
        assert len(bench.dispatcher.gauges()) <= 512
        assert bench.dispatcher.lane(bench.lane.candidate, None, None) is bench.lane
        await waiter.done.wait()

    run(main())


def test_the_gauges_show_what_is_queued_and_in_flight() -> None:
    async def main() -> None:
        bench = Bench(where=candidate(max_inputs=2, concurrency=1))
        waiter = Recorder(["a", "b", "c"])
        bench.submit(waiter)
        await asyncio.sleep(0.01)
        (gauge,) = bench.dispatcher.gauges()
        assert (gauge.endpoint, gauge.model, gauge.queued_texts, gauge.calls) == ("main", "m", 1, 1)
        assert (bench.dispatcher.queued_texts, bench.dispatcher.calls_in_flight, bench.dispatcher.open_requests) == (
            1,
            1,
            1,
        )
        await waiter.done.wait()
        await bench.drained()

    run(main())


def test_closing_fails_what_is_open_cancels_the_calls_and_refuses_what_comes() -> None:
    async def main() -> None:
        bench = Bench(where=candidate(max_inputs=2, concurrency=1))
        sent, queued = Recorder(["a", "b"]), Recorder(["c"])
        bench.submit(sent, queued)
        await asyncio.sleep(0.01)
        await bench.dispatcher.close()
        for waiter in (sent, queued):
            assert waiter.error is not None
            assert waiter.error.code == "draining"
        assert bench.provider.in_flight == 0
        bench.check_empty()
        with pytest.raises(GatewayError, match="shutting down"):
            bench.submit(Recorder(["d"]))
        await bench.dispatcher.close()

    run(main())


def test_a_retracted_announcement_lets_those_go_that_waited_for_it() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.1))
        await bench.serve(Recorder(["a"]), Recorder(["b"], agent="b"))
        loop = asyncio.get_running_loop()
        answered = loop.time()
        bench.lane.announce()
        bench.lane.announce()
        waiter = Recorder(["c"])
        bench.submit(waiter)
        loop.call_later(0.02, bench.lane.retract)
        await waiter.done.wait()
        assert bench.provider.sent_at[-1] - answered == pytest.approx(0.02)

    run(main())


def test_lanes_of_ever_new_sizes_do_not_pile_up_at_an_endpoint() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01))
        busy = Recorder(["one"])
        bench.dispatcher.submit(bench.lane, busy, busy.items())
        for size in range(1, 200):
            bench.dispatcher.lane(candidate(), size, None)
        assert len(bench.dispatcher.gauges()) <= 33
        assert bench.dispatcher.load("main") == 1, "what is busy is kept"
        await busy.done.wait()
        assert busy.error is None

    run(main())
