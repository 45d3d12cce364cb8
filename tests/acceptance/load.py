"""Agents of our own client that keep a gateway busy and check that every one of them gets exactly its own vectors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np

from emberlog_client import Client, Result
from gateway.bench.vectors import vector_of
from tests.acceptance.provider import DIMENSIONS, MODEL

SHARED_TEXTS = 40
DEADLINE = 120.0


@dataclass(frozen=True)
class Answered:
    """A request and what its caller was given."""

    texts: list[str]
    result: Result


class Load:
    """`agents` clients with `pipelined` requests each, every one of its own texts and one that others ask for too.

    Every second request is a stream. Any error that a caller sees ends the load and is raised by `running`; `max_attempts` 1 counts
    those as well that the client would have got over by itself.
    """

    def __init__(
        self, url: str, key: str, name: str, *, agents: int = 4, pipelined: int = 4, max_attempts: int = 5
    ) -> None:
        self.url = url
        self._key = key
        self._name = name
        self._agents = agents
        self._pipelined = pipelined
        self._max_attempts = max_attempts
        self._stop = False
        self._news = asyncio.Condition()
        self.answered: dict[str, Answered] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The agents at work; at the end each finishes what it has begun."""
        async with asyncio.TaskGroup() as group:
            for agent in range(self._agents):
                group.create_task(self._agent(agent))
            try:
                yield
            finally:
                self._stop = True

    async def more(self, count: int, within: float = 60.0) -> None:
        """Wait until so many further requests have been answered."""
        goal = len(self.answered) + count
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: len(self.answered) >= goal)

    async def _agent(self, agent: int) -> None:
        name = f"{self._name}-{agent}"
        async with (
            Client(
                self.url, self._key, agent=name, connect_timeout=60, max_attempts=self._max_attempts, proxy=None
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for worker in range(self._pipelined):
                group.create_task(self._work(client, f"{name}-{worker}"))

    async def _work(self, client: Client, name: str) -> None:
        number = 0
        while not self._stop:
            number += 1
            request = f"{name}-{number}"
            texts = [f"{request} first", f"shared {number % SHARED_TEXTS}", f"{request} last"]
            result = await (self._streamed if number % 2 else self._whole)(client, request, texts)
            async with self._news:
                self.answered[request] = Answered(texts, result)
                self._news.notify_all()

    async def _whole(self, client: Client, request: str, texts: list[str]) -> Result:
        result = await client.generate(texts, id=request, model=MODEL, dimensions=DIMENSIONS, deadline=DEADLINE)
        check_vectors(texts, result.float32(), request)
        return result

    async def _streamed(self, client: Client, request: str, texts: list[str]) -> Result:
        rows = np.full((len(texts), DIMENSIONS), np.nan, dtype=np.float32)
        stream = client.stream(texts, id=request, model=MODEL, dimensions=DIMENSIONS, deadline=DEADLINE)
        async for chunk in stream:
            rows[chunk.offset : chunk.offset + chunk.count] = chunk.vectors
        check_vectors(texts, rows, request)
        return stream.result

    async def resend(self, every: int = 1) -> int:
        """Ask for every n-th answered request again: the same event, usage, cost and vectors, as a replay. Returns how many."""
        chosen = list(self.answered.items())[::every]
        async with Client(self.url, self._key, agent="resender", proxy=None) as client:
            await asyncio.gather(*(self._again(client, name, first) for name, first in chosen))
        return len(chosen)

    async def _again(self, client: Client, name: str, first: Answered) -> None:
        again = await client.generate(first.texts, id=name, model=MODEL, dimensions=DIMENSIONS, deadline=DEADLINE)
        check_vectors(first.texts, again.float32(), name)
        assert again.replayed, f"{name}: a resend was not answered as a replay"
        before, after = first.result, again
        assert (before.events, before.usage, before.cost) == (after.events, after.usage, after.cost), name


def check_vectors(texts: list[str], rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]], name: str) -> None:
    """Each row is the provider's vector of its text."""
    for index, (text, row) in enumerate(zip(texts, rows, strict=True)):
        wanted = vector_of(text, DIMENSIONS)
        assert np.array_equal(row, wanted), f"{name}: row {index} is not the vector of its text"
