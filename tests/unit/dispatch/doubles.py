"""Doubles for the dispatcher's tests: providers whose vectors follow from the text, waiters that record, catalogue entries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from random import Random

import numpy as np
from numpy.typing import NDArray

from domain.catalogue import Candidate, Endpoint, Model, Offering, Price
from domain.errors import GatewayError
from domain.events import Attempt
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault, Text
from gateway.dispatch.context import CallOutcome
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.limits import DispatchLimits
from gateway.dispatch.ports import CallReport, Item

DIMENSIONS = 4

Script = Callable[[EmbedCall, int], ProviderError | None]


def vector_of(text: Text) -> NDArray[np.float32]:
    """The one right vector of a text."""
    digest = blake2b(repr(text).encode(), digest_size=DIMENSIONS).digest()
    return np.frombuffer(digest, np.uint8).astype(np.float32)


class FakeProvider:
    """Answers after `latency` seconds. `script(call, number)` may return an error to raise for a call; `tamper` may spoil an answer."""

    def __init__(
        self,
        latency: float = 0.1,
        script: Script | None = None,
        tamper: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    ) -> None:
        self.latency = latency
        self.script = script
        self.tamper = tamper
        self.calls: list[EmbedCall] = []
        self.answered: list[EmbedCall] = []
        self.sent_at: list[float] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        self.calls.append(call)
        number = len(self.calls)
        self.sent_at.append(asyncio.get_running_loop().time())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.latency > call.timeout:
                await asyncio.sleep(call.timeout)
                raise TimeoutError
            await asyncio.sleep(self.latency)
            error = self.script(call, number) if self.script else None
            if error is not None:
                raise error
        finally:
            self.in_flight -= 1
        self.answered.append(call)
        vectors = np.stack([vector_of(t) for t in call.texts])
        return EmbedAnswer(vectors=self.tamper(vectors) if self.tamper else vectors)

    async def warm_up(self) -> None:
        return None

    async def check(self, timeout: float) -> None:
        return None

    async def close(self) -> None:
        return None

    @property
    def sizes(self) -> list[int]:
        """Texts per call."""
        return [len(c.texts) for c in self.calls]


def poisoned(fault: ProviderFault, *texts: str, with_index: bool = False) -> Script:
    """A provider that objects to every call that holds one of `texts`."""

    def script(call: EmbedCall, number: int) -> ProviderError | None:
        bad = [i for i, t in enumerate(call.texts) if t in texts]
        return ProviderError(fault, "bad text", status=400, index=bad[0] if with_index else None) if bad else None

    return script


class Recorder:
    """A waiter that records what happens to it. `done` is set when it is whole or failed.

    With `submit` it knows of another place for its texts: what is handed over goes there, as long as there are tries left.
    """

    def __init__(
        self,
        texts: list[Text],
        *,
        tenant: str = "acme",
        agent: str = "a",
        deadline: float = 1e9,
        submit: Callable[[Recorder, list[Item]], None] | None = None,
    ) -> None:
        self.tenant = tenant
        self.agent = agent
        self.deadline = deadline
        self.texts = texts
        self.rows: dict[int, NDArray[np.float32]] = {}
        self.charged: dict[int, int] = {}
        self.reports: list[CallReport] = []
        self.error: GatewayError | None = None
        self.attempts: tuple[Attempt, ...] = ()
        self.done = asyncio.Event()
        self.unflushed = 0
        self.ended_at = 0.0
        self.tries = 0
        self.failed_calls: dict[int, int] = {}
        self.at = ""
        self.submit = submit
        self.handed_over: list[tuple[list[int], ProviderFault]] = []
        self.wastes: list[tuple[int, int, str]] = []
        self.counts: dict[int, int] = {}
        self.fault: ProviderFault | None = None

    def items(self) -> list[Item]:
        return [Item(i, key_of(self.tenant, t), t, tokens_of(t)) for i, t in enumerate(self.texts)]

    def charge(self, index: int, tokens: int, candidate: Candidate) -> None:
        assert self.error is None
        if tokens < 0:
            assert self.charged.pop(index) == -tokens, "what is taken back was never charged"
            return
        assert index not in self.charged
        self.charged[index] = tokens

    def wasted(self, index: int, tokens: int, candidate: Candidate) -> None:
        assert self.error is None
        assert index not in self.charged
        self.wastes.append((index, tokens, candidate.endpoint.name))

    def counted(self, index: int, tokens: int) -> None:
        assert index not in self.rows
        assert index not in self.counts
        self.counts[index] = tokens

    def elsewhere(self, fault: ProviderFault, endpoint: str) -> bool:
        return self.submit is not None

    def hand_over(self, indexes: list[int], error: ProviderError, attempts: tuple[Attempt, ...]) -> None:
        assert self.error is None
        assert self.submit is not None
        assert not set(indexes) & (set(self.rows) | set(self.charged)), "what leaves is neither answered nor paid for"
        self.handed_over.append((sorted(indexes), error.fault))
        for index in indexes:
            self.failed_calls[index] = self.failed_calls.get(index, 0) + len(attempts)
        self.tries = max(self.failed_calls[i] for i in indexes)
        wanted = set(indexes)
        self.submit(self, [i for i in self.items() if i.index in wanted])

    def fill(self, index: int, row: NDArray[np.float32]) -> None:
        assert index not in self.rows
        assert self.error is None
        self.rows[index] = row
        self.unflushed += 1

    def flush(self, report: CallReport) -> None:
        assert self.unflushed > 0
        self.unflushed = 0
        self.reports.append(report)
        if len(self.rows) == len(self.texts):
            self._end()

    def fail(self, error: GatewayError, attempts: tuple[Attempt, ...], fault: ProviderFault | None = None) -> None:
        assert self.error is None
        self.fault = fault
        assert len(self.rows) < len(self.texts)
        self.error = error
        self.attempts = attempts
        self._end()

    def _end(self) -> None:
        self.ended_at = asyncio.get_running_loop().time()
        self.done.set()

    def check(self) -> None:
        """Every row is the vector of its text."""
        for index, row in self.rows.items():
            np.testing.assert_array_equal(row, vector_of(self.texts[index]))


def key_of(tenant: str, text: Text) -> bytes:
    return blake2b(f"{tenant}\0{text!r}".encode(), digest_size=16).digest()


def tokens_of(text: Text) -> int:
    return max(1, len(text) // 4) if isinstance(text, str) else len(text)


def candidate(
    *,
    name: str = "main",
    model: str = "m",
    max_inputs: int = 2048,
    max_tokens: int = 300_000,
    concurrency: int = 8,
    timeout: float = 30.0,
    unit: bool = False,
    sends_dimensions: bool = False,
    config: dict[str, str] | None = None,
) -> Candidate:
    endpoint = Endpoint(name=name, provider="fake", models={model: model}, max_concurrency=concurrency, timeout=timeout)
    offering = Offering(
        model,
        "fake",
        model,
        Price("free", 0),
        max_inputs,
        max_tokens,
        sends_dimensions=sends_dimensions,
        config=config or {},
    )
    return Candidate(
        endpoint=endpoint,
        model=Model(model, "1", DIMENSIONS, 8191, None, unit, 1, dimensions_range=(1, DIMENSIONS)),
        offering=offering,
        provider_model=f"{model}-there",
        max_inputs=max_inputs,
        max_tokens_per_call=max_tokens,
    )


class Bench:
    """A dispatcher with one lane over a fake provider; `outcomes` is what its hook was told."""

    def __init__(
        self,
        provider: FakeProvider | None = None,
        *,
        where: Candidate | None = None,
        limits: DispatchLimits | None = None,
    ) -> None:
        self.provider = provider or FakeProvider()
        self.outcomes: list[CallOutcome] = []
        self.dispatcher = Dispatcher(
            {"main": self.provider}, limits=limits, on_call=self.outcomes.append, rng=Random(1)
        )
        self.lane = self.dispatcher.lane(where or candidate(max_inputs=64), None, None)

    def submit(self, *waiters: Recorder) -> None:
        for waiter in waiters:
            self.dispatcher.submit(self.lane, waiter, waiter.items())

    async def serve(self, *waiters: Recorder) -> None:
        """Submit and wait until each is whole or failed; then nothing may be left behind."""
        self.submit(*waiters)
        for waiter in waiters:
            await waiter.done.wait()
            waiter.check()
        await self.drained()

    async def drained(self) -> None:
        """Wait (in virtual time) until the last call has ended; then nothing may be left behind."""
        for _ in range(10_000):
            if not self.lane.flights and not self.dispatcher.calls_in_flight:
                break
            await asyncio.sleep(0.01)
        self.check_empty()

    def check_empty(self) -> None:
        assert self.dispatcher.queued_texts == self.dispatcher.queued_tokens == self.dispatcher.open_requests == 0
        assert not self.lane.flights
        assert self.lane.queue.texts == self.lane.queue.tokens == 0
