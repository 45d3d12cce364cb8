"""The request service with real dispatcher, router and circuits, on a log in memory, between a provider that misbehaves and healthy ones."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adapters.appender import Appender
from adapters.breaker import CircuitPolicy
from adapters.memory.event_log import MemoryEventLog
from adapters.memory.vector_cache import LruVectorCache
from domain.catalogue import Catalogue, Endpoint, Model, Offering, Price
from domain.events import PriceSet
from domain.plane import ControlPlane
from domain.ports.provider import Provider
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.limits import DispatchLimits
from gateway.endpoints.breakers import Breakers
from gateway.endpoints.router import Router
from gateway.service.service import RequestService
from gateway.telemetry.metrics import RequestMetrics
from tests.support.chaos.places import Healthy, Place, Turnout
from tests.unit.service.conftest import Words
from tests.unit.service.test_sending import Holds

LIMITS = DispatchLimits(backoff=0.01, backoff_cap=0.05, regather=0.001, window=0.01, patience=0.02)
CIRCUIT = CircuitPolicy(failures=5, open_seconds=0.05, trial_calls=2, successes=2)
PICO = {"a": 20_000, "b": 50_000, "c": 70_000}
TENANTS = ("acme", "globex", "initech")


@dataclass
class Site:
    """The endpoints: `a` (first in line) is the provider under test, `b` healthy with the same model `m`, `c` another model `n`."""

    service: RequestService
    log: MemoryEventLog
    dispatcher: Dispatcher
    holds: Holds
    place: Place
    turnout: Turnout

    @property
    def left(self) -> list[str]:
        """What is still held, queued or in flight: nothing, once every request has ended."""
        found = {
            "requests in flight": self.service.in_flight,
            "requests in the dispatcher": self.dispatcher.open_requests,
            "texts queued": self.dispatcher.queued_texts,
            "holds on quotas": len(self.holds.live),
        } | {f"texts at {name}": self.dispatcher.load(name) for name in "abc"}
        return [f"{count} {what}" for what, count in found.items() if count]


@asynccontextmanager
async def site(place: Place, healthy: Healthy, seconds: float) -> AsyncIterator[Site]:
    """A service of its own on servers that are shared; a call to `a` may take so many seconds."""
    log, kind = MemoryEventLog(), place.kind
    instance = await log.register_instance("chaos", 60)
    appender = Appender(log, instance)
    served = f"served-{kind.size}"
    models = [
        Model(name, "1", kind.size, max_tokens=10_000, tokenizer="words", unit=False, rank=rank)
        for name, rank in (("m", 1), ("n", 2))
    ]
    offerings = [
        Offering("m", "a", kind.model, Price("price-a", PICO["a"]), kind.max_inputs, 4000),
        Offering("m", "b", served, Price("price-b", PICO["b"]), 16, 4000),
        Offering("n", "c", served, Price("price-c", PICO["c"]), 16, 4000),
    ]
    catalogue = Catalogue(
        models,
        offerings,
        [
            Endpoint("a", "a", {"m": ""}, weight=100, max_concurrency=8, timeout=seconds),
            Endpoint("b", "b", {"m": ""}, max_concurrency=8),
            Endpoint("c", "c", {"n": ""}, max_concurrency=8),
        ],
    )
    plane = ControlPlane()
    for offering in offerings:
        plane.prices.apply(
            PriceSet(
                price=offering.price.id, model=offering.model, provider=offering.provider, effective_from=0,
                unit_pico_usd=PICO[offering.provider],
            )
        )  # fmt: skip
    turnout = Turnout(place.here)
    providers: dict[str, Provider] = {"a": turnout, "b": healthy.same, "c": healthy.other}
    breakers = Breakers({}, CIRCUIT, lambda *_: None, instance=lambda: "chaos")
    dispatcher = Dispatcher(providers, limits=LIMITS, breakers=breakers.of)
    breakers.on_change(dispatcher.poke_endpoint)
    holds = Holds()
    service = RequestService(
        log=log,
        appender=appender,
        dispatcher=dispatcher,
        catalogue=lambda: catalogue,
        prices=plane.prices,
        plane=plane,
        tenant_keys={tenant: tenant.encode().ljust(32) for tenant in TENANTS},
        tokenizer_of=lambda _: Words(),
        lru=LruVectorCache(200_000, 3600, time.monotonic),
        shared_cache=None,
        metrics=RequestMetrics(),
        instance=str(instance),
        gates=[holds],
        dry_gates=[holds],
        router=Router(breaker_of=breakers.of, load=dispatcher.load, paused=dispatcher.paused),
    )
    try:
        yield Site(service, log, dispatcher, holds, place, turnout)
    finally:
        await service.close()
        await dispatcher.close()
        await appender.close()
