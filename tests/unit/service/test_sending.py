"""A request among several endpoints and models: where it goes, where it goes on to, what it is billed, what it tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from adapters.appender import Appender
from adapters.memory.event_log import MemoryEventLog
from adapters.memory.vector_cache import LruVectorCache
from domain.catalogue import Candidate, Catalogue, Endpoint, Model, Offering, Price
from domain.errors import GatewayError
from domain.events import (
    EmbeddingFailed,
    EmbeddingGenerated,
    EmbeddingReembedded,
    EmbeddingRequested,
    PriceSet,
    TenantConfigured,
)
from domain.plane import ControlPlane
from domain.ports.breaker import CircuitState, Permit
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from domain.prices import PriceBook
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.limits import DispatchLimits
from gateway.endpoints.router import Router
from gateway.service.pending import Pending
from gateway.service.service import RequestService
from gateway.telemetry.metrics import RequestMetrics
from gateway.wire.messages import EmbeddingGenerate
from tests.unit.service.conftest import DIMENSIONS, PRICE_PICO, Recorder, Rig, ScriptedProvider, Words, vector_of

LIMITS = DispatchLimits(backoff=0.001, backoff_cap=0.002, regather=0.0)
DEAR_PICO = 50_000


def failing(fault: ProviderFault, times: int = 10**9, **more: Any) -> Callable[[EmbedCall], None]:
    """A provider's behaviour: so many calls fail."""
    left = [times]

    def behave(call: EmbedCall) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise ProviderError(fault, "as told", **more)

    return behave


class Circuit:
    """A breaker that stands as told."""

    def __init__(self) -> None:
        self.state = CircuitState.CLOSED
        self.open_for = 0.0

    def would_admit(self) -> bool:
        return self.state is CircuitState.CLOSED

    def admit(self) -> Permit | None:
        return self if self.would_admit() else None  # type: ignore[return-value]

    async def run(self, work: Callable[[], Any]) -> Any:
        return await work()

    def give_back(self) -> None:
        pass

    def open(self) -> None:
        self.state, self.open_for = CircuitState.OPEN, 30.0


class Probes:
    """Attests endpoints as told, and keeps who was asked about."""

    def __init__(self) -> None:
        self.standing: dict[str, str] = {}
        self.asked: list[str] = []
        self.outcome: Callable[[str], None] = lambda _: None

    def state(self, endpoint: Endpoint, space: str) -> str:
        return self.standing.get(endpoint.name, "attested")

    async def ensure(self, candidate: Candidate, size: int, input_type: str | None) -> None:
        self.asked.append(candidate.endpoint.name)
        await asyncio.sleep(0)
        self.outcome(candidate.endpoint.name)
        self.standing[candidate.endpoint.name] = "attested"


class Holds:
    """A gate that notes what each request holds, of which model."""

    def __init__(self) -> None:
        self.live: list[Held] = []
        self.refuses: dict[str, Exception] = {}

    def __call__(self, pending: Pending) -> None:
        model = pending.selection.model.id
        if model in self.refuses:
            raise self.refuses[model]
        if pending.hold is None:
            held = Held(self, model)
            self.live.append(held)
            pending.hold = held


class Held:
    remaining = None

    def __init__(self, holds: Holds, model: str) -> None:
        self.holds = holds
        self.model = model

    def settle(self, data: Any) -> None:
        assert data.model == self.model, "what is held is of the model that is billed"
        self.release()

    def release(self) -> None:
        if self in self.holds.live:
            self.holds.live.remove(self)


class Site(Rig):
    """Model `m` at the endpoints a (weight 2) and b, of providers p and q; model `n` at c, of provider p."""

    providers: dict[str, ScriptedProvider]
    circuits: dict[str, Circuit]
    probes: Probes
    holds: Holds
    plane: ControlPlane


def catalogue(*more: Endpoint, **endpoint: Any) -> Catalogue:
    models = [
        Model(
            i, "1", DIMENSIONS, max_tokens=20, tokenizer="words", unit=False, rank=r, dimensions_range=(1, DIMENSIONS)
        )
        for i, r in (("m", 1), ("n", 2))
    ]
    offerings = [
        Offering(m, p, m, Price(f"{m}-{p}", PRICE_PICO), max_inputs=16, max_tokens_per_call=1000)
        for m, p in (("m", "p"), ("m", "q"), ("n", "p"))
    ]
    endpoints = [
        Endpoint("a", "p", {"m": ""}, weight=2, **endpoint),
        Endpoint("b", "q", {"m": ""}),
        Endpoint("c", "p", {"n": ""}),
        Endpoint("own", "p", {"m": ""}, tenant="globex", credential="main"),
        *more,
    ]
    return Catalogue(models, offerings, endpoints)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with opened(catalogue()) as made:
        yield made


@asynccontextmanager
async def opened(catalogued: Catalogue) -> AsyncIterator[Site]:
    """A site of these endpoints; at its end nothing may be left of any request."""
    log = MemoryEventLog()
    instance = await log.register_instance("test", 60)
    appender = Appender(log, instance)
    providers = {name: ScriptedProvider() for name in catalogued.endpoints}
    circuits = {name: Circuit() for name in providers}
    probes, holds, plane = Probes(), Holds(), ControlPlane()
    plane.prices = prices = PriceBook()
    for model, provider, pico in (("m", "p", PRICE_PICO), ("m", "q", DEAR_PICO), ("n", "p", PRICE_PICO)):
        prices.apply(
            PriceSet(price=f"{model}-{provider}", model=model, provider=provider, effective_from=0, unit_pico_usd=pico)
        )
    dispatcher = Dispatcher(providers, limits=LIMITS)
    lru = LruVectorCache(10_000_000, 3600, time.monotonic)
    metrics = RequestMetrics()
    service = RequestService(
        log=log,
        appender=appender,
        dispatcher=dispatcher,
        catalogue=lambda: catalogued,
        prices=prices,
        plane=plane,
        tenant_keys={"acme": b"k" * 32, "globex": b"g" * 32},
        tokenizer_of=lambda _: Words(),
        lru=lru,
        shared_cache=None,
        metrics=metrics,
        instance=str(instance),
        gates=[holds],
        dry_gates=[holds],
        router=Router(
            breaker_of=lambda e: circuits[e.name], attested=probes.state, load=dispatcher.load, paused=dispatcher.paused
        ),
        attests=probes,
    )
    made = Site(service, log, appender, providers["a"], lru, metrics, catalogued, prices)
    made.providers, made.circuits, made.probes, made.holds, made.plane = providers, circuits, probes, holds, plane
    yield made
    assert not holds.live, "whatever became of it, nothing is held any more"
    assert dispatcher.open_requests == 0
    assert all(dispatcher.load(name) == 0 for name in providers)
    await service.close()
    await appender.close()


def right(reply: Recorder, texts: list[str]) -> bool:
    assert reply.refusal is None, reply.refusal
    assert reply.rows is not None
    return np.array_equal(reply.rows, np.stack([vector_of(t) for t in texts]))


async def generated(site: Site) -> EmbeddingGenerated:
    [event] = await site.events("embedding.generated")
    assert isinstance(event, EmbeddingGenerated)
    return event


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ProviderFault.SERVER, "provider_error"),
        (ProviderFault.CONNECTION, "provider_error"),
        (ProviderFault.TIMEOUT, "timeout"),
        (ProviderFault.AUTHENTICATION, "provider_error"),
        (ProviderFault.RATE_LIMITED, "rate_limited"),
    ],
)
async def test_what_fails_at_one_endpoint_is_answered_by_the_next_in_the_same_space(
    site: Site, fault: ProviderFault, reason: str
) -> None:
    site.providers["a"].behaviour = failing(fault, retry_after=5.0 if fault is ProviderFault.RATE_LIMITED else None)
    reply = await site.ask(["one", "two"], model="m")
    assert right(reply, ["one", "two"])
    assert reply.answer is not None
    assert reply.answer.space == f"m@1/{DIMENSIONS}/raw"
    assert reply.answer.endpoint == "b"
    assert reply.answer.failover == {
        "from": {"endpoint": "a", "model": "m"},
        "to": {"endpoint": "b", "model": "m"},
        "reason": reason,
    }
    assert len(site.providers["a"].calls) == 1, "there was somewhere else to go, so it was not tried there again"
    event = await generated(site)
    assert [(a.endpoint, a.reason) for a in event.attempts] == [("a", fault.value)]


async def test_a_request_that_may_not_fail_over_is_tried_again_where_it_is(site: Site) -> None:
    site.providers["a"].behaviour = failing(ProviderFault.SERVER, times=2)
    reply = await site.ask("one", model="m", failover="none")
    assert right(reply, ["one"])
    assert reply.answer is not None
    assert (reply.answer.endpoint, reply.answer.failover) == ("a", None)
    assert len(site.providers["a"].calls) == 3
    assert site.providers["b"].calls == []


async def test_a_tenants_setting_keeps_its_requests_where_they_are_unless_they_say_otherwise(site: Site) -> None:
    site.plane.tenants.apply("acme", TenantConfigured(failover="none"))
    site.providers["a"].behaviour = failing(ProviderFault.SERVER)
    kept = await site.ask("one", id="r1", model="m")
    assert kept.refusal is not None
    assert site.providers["b"].calls == []
    assert right(await site.ask("one", id="r2", model="m", failover="same_space"), ["one"])


async def test_where_every_endpoint_of_the_space_fails_the_sender_is_told_of_each(site: Site) -> None:
    for name in ("a", "b"):
        site.providers[name].behaviour = failing(ProviderFault.SERVER, status=503)
    reply = await site.ask("one", model="m")
    assert reply.refusal is not None
    assert (reply.refusal.code, reply.refusal.retryable) == ("provider_unavailable", True)
    attempts = (reply.refusal.details or {})["attempts"]
    assert {a["endpoint"] for a in attempts} == {"a", "b"}
    assert all(set(a) <= {"endpoint", "reason", "status", "ms"} for a in attempts)
    assert len(attempts) <= 4, "four attempts in all, wherever they are made"
    assert site.providers["c"].calls == []
    [event] = await site.events("embedding.failed")
    assert isinstance(event, EmbeddingFailed)
    assert (event.billed_tokens, event.nano_usd) == (0, 0)


async def test_another_model_embeds_it_whole_only_where_that_is_allowed(site: Site) -> None:
    for name in ("a", "b"):
        site.providers[name].behaviour = failing(ProviderFault.SERVER)
    reply = await site.ask(["one", "two"], model="m", failover="any")
    assert right(reply, ["one", "two"])
    assert reply.answer is not None
    assert (reply.answer.model, reply.answer.space) == ("n", f"n@1/{DIMENSIONS}/raw")
    assert reply.answer.failover is not None
    assert reply.answer.failover["from"]["model"] == "m"
    event = await generated(site)
    assert (event.model, event.nano_usd) == ("n", 40)
    assert {(a.endpoint, a.model) for a in event.attempts} == {("a", "m"), ("b", "m")}
    assert event.failover is not None
    assert event.failover.reason == "provider_error"
    assert 'to_model="n"' in _metrics(site)


@pytest.mark.parametrize("retry_after", [None, 200.0])
async def test_a_model_that_has_failed_is_not_gone_back_to(site: Site, retry_after: float | None) -> None:
    for name in ("a", "b", "c"):
        site.providers[name].behaviour = failing(ProviderFault.RATE_LIMITED, retry_after=retry_after)
    for id_ in ("r1", "r2"):
        reply = await site.ask("one", id=id_, model="m", failover="any", deadline_ms=5000)
        assert reply.refusal is not None
        assert reply.refusal.code == "provider_unavailable"
    assert all(len(site.providers[name].calls) <= 8 for name in ("a", "b", "c"))


async def test_a_dearer_model_that_answers_instead_is_billed_no_more_than_was_reserved(site: Site) -> None:
    dear = PriceSet(price="n-dear", model="n", provider="p", effective_from=1, unit_pico_usd=10 * DEAR_PICO)
    site.prices.apply(dear)
    for name in ("a", "b"):
        site.providers[name].behaviour = failing(ProviderFault.SERVER)
    await site.ask("one two", model="m", failover="any")
    [requested] = [e for e in await site.events("embedding.requested") if isinstance(e, EmbeddingRequested)]
    event = await generated(site)
    assert (event.model, event.unit_pico_usd, event.provider_nano_usd) == ("n", 10 * DEAR_PICO, 1_000)
    assert event.nano_usd == requested.reserved_nano_usd == 100, "the excess is ours"


async def test_a_model_whose_quota_is_used_up_is_no_way_out(site: Site) -> None:
    for name in ("a", "b"):
        site.providers[name].behaviour = failing(ProviderFault.SERVER)
    site.holds.refuses["n"] = GatewayError("quota_exceeded", "used up")
    reply = await site.ask("one", model="m", failover="any")
    assert reply.refusal is not None
    assert reply.refusal.code == "provider_unavailable"
    assert site.providers["c"].calls == []


async def test_after_its_first_chunk_a_stream_stays_with_its_model(site: Site) -> None:
    texts = [f"text {i}" for i in range(20)]

    def second(call: EmbedCall) -> None:
        if len(call.texts) < 16:
            raise ProviderError(ProviderFault.SERVER, "as told")

    for name in ("a", "b"):
        site.providers[name].behaviour = second
    reply = await site.ask(texts, model="m", failover="any", stream=True)
    assert reply.refusal is not None
    assert reply.refusal.code == "provider_unavailable"
    assert len(reply.streamed) == 16
    assert site.providers["c"].calls == []


async def test_only_what_failed_goes_elsewhere(site: Site) -> None:
    texts = [f"text {i}" for i in range(20)]

    def second(call: EmbedCall) -> None:
        if len(call.texts) < 16:
            raise ProviderError(ProviderFault.SERVER, "as told")

    site.providers["a"].behaviour = second
    reply = await site.ask(texts, model="m")
    assert right(reply, texts)
    assert [len(c) for c in site.providers["b"].calls] == [4]
    assert sum(len(c) for c in site.providers["a"].calls) == 20
    event = await generated(site)
    assert event.billed_tokens == 40, "each text once"


@pytest.mark.parametrize("together", [True, False])
async def test_the_calls_of_a_request_that_all_fail_are_all_made_again_at_the_next_endpoint(
    site: Site, together: bool
) -> None:
    texts, first = [f"text {i}" for i in range(40)], asyncio.Event()

    class Later(ScriptedProvider):
        async def embed(self, call: EmbedCall) -> Any:
            if texts[0] not in call.texts and not together:
                await first.wait()
            return await super().embed(call)

    site.providers["a"] = Later()
    site.providers["a"].behaviour = failing(ProviderFault.SERVER)
    site.service.vectors._dispatcher.lane(site.catalogue.candidates("m")[0], None, None).provider = site.providers["a"]
    reply, _ = site.send(texts, model="m")
    while not site.providers["b"].calls:
        await asyncio.sleep(0)
    first.set()
    assert right(await reply.wait(), texts)
    assert sorted(len(c) for c in site.providers["a"].calls) == [8, 16, 16]
    assert sum(len(c) for c in site.providers["b"].calls) == 40
    event = await generated(site)
    assert (event.billed_tokens, event.nano_usd) == (80, 4000), "each text once, at the price of where it was answered"
    assert {a.endpoint for a in event.attempts} == {"a"}


async def test_an_endpoint_whose_circuit_is_open_is_passed_over_and_the_answer_says_so(site: Site) -> None:
    site.circuits["a"].open()
    reply = await site.ask("one", model="m")
    assert right(reply, ["one"])
    assert reply.answer is not None
    assert reply.answer.failover == {
        "from": {"endpoint": "a", "model": "m"},
        "to": {"endpoint": "b", "model": "m"},
        "reason": "circuit_open",
    }
    assert site.providers["a"].calls == []
    assert 'reason="circuit_open"' in _metrics(site)


async def test_an_endpoint_that_has_asked_for_a_pause_is_passed_over_while_it_lasts(site: Site) -> None:
    site.providers["a"].behaviour = failing(ProviderFault.RATE_LIMITED, times=1, retry_after=60.0)
    for number in range(3):
        reply = await site.ask(f"text {number}", id=f"r{number}", model="m", cache="off")
        assert right(reply, [f"text {number}"])
        assert reply.answer is not None
        assert reply.answer.endpoint == "b"
        assert reply.answer.failover is not None
        assert reply.answer.failover["reason"] == "rate_limited"
    assert len(site.providers["a"].calls) == 1


async def test_a_request_that_may_not_fail_over_is_told_how_long_a_pause_beyond_its_deadline_is(site: Site) -> None:
    site.providers["a"].behaviour = failing(ProviderFault.RATE_LIMITED, times=1, retry_after=60.0)
    await site.ask("one", id="r1", model="m")
    kept = await site.ask("two", id="r2", model="m", failover="none", cache="off", deadline_ms=5000)
    assert kept.refusal is not None
    assert kept.refusal.code == "provider_unavailable"
    assert 50_000 < (kept.refusal.retry_after_ms or 0) <= 60_001
    assert [len(site.providers[name].calls) for name in "ab"] == [1, 1]


async def test_with_every_endpoint_of_its_model_paused_another_model_answers_where_it_may(site: Site) -> None:
    for name in "ab":
        site.providers[name].behaviour = failing(ProviderFault.RATE_LIMITED, times=1, retry_after=60.0)
    reply = await site.ask("one", id="r1", model="m", deadline_ms=5000)
    assert reply.refusal is not None
    assert reply.refusal.code == "provider_unavailable"
    other = await site.ask("two", id="r2", model="m", failover="any", cache="off", deadline_ms=5000)
    assert right(other, ["two"])
    assert other.answer is not None
    assert (other.answer.model, (other.answer.failover or {})["reason"]) == ("n", "rate_limited")


async def test_a_request_that_may_not_fail_over_is_not_sent_past_an_open_circuit(site: Site) -> None:
    site.circuits["a"].open()
    with pytest.raises(GatewayError, match="no endpoint of 'm' answers"):
        await site.ask("one", model="m", failover="none", cache="off")
    assert site.providers["b"].calls == []


async def test_with_every_circuit_open_a_request_is_refused_before_it_is_logged(site: Site) -> None:
    for name in ("a", "b"):
        site.circuits[name].open()
    with pytest.raises(Exception, match="no endpoint of 'm' answers") as caught:
        await site.ask("one", model="m", cache="off")
    assert caught.value.code == "provider_unavailable"  # type: ignore[attr-defined]
    assert [a["reason"] for a in caught.value.details["attempts"]] == ["circuit_open"] * 2  # type: ignore[attr-defined]
    assert caught.value.retry_after_ms == 30_001  # type: ignore[attr-defined]
    assert await site.events() == []


async def test_with_every_circuit_open_what_is_cached_is_answered_still(site: Site) -> None:
    await site.ask("one", id="r0", model="m")
    for name in ("a", "b"):
        site.circuits[name].open()
    assert right(await site.ask("one", id="r1", model="m"), ["one"])
    reply = await site.ask("two", id="r2", model="m")
    assert reply.refusal is not None
    assert reply.refusal.code == "provider_unavailable"


async def test_with_every_circuit_open_another_model_answers_where_it_may(site: Site) -> None:
    for name in ("a", "b"):
        site.circuits[name].open()
    reply = await site.ask("one", model="m", failover="any")
    assert right(reply, ["one"])
    assert reply.answer is not None
    assert reply.answer.failover == {
        "from": {"endpoint": "a", "model": "m"},
        "to": {"endpoint": "c", "model": "n"},
        "reason": "circuit_open",
    }


async def test_it_reserves_at_the_dearest_endpoint_and_is_billed_where_it_is_answered(site: Site) -> None:
    await site.ask("one two", id="r1", model="m")
    site.providers["a"].behaviour = failing(ProviderFault.SERVER)
    await site.ask("three four", id="r2", model="m")
    requested = [e for e in await site.events("embedding.requested") if isinstance(e, EmbeddingRequested)]
    answered = [e for e in await site.events("embedding.generated") if isinstance(e, EmbeddingGenerated)]
    assert [e.reserved_nano_usd for e in requested] == [100, 100]
    assert [(e.provider, e.unit_pico_usd, e.nano_usd) for e in answered] == [
        ("p", PRICE_PICO, 40),
        ("q", DEAR_PICO, 100),
    ]


async def test_embedding_again_is_logged_as_our_cost_at_the_dearest_endpoint_that_may_do_it(site: Site) -> None:
    await site.ask("one two", id="r1", model="m", cache="off")
    site.providers["a"].behaviour = failing(ProviderFault.SERVER)
    again = await site.ask("one two", id="r1", model="m", cache="off")
    assert right(again, ["one two"])
    assert len(site.providers["b"].calls) == 1
    [event] = await site.events("embedding.reembedded")
    assert isinstance(event, EmbeddingReembedded)
    assert event.provider_nano_usd == 2 * DEAR_PICO // 1000


async def test_a_call_that_may_be_charged_for_nothing_is_recorded_as_our_cost(site: Site) -> None:
    site.providers["a"].behaviour = failing(ProviderFault.TIMEOUT)
    await site.ask("one two", model="m")
    event = await generated(site)
    assert (event.billed_tokens, event.nano_usd) == (2, 100)
    assert [a.provider_nano_usd for a in event.attempts] == [40]
    assert event.provider_nano_usd == 140


async def test_an_unattested_endpoint_is_attested_by_its_first_request(site: Site) -> None:
    site.circuits["b"].open()
    site.probes.standing["a"] = "unattested"
    replies = [await site.ask(f"text {i}", id=f"r{i}", model="m") for i in range(3)]
    assert all(right(r, [f"text {i}"]) for i, r in enumerate(replies))
    assert site.probes.asked == ["a"]


async def test_an_attested_endpoint_goes_before_an_unattested_one(site: Site) -> None:
    site.probes.standing["a"] = "unattested"
    reply = await site.ask("one", model="m")
    assert reply.answer is not None
    assert (reply.answer.endpoint, reply.answer.failover) == ("b", None)
    assert site.probes.asked == []


async def test_an_attestation_that_fails_is_a_failed_attempt_like_any_other(site: Site) -> None:
    def fails(name: str) -> None:
        if name == "a":
            raise ProviderError(ProviderFault.TIMEOUT, "no answer")

    site.probes.standing = {"a": "unattested", "b": "unattested"}
    site.probes.outcome = fails
    reply = await site.ask("one", model="m")
    assert right(reply, ["one"])
    assert site.probes.asked == ["a", "b"]
    event = await generated(site)
    assert [(a.endpoint, a.reason) for a in event.attempts] == [("a", "timeout")]
    assert event.failover is not None
    assert event.failover.reason == "timeout"
    assert site.providers["a"].calls == []


async def test_an_attestation_that_fails_at_the_only_endpoint_is_tried_again(site: Site) -> None:
    left = [2]

    def fails(name: str) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise ProviderError(ProviderFault.SERVER, "as told", status=500)

    site.circuits["b"].open()
    site.probes.standing["a"] = "unattested"
    site.probes.outcome = fails
    reply = await site.ask("one", model="m")
    assert right(reply, ["one"])
    assert site.probes.asked == ["a"] * 3


async def test_nothing_is_sent_to_an_endpoint_whose_vectors_have_drifted(site: Site) -> None:
    site.probes.standing["a"] = "quarantined"
    reply = await site.ask("one", model="m")
    assert reply.answer is not None
    assert reply.answer.endpoint == "b"
    assert reply.answer.failover is not None
    assert site.providers["a"].calls == []


async def test_a_tenants_own_endpoint_serves_it_alone_and_first(site: Site) -> None:
    site.principal = type(site.principal)("k2", "globex", frozenset({"agent"}))
    reply = await site.ask("one two", model="m")
    assert reply.answer is not None
    assert reply.answer.endpoint == "own"
    event = await generated(site)
    assert (event.nano_usd, event.provider_nano_usd) == (40, 0), "the provider bills the tenant itself"


async def test_no_other_tenants_endpoint_is_ever_gone_to(site: Site) -> None:
    for name in ("a", "b"):
        site.providers[name].behaviour = failing(ProviderFault.SERVER)
    reply = await site.ask("one", model="m")
    assert reply.refusal is not None
    assert "own" not in str(reply.refusal.details)
    assert site.providers["own"].calls == []


async def test_a_pinned_request_is_embedded_there_whatever_the_state_of_the_endpoint(site: Site) -> None:
    site.probes.standing["b"] = "quarantined"
    candidate = site.catalogue.candidates("m")[1]
    assert candidate.endpoint.name == "b"
    message, reply = EmbeddingGenerate(id="p1", input=["one"], model="m", cache="off"), Recorder()
    site.service.generate(site.principal, "a1", message, ["one"], reply, pinned=candidate)
    assert right(await reply.wait(), ["one"])
    assert site.providers["a"].calls == []
    site.providers["b"].behaviour = failing(ProviderFault.SERVER)
    message, reply = EmbeddingGenerate(id="p2", input=["two"], model="m", cache="off"), Recorder()
    site.service.generate(site.principal, "a1", message, ["two"], reply, pinned=candidate)
    assert (await reply.wait()).refusal is not None
    assert site.providers["a"].calls == [], "and nowhere else"
    assert len(site.providers["b"].calls) == 2, "once: whoever asks for it decides what then"


async def test_requests_that_are_in_flight_at_several_endpoints_are_weighted(site: Site) -> None:
    for name in ("a", "b"):
        site.providers[name].gate.clear()
    sent = [site.send([f"text {i}"], id=f"r{i}", model="m")[0] for i in range(30)]
    while (
        sum(len(c) for n in "ab" for c in site.providers[n].calls) + site.service.vectors._dispatcher.queued_texts < 30
    ):
        await asyncio.sleep(0.001)
    loads = {name: site.service.vectors._dispatcher.load(name) for name in ("a", "b")}
    for name in ("a", "b"):
        site.providers[name].gate.set()
    for i, reply in enumerate(sent):
        assert right(await reply.wait(), [f"text {i}"])
    assert loads["a"] == 2 * loads["b"]


def _metrics(site: Site) -> str:
    registry = CollectorRegistry()
    registry.register(site.metrics)
    return generate_latest(registry).decode()


def test_a_vector_is_of_its_text_alone() -> None:
    assert not np.array_equal(vector_of("one"), vector_of("two")), "else no test here could fail"
