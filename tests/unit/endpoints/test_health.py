"""The health of endpoints as a gateway watches it: by calls and circuits, and by checks where nobody calls."""

from __future__ import annotations

import asyncio

import pytest

from adapters.breaker import CircuitPolicy
from domain.catalogue import Endpoint
from domain.decoding import decode_data
from domain.endpoint_health import Health
from domain.events import EndpointAttested, EndpointHealthChanged
from domain.plane import ControlPlane
from domain.ports.event_log import NewEvent
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault
from gateway.dispatch.context import CallOutcome
from gateway.endpoints.breakers import Breakers
from gateway.endpoints.health import HealthWatch

MAIN = Endpoint("main", "openai", {"small": ""})
OWN = Endpoint("own", "openai", {"small": ""}, tenant="acme")


class Checked:
    """A provider that is only ever checked."""

    def __init__(self) -> None:
        self.checks = 0
        self.answer: Exception | None = None
        self.hangs = False

    async def check(self, timeout: float) -> None:
        self.checks += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.answer is not None:
            raise self.answer

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        raise NotImplementedError

    async def warm_up(self) -> None: ...

    async def close(self) -> None: ...


class Watched:
    def __init__(self, *endpoints: Endpoint) -> None:
        self.now = 5_000.0
        self.endpoints = list(endpoints)
        self.providers = {endpoint.name: Checked() for endpoint in endpoints}
        self.plane = ControlPlane()
        self.log: list[NewEvent] = []
        self.breakers = Breakers(
            {}, CircuitPolicy(), lambda _, event: None, instance=lambda: "me", clock=lambda: self.now
        )
        self.watch = HealthWatch(
            endpoints=lambda: self.endpoints,
            provider_of=lambda endpoint: self.providers[endpoint.name],
            breakers=self.breakers,
            known=self.plane.endpoints,
            say=lambda subject, event: self.log.append(event),
            instance=lambda: "me",
            check_seconds=30.0,
            clock=lambda: self.now,
            wall=lambda: self.now,
        )

    async def look(self, after: float = 0.0) -> Health:
        self.now += after
        self.watch.look()
        for _ in range(4):
            await asyncio.sleep(0)
        return self.watch.of("main")

    def call(self, fault: ProviderFault | None = None) -> None:
        self.watch.on_call(
            CallOutcome(
                endpoint="main",
                provider="openai",
                model="small",
                texts=1,
                tokens=10,
                seconds=0.1,
                attempt=1,
                fault=fault,
            )
        )

    def said(self) -> list[tuple[str, str]]:
        found = [decode_data(e.type, e.data, e.schema_version) for e in self.log]
        return [(d.previous, d.health) for d in found if isinstance(d, EndpointHealthChanged)]

    def attested(self, space: str, passed: bool) -> None:
        data = EndpointAttested(
            endpoint="main",
            model="small",
            space=space,
            passed=passed,
            at=1,
            configuration=MAIN.configuration,
        )
        self.plane.apply(1, "_system", "endpoint/main", 1, data)


@pytest.fixture
def watched() -> Watched:
    return Watched(MAIN)


def error(fault: ProviderFault) -> ProviderError:
    return ProviderError(fault, "no")


async def test_an_endpoint_is_unknown_until_its_first_check_which_is_made_at_once(watched: Watched) -> None:
    assert watched.watch.of("main") is Health.UNKNOWN
    assert await watched.look() is Health.HEALTHY
    assert watched.said() == [("unknown", "healthy")]
    assert watched.watch.standing("main").since == watched.now


async def test_an_idle_endpoint_that_died_is_found_and_so_is_its_return(watched: Watched) -> None:
    provider = watched.providers["main"]
    await watched.look()
    provider.answer = error(ProviderFault.CONNECTION)
    assert await watched.look(29) is Health.HEALTHY
    assert provider.checks == 1
    assert await watched.look(1) is Health.DEGRADED
    assert await watched.look(4) is Health.DEGRADED
    assert await watched.look(1) is Health.UNHEALTHY  # confirmed soon
    assert provider.checks == 3
    provider.answer = None
    assert await watched.look(29) is Health.UNHEALTHY
    assert provider.checks == 3
    assert await watched.look(1) is Health.UNHEALTHY
    assert await watched.look(30) is Health.DEGRADED
    assert await watched.look(30) is Health.HEALTHY
    assert watched.said() == [
        ("unknown", "healthy"),
        ("healthy", "degraded"),
        ("degraded", "unhealthy"),
        ("unhealthy", "degraded"),
        ("degraded", "healthy"),
    ]


async def test_an_endpoint_that_is_called_is_not_checked(watched: Watched) -> None:
    await watched.look()
    for _ in range(100):
        watched.call()
        await watched.look(10)
    assert watched.providers["main"].checks == 1


async def test_an_unhealthy_endpoint_is_checked_though_calls_go_there(watched: Watched) -> None:
    await watched.look()
    for _ in range(12):
        watched.call(ProviderFault.SERVER)
    assert watched.watch.of("main") is Health.UNHEALTHY
    for _ in range(3):
        watched.call(ProviderFault.SERVER)
        await watched.look(10)
    assert watched.providers["main"].checks == 2


@pytest.mark.parametrize("failure", [ValueError("a defect"), TimeoutError()])
async def test_a_check_that_raises_something_else_is_a_failed_check(watched: Watched, failure: Exception) -> None:
    watched.providers["main"].answer = failure
    assert await watched.look() is Health.DEGRADED


async def test_one_check_at_a_time_and_none_outlives_its_endpoint(watched: Watched) -> None:
    provider = watched.providers["main"]
    provider.hangs = True
    await watched.look()
    await watched.look(100)
    assert provider.checks == 1
    del watched.endpoints[:]
    await watched.look()
    assert watched.watch.all() == {}
    assert len(asyncio.all_tasks()) == 1


async def test_an_open_circuit_makes_it_unhealthy_and_half_open_degraded(watched: Watched) -> None:
    await watched.look()

    async def fails() -> None:
        raise error(ProviderFault.SERVER)

    for _ in range(5):
        permit = watched.breakers.of(MAIN).admit()
        assert permit is not None
        with pytest.raises(ProviderError):
            await permit.run(fails)
    assert watched.watch.of("main") is Health.UNHEALTHY  # at once
    assert watched.watch.standing("main").reason == "its circuit is open"
    assert await watched.look(29) is Health.UNHEALTHY
    assert await watched.look(1) is Health.DEGRADED


async def test_an_endpoint_in_quarantine_is_unhealthy_and_in_that_of_one_space_degraded(watched: Watched) -> None:
    await watched.look()
    watched.attested("small@1/8/unit", passed=False)
    assert await watched.look() is Health.UNHEALTHY
    watched.attested("small@1/4/unit", passed=True)
    assert await watched.look(10) is Health.DEGRADED
    watched.attested("small@1/8/unit", passed=True)
    assert await watched.look(10) is Health.HEALTHY


async def test_an_endpoint_configured_anew_is_looked_at_anew(watched: Watched) -> None:
    watched.providers["main"].answer = error(ProviderFault.CONNECTION)
    assert await watched.look() is Health.DEGRADED
    watched.endpoints[0] = Endpoint("main", "openai", {"small": ""}, base_url="http://elsewhere")
    watched.providers["main"].answer = None
    assert await watched.look() is Health.HEALTHY


async def test_the_health_of_a_tenants_own_endpoint_is_told_as_that_tenants() -> None:
    watched = Watched(OWN)
    await watched.look()
    assert [(e.tenant, e.stream, e.type) for e in watched.log] == [("acme", "endpoint/own", "endpoint.health_changed")]


async def test_it_runs_until_it_is_cancelled_and_leaves_no_check_behind(watched: Watched) -> None:
    watched.providers["main"].hangs = True
    task = asyncio.create_task(watched.watch.run())
    while not watched.providers["main"].checks:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
