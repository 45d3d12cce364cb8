"""Any mix of requests, caps, splits, cache hits, duplicates, endpoints and failures gives each caller exactly its own vectors, and adds up."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from hashlib import blake2b
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adapters.appender import Appender
from adapters.breaker import CircuitPolicy
from adapters.memory.event_log import MemoryEventLog
from adapters.memory.vector_cache import OVERHEAD, LruVectorCache
from domain.catalogue import Catalogue, Endpoint, Model, Offering, Price
from domain.decoding import decode_data
from domain.errors import GatewayError
from domain.events import (
    EmbeddingFailed,
    EmbeddingGenerated,
    EmbeddingReembedded,
    EmbeddingRequested,
    EventData,
    PriceSet,
)
from domain.plane import ControlPlane
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault, Text
from domain.tenancy import Principal
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.division import divide_tokens
from gateway.dispatch.limits import DispatchLimits
from gateway.endpoints.breakers import Breakers
from gateway.endpoints.router import Router
from gateway.service.pending import Pending
from gateway.service.sending import Sending
from gateway.service.service import RequestService, Ticket
from gateway.service.vectors import Vectors
from gateway.telemetry.metrics import RequestMetrics
from gateway.wire.messages import EmbeddingGenerate
from tests.unit.dispatch.virtual_time import run
from tests.unit.service.conftest import Recorder, Words
from tests.unit.service.test_sending import Held, Holds

SIZE = 8
PICO = {"p": 20_000, "q": 50_000, "r": 70_000}
PLACES = {"a": "p", "b": "q", "c": "r"}
"""Endpoints by provider: `m` and `w` are at a (first in line) and b, `n` at c."""
TENANTS = ("t", "u")
WORDS = [*(f"{'x ' * (i % 4)}w{i}" for i in range(16)), "refused", "deadly at a", "too long"]
PLENTY_MS = 100_000
"""A deadline that nobody has to meet."""
ESTIMATED = "w"
"""The model without a tokeniser, whose texts the providers count."""
PASSING = [
    ProviderFault.SERVER,
    ProviderFault.TIMEOUT,
    ProviderFault.CONNECTION,
    ProviderFault.RATE_LIMITED,
    ProviderFault.BAD_ANSWER,
    ProviderFault.AUTHENTICATION,
]


class Ask(msgspec.Struct, frozen=True):
    """One request; `again`: the one before is sent once more instead. Times in seconds, None: never."""

    tenant: str
    agent: str
    texts: tuple[str, ...]
    model: str
    options: dict[str, Any]
    gap: float
    cancelled_after: float | None
    again: bool


class World(msgspec.Struct, frozen=True):
    """A run: requests, caps, what the providers do to their first calls, how they count tokens, how much the cache holds."""

    asks: tuple[Ask, ...]
    max_inputs: int
    max_tokens: int
    concurrency: int
    latency: float
    faults: dict[str, tuple[ProviderFault | None, ...]]
    retry_after: float | None
    provider_cap: int
    usage: str
    cached: int


times = st.sampled_from([0.0, 0.0, 0.001, 0.004, 0.03, 0.2, 1.5])
options = st.fixed_dictionaries(
    {},
    optional={
        "failover": st.sampled_from(["any", "none", "same_space"]),
        "stream": st.just(True),
        "cache": st.sampled_from(["refresh", "off"]),
        "dimensions": st.just(4),
        "input_type": st.sampled_from(["query", "classification"]),
        "deadline_ms": st.sampled_from([10, 300, 3000, PLENTY_MS]),
    },
)
asks = st.builds(
    Ask,
    tenant=st.sampled_from(TENANTS),
    agent=st.sampled_from(["one", "two"]),
    texts=st.lists(st.sampled_from([*WORDS[:16], *WORDS]), min_size=1, max_size=9).map(tuple),
    model=st.sampled_from(["m", "m", ESTIMATED]),
    options=options,
    gap=times,
    cancelled_after=st.one_of(st.none(), st.none(), st.none(), times),
    again=st.sampled_from([False, False, False, True]),
)
faults = st.lists(st.one_of(st.none(), st.sampled_from(PASSING)), max_size=7).map(tuple)
worlds = st.builds(
    World,
    asks=st.lists(asks, min_size=1, max_size=12).map(tuple),
    max_inputs=st.sampled_from([1, 2, 4, 64]),
    max_tokens=st.sampled_from([4, 40, 100_000]),
    concurrency=st.sampled_from([1, 2, 8]),
    latency=st.sampled_from([0.0, 0.02, 0.25]),
    faults=st.fixed_dictionaries({"a": faults, "b": faults, "c": st.just(())}),
    retry_after=st.sampled_from([None, 0.1, 2.0, 500.0]),
    provider_cap=st.sampled_from([1, 3, 1000, 1000]),
    usage=st.sampled_from(["call", "text", "none"]),
    cached=st.sampled_from([0, 3, 1000]),
)


def vector_of(model: str, input_type: str | None, text: str) -> NDArray[np.float32]:
    """The one right vector of a text in a space of `SIZE`; smaller ones are its beginning."""
    return np.frombuffer(blake2b(f"{model} {input_type} {text}".encode(), digest_size=SIZE).digest(), np.uint8).astype(
        np.float32
    )


def words(text: Text) -> int:
    """What a provider counts; never more than our estimate."""
    return Words().count(str(text))


class Place:
    """The provider at one endpoint, with the calls that it answered and what it said they were."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.answered: list[tuple[EmbedCall, int]] = []
        self.calls = 0
        self._world = world

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        world, self.calls = self._world, self.calls + 1
        number = self.calls
        assert len(call.texts) <= world.max_inputs
        await asyncio.sleep(world.latency)
        error = self._error(call, number)
        if error is not None:
            raise error
        size = SIZE if call.dimensions is None else call.dimensions
        vectors = np.stack([vector_of(call.model, call.input_type, str(text))[:size] for text in call.texts])
        each = [words(text) for text in call.texts]
        self.answered.append((call, sum(each)))
        if world.usage == "none":
            return EmbedAnswer(vectors)
        return EmbedAnswer(vectors, sum(each), each if world.usage == "text" else None)

    def _error(self, call: EmbedCall, number: int) -> ProviderError | None:
        faults = self._world.faults[self.name]
        if number <= len(faults) and (fault := faults[number - 1]) is not None:
            after = self._world.retry_after if fault is ProviderFault.RATE_LIMITED else None
            return ProviderError(fault, "as told", retry_after=after)
        if len(call.texts) > self._world.provider_cap:
            return ProviderError(ProviderFault.TOO_LARGE, "too many")
        if "too long" in call.texts:
            return ProviderError(ProviderFault.TOO_LONG, "too long", index=list(call.texts).index("too long"))
        if "refused" in call.texts:
            return ProviderError(ProviderFault.REFUSED, "not to our liking")
        if "deadly at a" in call.texts and self.name == "a":
            return ProviderError(ProviderFault.SERVER, "it died", status=500)
        return None

    async def warm_up(self) -> None:
        pass

    async def check(self, timeout: float) -> None:
        pass

    async def close(self) -> None:
        pass


class Sent(msgspec.Struct, eq=False):
    """A request, and what its sender was told."""

    tenant: str
    message: EmbeddingGenerate
    reply: Recorder
    ticket: Ticket | None
    cancelled: bool


def catalogue(world: World) -> Catalogue:
    models = [
        Model(
            name, "1", SIZE, max_tokens=1000, tokenizer=None if name == ESTIMATED else "words", unit=False, rank=rank,
            dimensions_range=(1, SIZE),
        )
        for rank, name in enumerate(("m", ESTIMATED, "n"), 1)
    ]  # fmt: skip
    offerings = [
        Offering(m, p, m, Price(f"{m}-{p}", PICO[p]), world.max_inputs, world.max_tokens, sends_dimensions=p == "p")
        for m, p in (("m", "p"), ("m", "q"), (ESTIMATED, "p"), (ESTIMATED, "q"), ("n", "r"))
    ]
    served = {"a": {"m": "", ESTIMATED: ""}, "b": {"m": "", ESTIMATED: ""}, "c": {"n": ""}}
    endpoints = [
        Endpoint(name, PLACES[name], models_, weight=5 if name == "a" else 1, max_concurrency=world.concurrency)
        for name, models_ in served.items()
    ]
    return Catalogue(models, offerings, endpoints)


async def play(world: World) -> list[Sent]:
    """Run the world and check it."""
    loop = asyncio.get_running_loop()
    log, catalogued, plane = MemoryEventLog(), catalogue(world), ControlPlane()
    for offering in catalogued_offerings(catalogued):
        plane.prices.apply(
            PriceSet(
                price=offering.price.id, model=offering.model, provider=offering.provider, effective_from=0,
                unit_pico_usd=PICO[offering.provider],
            )
        )  # fmt: skip
    instance = await log.register_instance("world", 10**9)
    appender = Appender(log, instance)
    places = {name: Place(name, world) for name in PLACES}
    breakers = Breakers(
        {}, CircuitPolicy(3, 1.0, 1, 1), lambda *_: None, instance=lambda: "world", clock=loop.time, wall=loop.time
    )
    dispatcher = Dispatcher(places, limits=DispatchLimits(), breakers=breakers.of, rng=Random(1))
    breakers.on_change(dispatcher.poke_endpoint)
    holds = Holds()
    service = RequestService(
        log=log,
        appender=appender,
        dispatcher=dispatcher,
        catalogue=lambda: catalogued,
        prices=plane.prices,
        plane=plane,
        tenant_keys={tenant: tenant.encode() * 32 for tenant in TENANTS},
        tokenizer_of=lambda model: None if model == ESTIMATED else Words(),
        lru=LruVectorCache(world.cached * (SIZE * 4 + OVERHEAD), 3600, loop.time),
        shared_cache=None,
        metrics=RequestMetrics(),
        instance=str(instance),
        gates=[holds],
        dry_gates=[holds],
        router=Router(breaker_of=breakers.of, load=dispatcher.load, paused=dispatcher.paused),
    )
    service.sending._rng = Random(1)
    sent: list[Sent] = []
    for number, ask in enumerate(world.asks):
        sent.append(one := send(service, ask, number, sent))
        if ask.cancelled_after is not None and one.ticket is not None:
            loop.call_later(ask.cancelled_after, cancel, one)
        await asyncio.sleep(ask.gap)
    await asyncio.sleep(2000)

    cancelled = {one.message.id for one in sent if one.cancelled}
    for one in sent:
        check_told(one, one.message.id in cancelled)
    assert service.in_flight == dispatcher.open_requests == dispatcher.queued_texts == dispatcher.queued_tokens == 0
    assert [dispatcher.load(name) for name in places] == [0] * 3
    assert not holds.live
    stored = [decode_data(e.type, e.data, e.schema_version) for e in await log.read(0, 10_000)]
    check_each_attempt(stored)
    check_sums(world, stored, places)
    await service.close()
    await dispatcher.close()
    await appender.close()
    return sent


def catalogued_offerings(catalogued: Catalogue) -> list[Offering]:
    return [candidate.offering for model in catalogued.models for candidate in catalogued.candidates(model)]


def send(service: RequestService, ask: Ask, number: int, before: list[Sent]) -> Sent:
    if ask.again and before:
        tenant, message = before[-1].tenant, before[-1].message
    else:
        tenant = ask.tenant
        message = EmbeddingGenerate(id=f"r{number}", input=list(ask.texts), model=ask.model, **ask.options)
    one = Sent(tenant, message, Recorder(), None, False)
    try:
        principal = Principal(tenant, tenant, frozenset({"agent"}))
        one.ticket = service.generate(principal, ask.agent, message, list(message.input), one.reply)
    except GatewayError as error:
        one.reply.error(error)
    return one


def cancel(one: Sent) -> None:
    if not one.reply.done.is_set():
        one.cancelled = True
        assert one.ticket is not None
        one.ticket.cancel()


def check_told(one: Sent, cancelled: bool) -> None:
    """One end; and its own vectors, of the space that is named. With `cancelled` somebody has given its id up."""
    message, reply = one.message, one.reply
    assert reply.done.is_set(), "nobody is left without an answer"
    if reply.refusal is not None:
        codes = {"provider_unavailable", "provider_error", "input_too_long", "result_expired"}
        codes |= {"cancelled"} if cancelled else set()
        codes |= {"deadline_exceeded"} if (message.deadline_ms or PLENTY_MS) < PLENTY_MS else set()
        assert reply.refusal.code in codes, reply.refusal
        details = reply.refusal.details or {}
        if reply.refusal.code in ("provider_error", "input_too_long") and "index" in details:
            assert message.input[details["index"]] in ("refused", "too long", "deadly at a"), reply.refusal
        return
    answer = reply.answer
    assert answer is not None
    assert answer.model == message.model or message.failover == "any"
    size = message.dimensions or SIZE
    space = f"{answer.model}@1/{size}/raw" + ("/classification" if message.input_type == "classification" else "")
    assert answer.space == space
    rows = reply.streamed if message.stream else reply.rows
    expected = np.stack([vector_of(answer.model, message.input_type, text)[:size] for text in message.input])
    assert rows is not None
    assert np.array_equal(rows, expected), "its own vectors, in its order"


def check_each_attempt(stored: list[EventData]) -> None:
    """Each has one outcome, within what it reserved; of an id, one is billed."""
    requested = {(e.request_id, e.attempt): e for e in stored if isinstance(e, EmbeddingRequested)}
    outcomes = [e for e in stored if isinstance(e, EmbeddingGenerated | EmbeddingFailed)]
    assert sorted((e.request_id, e.attempt) for e in outcomes) == sorted(requested)
    billed: dict[str, int] = defaultdict(int)
    for outcome in outcomes:
        reserved = requested[outcome.request_id, outcome.attempt]
        billed[outcome.request_id] += outcome.billed_tokens > 0
        assert outcome.billed_tokens <= reserved.reserved_tokens, "also where another model has answered"
        assert reserved.reserved_nano_usd is None or (outcome.nano_usd or 0) <= reserved.reserved_nano_usd
    assert all(count <= 1 for count in billed.values()), "one attempt of an id is billed, if any"


def check_sums(world: World, stored: list[EventData], places: dict[str, Place]) -> None:
    """What is billed, over all, is what was answered: nothing twice, nothing for free but what is our loss."""
    outcomes = [e for e in stored if isinstance(e, EmbeddingGenerated | EmbeddingFailed)]
    again = [e for e in stored if isinstance(e, EmbeddingReembedded)]
    calls = [(PLACES[name], call, tokens) for name, place in places.items() for call, tokens in place.answered]
    asked = {e.request_id: e.model for e in stored if isinstance(e, EmbeddingRequested)}
    stayed = all(isinstance(e, EmbeddingGenerated) and e.model == asked[e.request_id] for e in outcomes)
    if stayed and not again and len(outcomes) == len(asked):
        for model in ("m", ESTIMATED):
            billed = sum(e.billed_tokens for e in outcomes if e.model == model)
            answered = sum(tokens for _, call, tokens in calls if call.model == model)
            if model == ESTIMATED and world.usage == "none":
                assert billed >= answered
            else:
                assert billed == answered, f"{model}: what the callers pay for is what the providers answered, exactly"
    charged = sum(e.provider_nano_usd or 0 for e in (*outcomes, *again))
    assert charged * 1000 >= sum(tokens * PICO[provider] for provider, _, tokens in calls), "our cost covers every call"


PROFILE = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@PROFILE
@given(worlds)
def test_each_caller_gets_exactly_its_own_and_what_is_billed_adds_up(world: World) -> None:
    run(play(world))


WORLD = World(
    asks=(
        Ask("t", "one", ("w0", "x w1", "w0", "x x w2"), "m", {}, 0.0, None, False),
        Ask("t", "two", ("x x w2", "x x x w3", "w4"), "m", {}, 0.03, None, False),
        Ask("u", "one", ("w0", "x w5"), "m", {"stream": True}, 0.2, None, False),
        Ask("t", "two", ("w0", "x w9"), "m", {}, 0.2, None, False),
        Ask("u", "two", ("w8", "x w9", "w8"), ESTIMATED, {"cache": "off"}, 0.2, None, False),
    ),
    max_inputs=3,
    max_tokens=100,
    concurrency=2,
    latency=0.02,
    faults={"a": (None, ProviderFault.SERVER, ProviderFault.CONNECTION), "b": (), "c": ()},
    retry_after=None,
    provider_cap=1000,
    usage="call",
    cached=1000,
)
"""Splits, duplicates within and among requests, a hand-over, a cache hit, a stream, and texts that the provider counts."""


def test_the_check_passes_on_a_world_with_some_of_everything() -> None:
    sent = run(play(WORLD))
    answers = [one.reply.answer for one in sent]
    assert all(answer is not None for answer in answers)
    assert {answer.endpoint for answer in answers if answer is not None} == {"a", "b"}
    assert [answer.usage.billed_tokens for answer in answers if answer is not None] == [6, 5, 3, 2, 3]


class TestWhatTheCheckFinds:
    """Negative controls."""

    @pytest.fixture(autouse=True)
    def _found(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        yield  # what the test has broken is mended after this
        with pytest.raises(AssertionError):
            run(play(WORLD))

    def test_a_row_in_the_place_of_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fill = Pending.fill
        monkeypatch.setattr(Pending, "fill", lambda self, index, row: fill(self, index, row[::-1]))

    def test_a_text_that_pays_where_it_failed_and_where_it_was_answered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hand_over = Pending.hand_over

        def billed(self: Pending, indexes: list[int], *more: Any) -> None:
            for index in indexes:
                self.charge(index, self.tokens[index], self.candidate)
            hand_over(self, indexes, *more)

        monkeypatch.setattr(Pending, "hand_over", billed)

    def test_a_text_that_is_handed_over_and_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Sending, "hand_over", lambda *_: None)

    def test_a_count_of_the_provider_that_is_not_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.dispatch.calls.count", lambda *_: None)

    def test_parts_of_a_count_that_do_not_add_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "gateway.dispatch.division.divide_tokens",
            lambda total, weights: [p - 1 for p in divide_tokens(total, weights)],
        )

    def test_a_cached_vector_of_another_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keep = Vectors.keep
        monkeypatch.setattr(
            Vectors, "keep", lambda self, pending, indexes, rows: keep(self, pending, indexes, rows[::-1])
        )

    def test_a_hold_that_is_never_given_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Held, "release", lambda _: None)
