"""A request service on the in-memory log, a scripted provider and a real dispatcher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.appender import Appender
from adapters.memory.event_log import MemoryEventLog
from adapters.memory.vector_cache import LruVectorCache
from domain.catalogue import Catalogue, Endpoint, Model, Offering, Price
from domain.decoding import decode_data
from domain.errors import GatewayError
from domain.events import EventData, PriceSet
from domain.plane import ControlPlane
from domain.ports.breaker import Breaker
from domain.ports.provider import EmbedAnswer, EmbedCall, Text
from domain.ports.vector_cache import VectorCache
from domain.prices import PriceBook
from domain.tenancy import Principal
from gateway.collections.storing import Storing
from gateway.dispatch.dispatcher import Dispatcher
from gateway.service.service import Gate, RequestService, Ticket
from gateway.telemetry.metrics import RequestMetrics
from gateway.wire.messages import EmbeddingGenerate, EmbeddingResult

DIMENSIONS = 8
PRICE_PICO = 20_000


def vector_of(text: Text) -> NDArray[np.float32]:
    """A vector that only this text has."""
    seed = int.from_bytes(str(text).encode()[-8:].rjust(8, b"\0"), "big") % 2**63
    return np.random.default_rng([seed, len(str(text))]).standard_normal(DIMENSIONS).astype(np.float32)


class ScriptedProvider:
    """Answers with `vector_of`, unless `behaviour` says otherwise; keeps the calls it got. `gate` holds answers back when cleared."""

    def __init__(self) -> None:
        self.calls: list[list[Text]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.called = asyncio.Event()
        self.behaviour: Callable[[EmbedCall], None] | None = None

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        self.calls.append(list(call.texts))
        self.called.set()
        await self.gate.wait()
        if self.behaviour is not None:
            self.behaviour(call)
        return EmbedAnswer(np.stack([vector_of(t) for t in call.texts]))

    async def warm_up(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Words:
    """A tokeniser that counts words."""

    name = "words"

    def count(self, text: str) -> int:
        return max(1, len(text.split()))

    def count_many(self, texts: Any) -> list[int]:
        return [self.count(t) for t in texts]

    def truncate(self, text: str, max_tokens: int) -> str:
        return " ".join(text.split()[:max_tokens])


class Recorder:
    """A reply that keeps what it is told; `done` is set by the result or error."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.answer: EmbeddingResult | None = None
        self.rows: NDArray[np.float32] | None = None
        self.refusal: GatewayError | None = None
        self.chunks: list[tuple[int, NDArray[np.float32]]] = []
        self.ended = 0

    def chunk(self, offset: int, rows: NDArray[np.float32]) -> None:
        assert not self.done.is_set()
        self.chunks.append((offset, rows))

    def result(self, result: EmbeddingResult, rows: NDArray[np.float32] | None) -> None:
        self.answer, self.rows = result, rows
        self._end()

    def error(self, error: GatewayError) -> None:
        self.refusal = error
        self._end()

    def _end(self) -> None:
        self.ended += 1
        assert self.ended == 1, "a reply ends once"
        self.done.set()

    async def wait(self) -> Recorder:
        async with asyncio.timeout(10):
            await self.done.wait()
        return self

    @property
    def streamed(self) -> NDArray[np.float32]:
        """The rows of all chunks in order; they must neither overlap nor leave a gap."""
        ordered = sorted(self.chunks, key=lambda c: c[0])
        at = 0
        for offset, rows in ordered:
            assert offset == at
            at += len(rows)
        return np.concatenate([rows for _, rows in ordered])


@dataclass
class Rig:
    """The service and what it stands on."""

    service: RequestService
    log: MemoryEventLog
    appender: Appender
    provider: ScriptedProvider
    lru: LruVectorCache
    metrics: RequestMetrics
    catalogue: Catalogue
    prices: PriceBook
    principal: Principal = field(default_factory=lambda: Principal("k1", "acme", frozenset({"agent"})))

    def send(
        self,
        texts: str | list[str],
        *,
        id: str = "r1",  # noqa: A002 (the wire's own name)
        agent: str = "a1",
        **options: Any,
    ) -> tuple[Recorder, Ticket]:
        """Send a request as a session would."""
        message = EmbeddingGenerate(id=id, input=texts, **options)
        reply = Recorder()
        listed = [texts] if isinstance(texts, str) else texts
        return reply, self.service.generate(self.principal, agent, message, listed, reply)

    async def ask(self, texts: str | list[str], **options: Any) -> Recorder:
        """Send and wait for the end."""
        reply, _ = self.send(texts, **options)
        return await reply.wait()

    async def events(self, kind: str | None = None) -> list[EventData]:
        """The log's events in order, of one type or of all."""
        stored = await self.log.read(0, 10_000)
        return [decode_data(e.type, e.data, e.schema_version) for e in stored if kind in (None, e.type)]


def make_catalogue(max_inputs: int = 16) -> Catalogue:
    model = Model(
        "m", "1", DIMENSIONS, max_tokens=20, tokenizer="words", unit=False, rank=1, dimensions_range=(1, DIMENSIONS)
    )
    offering = Offering("m", "p", "m", Price("price-1", PRICE_PICO), max_inputs=max_inputs, max_tokens_per_call=1000)
    return Catalogue([model], [offering], [Endpoint("e", "p", {"m": ""})])


def make_prices() -> PriceBook:
    prices = PriceBook()
    prices.apply(PriceSet(price="price-1", model="m", provider="p", effective_from=0, unit_pico_usd=PRICE_PICO))
    return prices


async def make_rig(
    log: MemoryEventLog | None = None,
    gates: Sequence[Gate] = (),
    dry_gates: Sequence[Gate] = (),
    prices: PriceBook | None = None,
    shared: VectorCache | None = None,
    breakers: Callable[[Endpoint], Breaker] | None = None,
    provider: ScriptedProvider | None = None,
    max_inputs: int = 16,
    storing: Storing | None = None,
) -> Rig:
    log = log or MemoryEventLog()
    instance = await log.register_instance("test", 60)
    appender, provider, catalogue = Appender(log, instance), provider or ScriptedProvider(), make_catalogue(max_inputs)
    lru = LruVectorCache(10_000_000, 3600, time.monotonic)
    metrics, plane = RequestMetrics(), ControlPlane()
    plane.prices = prices = prices or make_prices()
    service = RequestService(
        log=log,
        appender=appender,
        dispatcher=Dispatcher({"e": provider}, breakers=breakers),
        catalogue=lambda: catalogue,
        prices=prices,
        plane=plane,
        tenant_keys={"acme": b"k" * 32, "globex": b"g" * 32},
        tokenizer_of=lambda _: Words(),
        lru=lru,
        shared_cache=shared,
        metrics=metrics,
        instance=str(instance),
        gates=gates,
        dry_gates=dry_gates,
        storing=storing,
    )
    return Rig(service, log, appender, provider, lru, metrics, catalogue, prices)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = await make_rig()
    yield made
    await made.service.close()
    await made.appender.close()
