"""Which endpoint of a model a request goes to: by weight and load, among those that circuits, attestation, pauses and health leave."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.catalogue import Catalogue, Endpoint, Model, Offering, Price
from domain.ports.breaker import CircuitState, Permit
from domain.ports.provider import ProviderFault
from gateway.endpoints.router import Route, Router, Standing, reason_of

SPACE = "m@1/4/unit"


class Circuit:
    """`trials` are what is left of them where it is half open."""

    def __init__(self, state: CircuitState = CircuitState.CLOSED, open_for: float = 0.0, trials: int = 0) -> None:
        self.state = state
        self.open_for = open_for
        self.trials = trials

    def would_admit(self) -> bool:
        return self.state is CircuitState.CLOSED or (self.state is CircuitState.HALF_OPEN and self.trials > 0)

    def admit(self) -> Permit | None:
        raise AssertionError("a router asks, and takes nothing")


OPEN, BUSY = Circuit(CircuitState.OPEN, 7.0), Circuit(CircuitState.HALF_OPEN)
TRIABLE = Circuit(CircuitState.HALF_OPEN, trials=1)


class World:
    """Endpoints by name and weight, how each stands, and the router that sees it."""

    def __init__(self, own: str | None = None, **weights: int) -> None:
        model = Model("m", "1", 4, max_tokens=20, tokenizer=None, unit=True, rank=1)
        offering = Offering("m", "p", "m", Price("price", 1), max_inputs=16, max_tokens_per_call=1000)
        endpoints = [
            Endpoint(name, "p", {"m": ""}, weight=weight, tenant="acme" if name == own else None)
            for name, weight in weights.items()
        ]
        self.candidates = Catalogue([model], [offering], endpoints).candidates("m", "acme")
        self.circuits = {name: Circuit() for name in weights}
        self.health: dict[str, str] = {}
        self.attested: dict[str, str] = {}
        self.paused: set[str] = set()
        self.load: Counter[str] = Counter()
        self.router = Router(
            breaker_of=lambda e: self.circuits[e.name],
            health_of=lambda name: self.health.get(name, "healthy"),
            attested=lambda e, _: self.attested.get(e.name, "attested"),
            load=lambda name: self.load[name],
            paused=lambda name: name in self.paused,
        )

    def stand(self, name: str, how: str) -> None:
        match how:
            case "degraded" | "unhealthy" | "unknown" | "healthy":
                self.health[name] = how
            case "unattested" | "quarantined" | "attested":
                self.attested[name] = how
            case "paused":
                self.paused.add(name)
            case _:
                self.circuits[name] = {"open": OPEN, "busy": BUSY, "triable": TRIABLE}[how]

    def route(self, *tried: str) -> Route | None:
        return self.router.choose(self.candidates, SPACE, tried)

    def goes_to(self, *tried: str) -> str | None:
        route = self.route(*tried)
        return None if route is None else route.candidate.endpoint.name


def test_requests_are_shared_by_weight_and_by_what_waits() -> None:
    world = World(a=3, b=1)
    for _ in range(400):
        name = world.goes_to()
        assert name is not None
        world.load[name] += 1
    assert world.load == {"a": 300, "b": 100}
    world.load["a"] += 1000
    assert world.goes_to() == "b"


def test_a_degraded_endpoint_has_half_of_its_share() -> None:
    world = World(a=1, b=1)
    world.stand("a", "degraded")
    for _ in range(300):
        name = world.goes_to()
        assert name is not None
        world.load[name] += 1
    assert world.load == {"a": 100, "b": 200}


@pytest.mark.parametrize("how", ["unhealthy", "paused", "busy"])
def test_who_is_in_trouble_comes_last_however_little_waits_there(how: str) -> None:
    world = World(a=100, b=1)
    world.load["b"] = 10_000
    world.stand("a", how)
    assert world.goes_to() == "b"
    assert world.goes_to("b") == "a", "and is better than nothing"


@pytest.mark.parametrize("how", ["open", "quarantined"])
def test_nothing_is_sent_past_an_open_circuit_or_to_vectors_of_another_space(how: str) -> None:
    world = World(a=100, b=1)
    world.stand("a", how)
    assert world.goes_to() == "b"
    assert world.goes_to("b") is None
    assert World(a=1).goes_to() == "a"
    alone = World(a=1)
    alone.stand("a", how)
    assert alone.goes_to() is None


def test_a_half_open_circuit_gets_its_trial_calls_first_however_little_its_endpoint_weighs() -> None:
    world = World(heavy=9, light=1, spare=0)
    world.circuits["light"] = world.circuits["spare"] = TRIABLE
    world.health["light"] = "degraded"  # as endpoints with such a circuit are
    route = world.route()
    assert route is not None
    assert (route.candidate.endpoint.name, route.standing, route.passed) == ("light", Standing.TRIAL, None)
    world.health["light"] = "unhealthy"  # its checks say that nobody is there
    assert world.goes_to() == "heavy"


def test_weight_0_stands_by_for_when_no_other_can_be_used() -> None:
    world = World(a=1, spare=0)
    world.load["a"] = 10_000
    assert world.goes_to() == "a"
    for how in ("unhealthy", "paused", "open", "quarantined"):
        struck = World(a=1, spare=0)
        struck.stand("a", how)
        assert struck.goes_to() == "spare", how


def test_a_tenants_own_endpoint_comes_first_while_it_is_well() -> None:
    world = World(own="mine", shared=100, mine=1)
    world.load["mine"] = 10_000
    assert world.goes_to() == "mine"
    world.stand("mine", "degraded")
    assert world.goes_to() == "mine"
    world.stand("mine", "unhealthy")
    assert world.goes_to() == "shared"


def test_the_attested_go_before_the_unattested() -> None:
    world = World(a=100, b=1)
    world.stand("a", "unattested")
    world.load["b"] = 10_000
    assert world.goes_to() == "b"
    assert world.goes_to("b") == "a"


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ("open", ProviderFault.CIRCUIT_OPEN),
        ("busy", ProviderFault.CIRCUIT_OPEN),
        ("unhealthy", ProviderFault.CIRCUIT_OPEN),
        ("quarantined", ProviderFault.DRIFTED),
        ("paused", ProviderFault.RATE_LIMITED),
        ("degraded", None),
        ("unattested", None),
        ("triable", None),
    ],
)
def test_who_was_first_in_line_and_is_passed_over_is_told_with_why(how: str, fault: ProviderFault | None) -> None:
    world = World(a=2, b=1)
    world.stand("a", how)
    route = world.route()
    assert route is not None
    passed = None if route.passed is None else route.passed.endpoint.name
    assert (passed, route.fault) == (("a", fault) if fault is not None else (None, None))


def test_an_endpoint_whose_turn_it_was_not_is_not_passed_over() -> None:
    world = World(a=1, b=2)
    world.stand("a", "open")
    route = world.route()
    assert route is not None
    assert (route.candidate.endpoint.name, route.passed) == ("b", None)


def test_where_none_may_be_sent_to_the_refusal_lists_each_and_when_to_come_back() -> None:
    world = World(a=1, b=1)
    world.stand("a", "open")
    world.stand("b", "quarantined")
    refusal = world.router.refusal("m", world.candidates, SPACE)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after_ms) == ("provider_unavailable", 7001)
    attempts: list[dict[str, Any]] = (refusal.details or {})["attempts"]
    assert [(a["endpoint"], a["reason"]) for a in attempts] == [("a", "circuit_open"), ("b", "drifted")]
    world.stand("b", "attested")
    assert world.router.refusal("m", world.candidates, SPACE) is None


HOWS = [
    "healthy", "degraded", "unhealthy", "unknown", "unattested", "quarantined", "paused", "open", "busy", "triable",
]  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.sampled_from(HOWS), max_size=2), st.integers(0, 50)), max_size=5),
    st.integers(0, 31),
    st.booleans(),
)
def test_whatever_the_endpoints_are_up_to_the_best_that_may_be_sent_to_is_chosen(
    places: list[tuple[int, list[str], int]], tried: int, own: bool
) -> None:
    names = "abcde"[: len(places)]
    world = World(own="a" if own else None, **{n: weight for n, (weight, _, _) in zip(names, places, strict=True)})
    for name, (_, hows, load) in zip(names, places, strict=True):
        world.load[name] = load
        for how in hows:
            world.stand(name, how)
    left = [n for place, n in enumerate(names) if not tried >> place & 1]
    gone = [n for n in names if n not in left]
    standing = {c.endpoint.name: world.router.standing(c.endpoint, SPACE) for c in world.candidates}
    usable = [n for n in left if standing[n] < Standing.OPEN]
    route = world.route(*gone)
    if route is None:
        assert usable == []
        return
    name = route.candidate.endpoint.name
    assert name in usable
    assert route.standing is standing[name]
    if standing[name] >= Standing.UNHEALTHY:
        assert all(standing[n] >= standing[name] for n in usable), "one that is well was left"
    assert route.passed is None or (route.passed.endpoint.name != name and route.fault is not None)


@pytest.mark.parametrize("fault", list(ProviderFault), ids=str)
def test_whatever_failed_the_reason_of_a_failover_is_one_of_the_contracts(fault: ProviderFault) -> None:
    told = {
        ProviderFault.TIMEOUT: "timeout",
        ProviderFault.RATE_LIMITED: "rate_limited",
        ProviderFault.CIRCUIT_OPEN: "circuit_open",
        ProviderFault.DRIFTED: "circuit_open",
    }
    assert reason_of(fault) == told.get(fault, "provider_error")
