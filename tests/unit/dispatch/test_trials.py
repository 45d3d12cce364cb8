"""Texts that make a provider fail as if it were out of order, end to end through a dispatcher on a virtual clock."""

from __future__ import annotations

import asyncio
from math import ceil, log2
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.ports.breaker import CircuitState
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from gateway.dispatch import trials
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.ports import Item
from tests.unit.dispatch.doubles import Bench, FakeProvider, Recorder, Script, candidate, poisoned
from tests.unit.dispatch.test_circuits import Place
from tests.unit.dispatch.virtual_time import run

TRIES = 4


def down(fault: ProviderFault = ProviderFault.SERVER, *, after: int = 0) -> Script:
    return lambda call, number: ProviderError(fault, "down", status=503) if number > after else None


def bound(texts: int, bad: int) -> int:
    """The most calls: the tries, two that show that it is alive, then for each bad text two for every halving, and some for going on."""
    return TRIES + 2 + (bad + 1) * (2 * ceil(log2(texts)) + 4)


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=24),
    fault=st.sampled_from(sorted(trials.SUSPICIOUS)),
    data=st.data(),
)
def test_one_requests_bad_texts_fail_it_alone_wherever_they_are(
    sizes: list[int], fault: ProviderFault, data: st.DataObject
) -> None:
    culprit = data.draw(st.integers(0, len(sizes) - 1))
    bad = data.draw(st.sets(st.integers(0, sizes[culprit] - 1), min_size=1))
    poison = [f"{culprit}/{i}" for i in bad]

    async def main() -> None:
        bench = Bench(FakeProvider(0.01, poisoned(fault, *poison)), where=candidate(max_inputs=2048))
        waiters = [
            Recorder([f"{n}/{i}" for i in range(size)], tenant=f"t{n % 3}", agent=str(n))
            for n, size in enumerate(sizes)
        ]
        await bench.serve(*waiters)
        assert [n for n, w in enumerate(waiters) if w.error] == [culprit]
        error = waiters[culprit].error
        assert error is not None
        if error.code == "provider_error":
            assert error.details is not None
            assert error.details["index"] in bad
        assert all(set(w.charged) == set(w.rows) == set(range(len(w.texts))) for w in waiters if not w.error)
        assert len(bench.provider.calls) <= bound(sum(sizes), len(bad))

    run(main())


@pytest.mark.parametrize("seed", range(8))
def test_bad_texts_of_several_requests_are_each_found(seed: int) -> None:
    rng = Random(seed)
    poison = [f"p{i}" for i in rng.sample(range(60), 6)]

    async def main() -> None:
        bench = Bench(FakeProvider(0.01, poisoned(ProviderFault.SERVER, *poison)))
        waiters = [Recorder([f"p{i}"], agent=str(i % 5), tenant=f"t{i % 3}") for i in range(60)]
        await bench.serve(*waiters)
        assert sorted(w.texts[0] for w in waiters if w.error) == sorted(poison)
        assert len(bench.provider.calls) <= bound(60, 6)

    run(main())


@pytest.mark.parametrize("fault", sorted(trials.SUSPICIOUS))
@pytest.mark.parametrize("count", [2, 3, 64])
def test_an_outage_costs_two_calls_more_than_the_tries(fault: ProviderFault, count: int) -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, down(fault)))
        waiters = [Recorder([f"x{i}"], agent=str(i)) for i in range(count)]
        await bench.serve(*waiters)
        assert all(w.error and w.error.code == "provider_unavailable" and w.fault is fault for w in waiters)
        tries = 1 if fault is ProviderFault.BAD_ANSWER else TRIES
        assert bench.provider.sizes == [count] * tries + [1, 1]

    run(main())


def test_a_single_requests_texts_are_not_searched() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, poisoned(ProviderFault.SERVER, "bad")))
        await bench.serve(Recorder(["a", "bad", "c"]))
        assert len(bench.provider.calls) == TRIES

    run(main())


def test_an_outage_that_begins_during_a_search_ends_it_soon() -> None:
    async def main() -> None:
        def script(call: EmbedCall, number: int) -> ProviderError | None:
            alive = number == TRIES + 1
            return None if alive else ProviderError(ProviderFault.SERVER, "down")

        bench = Bench(FakeProvider(0.01, script))
        waiters = [Recorder([f"x{i}"], agent=str(i)) for i in range(64)]
        await bench.serve(*waiters)
        assert sum(w.error is None for w in waiters) == 1
        assert len(bench.provider.calls) <= TRIES + 2 + 2 * (7 + 2) + 2

    run(main())


def test_a_rate_limit_during_a_search_is_waited_out() -> None:
    async def main() -> None:
        bad = poisoned(ProviderFault.SERVER, "x3")

        def script(call: EmbedCall, number: int) -> ProviderError | None:
            if number in (5, 7, 8):
                return ProviderError(ProviderFault.RATE_LIMITED, "", retry_after=1.0)
            return bad(call, number)

        bench = Bench(FakeProvider(0.01, script))
        waiters = [Recorder([f"x{i}"], agent=str(i)) for i in range(8)]
        await bench.serve(*waiters)
        assert [w.texts for w in waiters if w.error] == [["x3"]]

    run(main())


def test_a_rate_limit_that_outlasts_everybodys_deadline_ends_a_search() -> None:
    async def main() -> None:
        bad = poisoned(ProviderFault.SERVER, "x3")

        def script(call: EmbedCall, number: int) -> ProviderError | None:
            if number >= 5:
                return ProviderError(ProviderFault.RATE_LIMITED, "", retry_after=200.0)
            return bad(call, number)

        bench = Bench(FakeProvider(0.01, script))
        now = asyncio.get_running_loop().time()
        waiters = [Recorder([f"x{i}"], agent=str(i), deadline=now + 100) for i in range(8)]
        await bench.serve(*waiters)
        assert {w.error.code for w in waiters if w.error} == {"provider_unavailable"}
        assert all(w.ended_at < now + 20 for w in waiters)

    run(main())


def test_a_search_goes_on_without_those_who_left() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.1, poisoned(ProviderFault.SERVER, "x3")))
        waiters = [Recorder([f"x{i}"], agent=str(i)) for i in range(8)]
        bench.submit(*waiters)
        while len(bench.provider.calls) <= TRIES:
            await asyncio.sleep(0.05)
        for waiter in waiters[:6]:
            bench.dispatcher.withdraw(waiter)
        for waiter in waiters[6:]:
            await waiter.done.wait()
            assert waiter.error is None
        await bench.drained()

    run(main())


def test_a_search_takes_one_slot_and_other_texts_go_by() -> None:
    async def main() -> None:
        poison = [f"p{i}" for i in range(0, 64, 2)]
        bench = Bench(FakeProvider(0.1, poisoned(ProviderFault.SERVER, *poison)), where=candidate(concurrency=2))
        bench.submit(*(Recorder([f"p{i}"], tenant="bad", agent=str(i)) for i in range(64)))
        await asyncio.sleep(5)
        single = Recorder(["fine"], tenant="good")
        bench.submit(single)
        asked = asyncio.get_running_loop().time()
        await single.done.wait()
        assert single.error is None
        assert single.ended_at - asked <= 0.2 + 0.1
        await bench.drained()

    run(main())


def test_a_bad_text_that_travels_costs_a_bounded_number_of_calls_and_the_innocent_are_answered() -> None:
    async def main() -> None:
        providers = {n: FakeProvider(0.01, poisoned(ProviderFault.SERVER, "bad")) for n in "ab"}
        dispatcher = Dispatcher(providers, rng=Random(1))
        lanes = {n: dispatcher.lane(candidate(name=n), None, None) for n in "ab"}

        def move(waiter: Recorder, items: list[Item]) -> None:
            waiter.at = "b" if waiter.at == "a" else "a"
            dispatcher.submit(lanes[waiter.at], waiter, items)

        waiters = [Recorder([f"x{i}"], agent=str(i), submit=move) for i in range(31)]
        waiters.append(Recorder(["bad"], submit=move))
        for waiter in waiters:
            waiter.at = "a"
            dispatcher.submit(lanes["a"], waiter, waiter.items())
        for waiter in waiters:
            await waiter.done.wait()
            waiter.check()
        assert [w.texts for w in waiters if w.error] == [["bad"]]
        assert sum(len(p.calls) for p in providers.values()) <= bound(32, 1)

    run(main())


def test_the_breaker_is_not_told_of_failures_that_a_search_expects() -> None:
    async def main() -> None:
        place = Place(FakeProvider(0.01, poisoned(ProviderFault.SERVER, "x3")))
        waiters = [place.submit(Recorder([f"x{i}"], agent=str(i))) for i in range(16)]
        for waiter in waiters:
            await waiter.done.wait()
        assert [w.texts for w in waiters if w.error] == [["x3"]]
        failures = [end for end in place.circuit.ends if end is not None]
        assert len(failures) == TRIES
        assert place.circuit.given_back >= 1
        assert place.circuit.out == 0

    run(main())


def test_when_the_circuit_opens_during_a_search_it_ends() -> None:
    async def main() -> None:
        place = Place(FakeProvider(0.1, poisoned(ProviderFault.SERVER, "x3")))
        waiters = [place.submit(Recorder([f"x{i}"], agent=str(i))) for i in range(16)]
        while len(place.provider.calls) < TRIES + 1:
            await asyncio.sleep(0.05)
        place.change(CircuitState.OPEN, open_for=5.0)
        for waiter in waiters:
            await waiter.done.wait()
        calls = len(place.provider.calls)
        await asyncio.sleep(10)
        assert len(place.provider.calls) == calls <= TRIES + 2
        assert not place.lane.flights

    run(main())
