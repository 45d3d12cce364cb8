"""Caps of calls that are learnt from refusals, and shared by all lanes of a model at an endpoint."""

import asyncio
from collections.abc import Callable

import pytest

from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from gateway.dispatch.caps import Caps
from tests.unit.dispatch.doubles import Bench, FakeProvider, Recorder, Script, candidate, poisoned, tokens_of
from tests.unit.dispatch.virtual_time import run


def too_large(when: Callable[[EmbedCall], bool]) -> Script:
    return lambda call, number: ProviderError(ProviderFault.TOO_LARGE, "too large", status=413) if when(call) else None


def tokens_in(call: EmbedCall) -> int:
    return sum(map(tokens_of, call.texts))


def test_a_refusal_halves_what_was_sent_and_what_was_taken_bounds_it_from_below() -> None:
    caps = Caps()
    caps.taken(40, 900)
    caps.refused(64, 800)
    assert (caps.inputs, caps.tokens) == (40, None), "no more tokens than were taken before: the texts were too many"
    caps.refused(30, 4000)
    assert (caps.inputs, caps.tokens) == (40, 2000)
    caps.refused(30, 1500)
    assert (caps.inputs, caps.tokens) == (40, 900)


def test_where_it_cannot_be_told_which_was_too_much_both_are_halved() -> None:
    caps = Caps()
    caps.refused(10, 1000)
    assert (caps.inputs, caps.tokens) == (5, 500)
    caps.refused(1, 1)
    assert caps.inputs == 1


def test_what_is_learnt_never_exceeds_what_is_configured() -> None:
    caps = Caps()
    caps.refused(2000, 200_000)
    assert caps.of(candidate(max_inputs=10, max_tokens=100)) == (10, 100)
    assert caps.of(candidate(max_inputs=5000, max_tokens=10**6)) == (1000, 100_000)


def test_a_cap_of_tokens_is_learnt_without_giving_up_calls_of_many_short_texts() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, too_large(lambda call: tokens_in(call) > 1000)))
        await bench.serve(Recorder([f"short {i}" for i in range(64)]))
        await bench.serve(Recorder([f"{i} long".ljust(400, "x") for i in range(60)]))
        before = len(bench.provider.calls)
        await bench.serve(Recorder([f"{i} more".ljust(400, "x") for i in range(60)]))
        assert len(bench.provider.answered) - len(bench.provider.calls) < 0
        assert all(tokens_in(call) <= 1000 for call in bench.provider.calls[before:])
        before = len(bench.provider.calls)
        await bench.serve(Recorder([f"brief {i}" for i in range(64)]))
        assert len(bench.provider.calls) == before + 1

    run(main())


def test_all_lanes_of_a_model_at_an_endpoint_learn_together_and_no_others() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, too_large(lambda call: len(call.texts) > 10)))
        sibling = bench.dispatcher.lane(bench.lane.candidate, None, "query")
        stranger = bench.dispatcher.lane(candidate(model="n", max_inputs=64), None, None)
        await bench.serve(Recorder([f"a{i}" for i in range(64)]))
        for lane, largest in ((sibling, 8), (stranger, 64)):
            before = len(bench.provider.calls)
            waiter = Recorder([f"b{i}" for i in range(64)])
            bench.dispatcher.submit(lane, waiter, waiter.items())
            await waiter.done.wait()
            assert waiter.error is None
            assert max(bench.provider.sizes[before:]) == largest
        assert {(g.model, g.max_inputs) for g in bench.dispatcher.gauges()} == {("m", 8), ("n", 8)}

    run(main())


@pytest.mark.parametrize("named", [True, False])
def test_a_text_that_the_provider_finds_too_long_teaches_that_such_go_alone(named: bool) -> None:
    async def main() -> None:
        long = "x" * 400
        bench = Bench(FakeProvider(0.01, poisoned(ProviderFault.TOO_LONG, long, with_index=named)))
        good = [Recorder([f"g{i}"], agent=str(i)) for i in range(7)]
        await bench.serve(Recorder([long]), *good)
        assert all(w.error is None for w in good)
        assert bench.dispatcher.gauges()[0].alone_from == 100
        before = len(bench.provider.calls)
        await bench.serve(Recorder(["y" * 400], agent="z"), *(Recorder([f"h{i}"], agent=str(i)) for i in range(7)))
        assert sorted(bench.provider.sizes[before:]) == [1, 7]

    run(main())


def test_a_provider_of_one_text_a_call_that_nobody_knew_of_gets_one_each_at_full_concurrency() -> None:
    async def main() -> None:
        bench = Bench(
            FakeProvider(0.1, too_large(lambda call: len(call.texts) > 1)),
            where=candidate(max_inputs=64, concurrency=8),
        )
        await bench.serve(Recorder([f"a{i}" for i in range(64)]))
        before, started = len(bench.provider.calls), asyncio.get_running_loop().time()
        waiter = Recorder([f"b{i}" for i in range(64)])
        await bench.serve(waiter)
        assert set(bench.provider.sizes[before:]) == {1}
        assert bench.provider.most_in_flight == 8
        assert waiter.ended_at - started == pytest.approx(0.8, rel=0.01)

    run(main())
