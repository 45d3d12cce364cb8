"""What the dispatcher costs per text and per request, without a provider's work: `python -m tests.benchmarks.bench_dispatch`.

Packing: take texts from the fair queue. End to end: submit, pack, one call to a provider that answers at once with a prepared
array, fill and flush of a waiter that does nothing. CPU time of this process, best of several runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
import uvloop
from numpy.typing import NDArray

from domain.catalogue import Candidate, Endpoint, Model, Offering, Price
from domain.errors import GatewayError
from domain.events import Attempt
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.fairness import FairQueue
from gateway.dispatch.flights import Flight, Load
from gateway.dispatch.ports import CallReport, Item

ROUNDS = 5


class Instant:
    """A provider that answers at once."""

    def __init__(self) -> None:
        self.vectors = np.full((2048, 1536), 1536**-0.5, np.float32)
        self.calls = 0

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        self.calls += 1
        return EmbedAnswer(vectors=self.vectors[: len(call.texts)])

    async def warm_up(self) -> None:
        return None

    async def check(self, timeout: float) -> None:
        return None

    async def close(self) -> None:
        return None


class Nobody:
    """A waiter that only counts."""

    __slots__ = ("agent", "deadline", "left", "tenant", "tries")
    pending = 0

    def __init__(self, tenant: str, agent: str) -> None:
        self.tenant = tenant
        self.agent = agent
        self.deadline = 1e18
        self.tries = 0

    def charge(self, index: int, tokens: int, candidate: Candidate) -> None:
        return None

    def wasted(self, index: int, tokens: int, candidate: Candidate) -> None:
        return None

    def counted(self, index: int, tokens: int) -> None:
        return None

    def elsewhere(self, fault: ProviderFault, endpoint: str) -> bool:
        return False

    def hand_over(self, indexes: list[int], error: ProviderError, attempts: tuple[Attempt, ...]) -> None:
        raise AssertionError(error.detail)

    def fill(self, index: int, row: NDArray[np.float32]) -> None:
        return None

    def flush(self, report: CallReport) -> None:
        Nobody.pending -= 1

    def fail(self, error: GatewayError, attempts: tuple[Attempt, ...], fault: ProviderFault | None = None) -> None:
        raise AssertionError(error.message)


def candidate(max_inputs: int) -> Candidate:
    """An offering with this cap."""
    return Candidate(
        endpoint=Endpoint("main", "fake", {"m": "m"}),
        model=Model("m", "1", 1536, 8191, None, True, 1),
        offering=Offering("m", "fake", "m", Price("p", 0), max_inputs, 300_000),
        provider_model="m",
        max_inputs=max_inputs,
        max_tokens_per_call=300_000,
    )


def best(run: Callable[[], float]) -> float:
    """The least of several runs."""
    return min(run() for _ in range(ROUNDS))


def packing(per_call: int, tenants: int, agents: int) -> float:
    """µs per text to take calls from a queue of 40,960 texts."""
    queue = FairQueue(per_call, 300_000)
    total = 40_960
    for i in range(total):
        home = queue.queue_of(f"t{i % tenants}", f"a{i // tenants % agents}", Load())
        queue.add(Flight(b"", "x", 40, 0.0, home, None, 0), 0.0)
    start = time.process_time()
    while queue.texts:
        queue.take()
    return (time.process_time() - start) / total * 1e6


async def end_to_end(requests: int, texts: int, per_call: int) -> tuple[float, float]:
    """µs per text, and texts per call, for `requests` submitted together again and again."""
    provider = Instant()
    dispatcher = Dispatcher({"main": provider})
    lane = dispatcher.lane(candidate(per_call), None, None)
    repeat = max(1, 40_000 // (requests * texts))
    spent = 0.0
    for n in range(repeat):
        batches = [
            [Item(i, f"{n}/{r}/{i}".encode(), "some text of forty tokens", 40) for i in range(texts)]
            for r in range(requests)
        ]
        waiters = [Nobody(f"t{r % 8}", f"a{r}") for r in range(requests)]
        start = time.process_time()
        for _ in waiters:
            lane.announce()
        for waiter, items in zip(waiters, batches, strict=True):
            dispatcher.submit(lane, waiter, items)
        while dispatcher.open_requests:
            await asyncio.sleep(0)  # everything of it runs on this loop, and nothing waits for time
        spent += time.process_time() - start
    await dispatcher.close()
    count = repeat * requests * texts
    return spent / count * 1e6, count / provider.calls


def main() -> None:
    """Print the table."""
    for per_call in (64, 2048):
        for tenants, agents in ((1, 1), (8, 8), (16, 64)):
            cost = best(lambda p=per_call, t=tenants, a=agents: packing(p, t, a))  # type: ignore[misc] # bound by default
            print(f"packing, {per_call} texts a call, {tenants} tenants x {agents} agents: {cost:.2f} us per text")
    for requests, texts, per_call in (
        (64, 1, 2048),
        (2048, 1, 2048),
        (1, 1, 2048),
        (1, 64, 2048),
        (1, 2048, 2048),
        (1, 2048, 64),
    ):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runs = [runner.run(end_to_end(requests, texts, per_call)) for _ in range(ROUNDS)]
        cost, size = min(runs)
        print(
            f"end to end, {requests} requests of {texts} texts, cap {per_call}: {cost:.2f} us per text, "
            f"{cost * texts:.1f} us per request, {size:.0f} texts a call"
        )


if __name__ == "__main__":
    main()
