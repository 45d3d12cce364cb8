"""Closed-loop simulations on a virtual clock: agents that ask again when they are answered, a group-commit log on both sides of a call."""

import asyncio
from collections.abc import Callable
from random import Random

import msgspec
import pytest

from domain.catalogue import Candidate
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.limits import DispatchLimits
from tests.unit.dispatch.doubles import FakeProvider, Recorder, candidate
from tests.unit.dispatch.virtual_time import run


class GroupCommitLog:
    """Takes what is queued, one batch in flight; a commit takes `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._queue: list[Callable[[], None]] = []
        self._busy = False

    async def append(self) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(lambda: done.set_result(None))
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._start)
        await done

    def _start(self) -> None:
        batch, self._queue = self._queue, []
        asyncio.get_running_loop().call_later(self.seconds, self._finish, batch)

    def _finish(self, batch: list[Callable[[], None]]) -> None:
        for done in batch:
            done()
        if self._queue:
            self._start()
        else:
            self._busy = False


class Round(msgspec.Struct):
    """One request as its agent saw it."""

    agent: int
    asked: float
    submitted: float
    answered: float

    @property
    def seconds(self) -> float:
        return self.answered - self.asked


class Simulation:
    def __init__(
        self,
        *,
        latency: float = 0.1,
        commit: float = 0.002,
        where: Candidate | None = None,
        limits: DispatchLimits | None = None,
    ) -> None:
        self.provider = FakeProvider(latency)
        self.where = where or candidate()
        self.limits = limits
        self.commit = commit
        self.rounds: list[Round] = []
        self.waiters: list[Recorder] = []
        self.started = 0.0

    async def _agent(self, number: int, start: float, until: float, think: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(start)
        count = 0
        while loop.time() < self.started + until:
            asked = loop.time()
            count += 1
            waiter = Recorder([f"{number}/{count}"], agent=str(number))
            self.waiters.append(waiter)
            lane = self.dispatcher.lane(self.where, None, None)
            lane.announce()
            await self.log.append()
            submitted = loop.time()
            self.dispatcher.submit(lane, waiter, waiter.items())
            await waiter.done.wait()
            await self.log.append()
            self.rounds.append(Round(number, asked, submitted, loop.time()))
            await asyncio.sleep(think)

    async def _main(self, agents: int, seconds: float, leaving: dict[int, float], think: float, jitter: float) -> None:
        loop = asyncio.get_running_loop()
        self.started = loop.time()
        self.dispatcher = Dispatcher({"main": self.provider}, limits=self.limits, rng=Random(1))
        self.log = GroupCommitLog(self.commit)
        rng = Random(7)
        starts = [rng.uniform(0, self.provider.latency) for _ in range(agents)]
        thinks = [think + rng.uniform(0, jitter) for _ in range(agents)]
        await asyncio.gather(*(self._agent(i, starts[i], leaving.get(i, seconds), thinks[i]) for i in range(agents)))
        assert self.dispatcher.queued_texts == 0
        assert self.dispatcher.open_requests == 0
        await self.dispatcher.close()

    def run(
        self,
        agents: int,
        seconds: float = 4.0,
        *,
        leaving: dict[int, float] | None = None,
        think: float = 0.0003,
        jitter: float = 0.0,
    ) -> None:
        run(self._main(agents, seconds, leaving or {}, think, jitter))
        for waiter in self.waiters:
            waiter.check()
            assert waiter.error is None

    def settled(self, after: float = 1.0) -> list[Round]:
        return [r for r in self.rounds if r.asked > self.started + after]

    def p50(self, after: float = 1.0) -> float:
        """Median seconds of the rounds after the start."""
        ordered = sorted(r.seconds for r in self.settled(after))
        return ordered[len(ordered) // 2]

    def texts_per_call(self, after: float = 1.0) -> float:
        calls = [
            len(c.texts)
            for c, at in zip(self.provider.calls, self.provider.sent_at, strict=True)
            if at > self.started + after
        ]
        return sum(calls) / len(calls)


@pytest.mark.parametrize("agents", [2, 8, 64, 200])
def test_agents_that_ask_again_at_once_share_their_calls_at_little_more_than_the_providers_time(agents: int) -> None:
    simulation = Simulation()
    simulation.run(agents)
    assert simulation.p50() <= 1.1 * simulation.provider.latency
    assert simulation.texts_per_call() >= 0.95 * agents


def test_agents_that_return_over_some_milliseconds_still_share_their_calls() -> None:
    simulation = Simulation()
    simulation.run(64, jitter=0.004)
    assert simulation.p50() <= 1.15 * simulation.provider.latency
    assert simulation.texts_per_call() >= 60


def test_without_the_wait_the_agents_split_into_two_groups_that_take_turns() -> None:
    """Negative control: sending whenever idle doubles the latency and halves the calls."""
    simulation = Simulation(limits=DispatchLimits(regather=0.0))
    simulation.commit = 0.0
    simulation.run(64, jitter=0.004)
    assert simulation.p50() > 1.8 * simulation.provider.latency
    assert simulation.texts_per_call() < 40


def test_a_lone_agent_never_waits() -> None:
    simulation = Simulation()
    simulation.run(1)
    sent = simulation.provider.sent_at
    assert [s - r.submitted for r, s in zip(simulation.rounds, sent, strict=True)] == [0.0] * len(sent)


@pytest.mark.parametrize("stay", [1, 2, 20])
def test_when_most_agents_leave_the_others_lose_at_most_the_regather_time_once(stay: int) -> None:
    simulation = Simulation()
    simulation.run(64, 4.0, leaving=dict.fromkeys(range(stay, 64), 2.0))
    steady = simulation.p50()
    late = [
        r
        for r in simulation.rounds
        if r.agent < stay and r.asked > simulation.started + 1.0 and r.seconds > steady + 0.001
    ]
    assert all(r.seconds <= steady + 0.005 + 0.003 for r in late)
    assert len(late) <= stay


def test_a_provider_of_one_text_a_call_is_used_with_full_concurrency_and_nothing_is_mangled() -> None:
    simulation = Simulation(where=candidate(max_inputs=1, concurrency=64))
    simulation.run(64)
    assert set(simulation.provider.sizes) == {1}
    assert simulation.provider.most_in_flight == 64
    assert simulation.p50() <= 1.15 * simulation.provider.latency


def test_an_endpoints_concurrency_is_never_exceeded() -> None:
    simulation = Simulation(where=candidate(max_inputs=1, concurrency=8))
    simulation.run(64, 2.0)
    assert simulation.provider.most_in_flight == 8


def test_with_a_slow_provider_a_text_waits_the_window_and_no_longer() -> None:
    simulation = Simulation(latency=5.0, where=candidate(concurrency=64))
    simulation.run(64, 20.0)
    assert max(r.seconds for r in simulation.rounds) <= 5.0 + 0.1 + 0.012


def test_full_calls_go_out_while_others_run() -> None:
    simulation = Simulation(where=candidate(max_inputs=64))
    simulation.run(200)
    assert simulation.provider.most_in_flight > 1
    assert simulation.p50() <= 1.3 * simulation.provider.latency
    assert max(simulation.provider.sizes) == 64


def test_a_slow_log_does_not_split_the_agents() -> None:
    simulation = Simulation(commit=0.02)
    simulation.run(64)
    assert simulation.texts_per_call() >= 60
