"""What a lane does while its endpoint's circuit is open or half open, and what the breaker is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from domain.ports.breaker import CircuitState
from domain.ports.provider import ProviderError, ProviderFault
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.ports import Item
from tests.unit.dispatch.doubles import FakeProvider, Recorder, candidate
from tests.unit.dispatch.virtual_time import run

T = TypeVar("T")


class Circuit:
    """A breaker whose state the test sets; `trials` are what a half open one has left."""

    def __init__(self) -> None:
        self.state = CircuitState.CLOSED
        self.open_for = 0.0
        self.trials = 0
        self.ends: list[BaseException | None] = []
        self.given_back = 0
        self.out = 0

    def would_admit(self) -> bool:
        return self.state is CircuitState.CLOSED or (self.state is CircuitState.HALF_OPEN and self.trials > 0)

    def admit(self) -> Leave | None:
        if not self.would_admit():
            return None
        self.trials -= 1
        self.out += 1
        return Leave(self)


class Leave:
    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            answer = await work()
        except BaseException as error:
            self.circuit.ends.append(error)
            raise
        finally:
            self.circuit.out -= 1
        self.circuit.ends.append(None)
        return answer

    def give_back(self) -> None:
        self.circuit.out -= 1
        self.circuit.given_back += 1


class Place:
    def __init__(self, provider: FakeProvider | None = None, *, max_inputs: int = 64, concurrency: int = 8) -> None:
        self.circuit = Circuit()
        self.provider = provider or FakeProvider(0.1)
        self.dispatcher = Dispatcher(lambda endpoint: self.provider, breakers=lambda endpoint: self.circuit)
        self.where = candidate(max_inputs=max_inputs, concurrency=concurrency)
        self.lane = self.dispatcher.lane(self.where, None, None)
        self.other = self.dispatcher.lane(self.where, None, "query")

    def submit(self, waiter: Recorder) -> Recorder:
        self.dispatcher.submit(self.lane, waiter, waiter.items())
        return waiter

    def change(self, state: CircuitState, *, trials: int = 0, open_for: float = 0.0) -> None:
        self.circuit.state, self.circuit.trials, self.circuit.open_for = state, trials, open_for
        self.dispatcher.poke_endpoint("main")


def test_an_open_circuit_sends_nothing_and_says_when_to_come_back() -> None:
    async def main() -> None:
        place = Place()
        place.change(CircuitState.OPEN, open_for=12.5)
        waiter = place.submit(Recorder(["x"]))
        await waiter.done.wait()
        assert waiter.error is not None
        assert (waiter.error.code, waiter.error.retry_after_ms) == ("provider_unavailable", 12_501)
        assert "circuit is open for another 12.5 s" in waiter.error.message
        assert [(a.reason, a.ms) for a in waiter.attempts] == [("circuit_open", 0)]
        assert waiter.fault is ProviderFault.CIRCUIT_OPEN
        assert place.provider.calls == []
        assert waiter.charged == {}

    run(main())


def test_when_a_circuit_opens_all_that_is_queued_leaves_at_once() -> None:
    async def main() -> None:
        place = Place(max_inputs=2, concurrency=1)
        moved: list[Item] = []
        goes = place.submit(Recorder([f"x{i}" for i in range(9)], submit=lambda w, items: moved.extend(items)))
        stays = place.submit(Recorder(["y"], agent="b"))
        await asyncio.sleep(0.01)
        place.change(CircuitState.OPEN, open_for=5.0)
        await asyncio.sleep(0.01)
        sent = {text for call in place.provider.calls for text in call.texts}
        assert {item.text for item in moved} == set(goes.texts) - sent
        assert stays.error is not None or "y" in sent
        assert place.dispatcher.queued_texts == 0
        await asyncio.sleep(0.2)
        assert set(goes.rows) == {i for i, t in enumerate(goes.texts) if t in sent}, "the call under way is not lost"

    run(main())


def test_a_half_open_circuit_lets_its_trials_through_and_the_others_wait_for_it_to_close() -> None:
    async def main() -> None:
        place = Place(max_inputs=1)
        place.change(CircuitState.HALF_OPEN, trials=3)
        waiters = [place.submit(Recorder([f"t{i}"], agent=str(i))) for i in range(50)]
        await asyncio.sleep(0.05)
        assert len(place.provider.calls) == 3
        await asyncio.sleep(1.0)
        assert len(place.provider.calls) == 3
        place.change(CircuitState.CLOSED)
        for waiter in waiters:
            await waiter.done.wait()
            waiter.check()
        assert len(place.provider.calls) == 50
        assert place.circuit.out == 0

    run(main())


def test_lanes_of_one_endpoint_share_the_trials() -> None:
    async def main() -> None:
        place = Place()
        place.change(CircuitState.HALF_OPEN, trials=1)
        first, second = Recorder(["a"]), Recorder(["b"])
        place.submit(first)
        place.dispatcher.submit(place.other, second, second.items())
        await asyncio.sleep(0.05)
        assert len(place.provider.calls) == 1
        place.circuit.trials = 1
        await first.done.wait()
        await second.done.wait()
        assert len(place.provider.calls) == 2

    run(main())


def test_texts_that_wait_in_a_half_open_circuit_leave_when_it_opens_again() -> None:
    async def main() -> None:
        place = Place()
        place.change(CircuitState.HALF_OPEN, trials=0)
        waiter = place.submit(Recorder(["a"]))
        await asyncio.sleep(1.0)
        assert not waiter.done.is_set()
        place.change(CircuitState.OPEN, open_for=3.0)
        await waiter.done.wait()
        assert waiter.fault is ProviderFault.CIRCUIT_OPEN

    run(main())


@pytest.mark.parametrize("fault", [ProviderFault.SERVER, ProviderFault.RATE_LIMITED, ProviderFault.REFUSED])
def test_the_breaker_sees_the_providers_own_error(fault: ProviderFault) -> None:
    async def main() -> None:
        error = ProviderError(fault, "as scripted")
        place = Place(FakeProvider(0.01, lambda call, number: error if number == 1 else None))
        waiter = place.submit(Recorder(["a"]))
        await waiter.done.wait()
        assert place.circuit.ends[0] is error
        assert place.circuit.out == 0

    run(main())


def test_a_hang_and_an_answer_of_no_use_are_errors_to_the_breaker_too() -> None:
    async def main() -> None:
        place = Place(FakeProvider(1e6))
        place.submit(Recorder(["a"], deadline=asyncio.get_running_loop().time() + 1))
        await asyncio.sleep(10)
        place.provider.latency = 0.01
        place.provider.tamper = lambda rows: rows * float("nan")
        place.submit(Recorder(["b"]))
        await asyncio.sleep(10)
        faults = [e.fault for e in place.circuit.ends if isinstance(e, ProviderError)]
        assert faults[0] is ProviderFault.TIMEOUT
        assert faults[1] is ProviderFault.BAD_ANSWER

    run(main())


def test_a_permit_is_not_taken_for_texts_that_are_too_late_to_be_sent() -> None:
    async def main() -> None:
        place = Place(concurrency=1)
        place.submit(Recorder(["a"]))
        await asyncio.sleep(0.01)
        late = place.submit(Recorder(["b"], deadline=asyncio.get_running_loop().time() + 0.05))
        await late.done.wait()
        assert late.error is not None
        assert late.error.code == "deadline_exceeded"
        assert len(place.circuit.ends) == 1
        assert place.circuit.out == 0

    run(main())
