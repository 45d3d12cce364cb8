"""Any mix of inputs, caps, splits, duplicates, tenants, withdrawals, failures and hand-overs between two endpoints gives each waiter exactly
its own vectors.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from domain.errors import GatewayError
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault, Text
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.flights import Flight, Ticket
from gateway.dispatch.limits import DispatchLimits
from gateway.dispatch.ports import Item
from tests.unit.dispatch.doubles import FakeProvider, Recorder, candidate
from tests.unit.dispatch.virtual_time import run

WORDS = [*(f"w{i}" for i in range(24)), "long " * 30, "poison-refused", "poison-garbled", "poison-long", "poison-crash"]
POISON = {
    "poison-refused": ProviderFault.REFUSED,
    "poison-garbled": ProviderFault.BAD_ANSWER,
    "poison-long": ProviderFault.TOO_LONG,
    "poison-crash": ProviderFault.SERVER,
}
PASSING = [
    ProviderFault.SERVER,
    ProviderFault.TIMEOUT,
    ProviderFault.CONNECTION,
    ProviderFault.RATE_LIMITED,
    ProviderFault.AUTHENTICATION,
]


class Ask(msgspec.Struct, frozen=True):
    """One request: who, what, how long before the next, after how long it is withdrawn (None: never), whether it may move on."""

    tenant: str
    agent: str
    texts: tuple[str, ...]
    as_tokens: bool
    gap: float
    withdrawn_after: float | None
    seconds: float
    moves: bool = False


class World(msgspec.Struct, frozen=True):
    """A run: requests, caps of the offering, faults of the first calls (None: good), what the provider's own cap is."""

    asks: tuple[Ask, ...]
    max_inputs: int
    max_tokens: int
    concurrency: int
    latency: float
    faults: tuple[ProviderFault | None, ...]
    provider_cap: int
    names_long_text: bool


times = st.sampled_from([0.0, 0.0, 0.001, 0.004, 0.03, 0.11, 0.6])
asks = st.builds(
    Ask,
    tenant=st.sampled_from(["t", "u"]),
    agent=st.sampled_from(["a", "b", "c"]),
    texts=st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(tuple),
    as_tokens=st.sampled_from([False, False, False, True]),
    gap=times,
    withdrawn_after=st.one_of(st.none(), st.none(), times),
    seconds=st.sampled_from([0.05, 3.0, 1e6, 1e6]),
    moves=st.booleans(),
)
worlds = st.builds(
    World,
    asks=st.lists(asks, min_size=1, max_size=14).map(tuple),
    max_inputs=st.sampled_from([1, 2, 5, 64]),
    max_tokens=st.sampled_from([3, 40, 100_000]),
    concurrency=st.sampled_from([1, 2, 8]),
    latency=st.sampled_from([0.0, 0.02, 0.25]),
    faults=st.lists(st.one_of(st.none(), st.sampled_from(PASSING)), max_size=8).map(tuple),
    provider_cap=st.sampled_from([1, 3, 1000]),
    names_long_text=st.booleans(),
)


def texts_of(ask: Ask) -> list[Text]:
    return [list(t.encode()) for t in ask.texts] if ask.as_tokens else list(ask.texts)


async def play(world: World, *providers: FakeProvider, charged: bool = False) -> None:
    """Run the world and check it. `charged` plants a fault: flights that count as paid from the start."""
    flights: list[Flight] = []

    def recorded(*args: Any) -> Flight:
        flights.append(Flight(*args))
        flights[-1].charged = charged
        return flights[-1]

    with mock.patch("gateway.dispatch.dispatcher.Flight", recorded):
        await _play(world, providers, flights)


async def _play(world: World, providers: tuple[FakeProvider, ...], flights: list[Flight]) -> None:
    loop = asyncio.get_running_loop()
    places = [
        candidate(name=name, max_inputs=world.max_inputs, max_tokens=world.max_tokens, concurrency=world.concurrency)
        for name in ("main", "other")
    ]
    dispatcher = Dispatcher(dict(zip(("main", "other"), providers, strict=False)), limits=DispatchLimits())
    plain, tokens = (
        [dispatcher.lane(where, None, None, takes_tokens=kind) for where in places[: len(providers)]]
        for kind in (False, True)
    )

    def move(waiter: Recorder, items: list[Item]) -> None:
        lanes = tokens if type(items[0].text) is list else plain
        waiter.at = "" if waiter.at else "other"
        try:
            dispatcher.submit(lanes[bool(waiter.at)], waiter, items)
        except GatewayError as error:
            assert error.code == "provider_unavailable"  # noqa: PT017 # the code is what counts
            dispatcher.withdraw(waiter)
            waiter.fail(error, ())

    waiters: list[Recorder] = []
    withdrawn: set[int] = set()

    def withdraw(waiter: Recorder) -> None:
        if not waiter.done.is_set():
            withdrawn.add(id(waiter))
            frozen[id(waiter)] = (len(waiter.rows), len(waiter.charged))
        dispatcher.withdraw(waiter)

    frozen: dict[int, tuple[int, int]] = {}
    for ask in world.asks:
        lane = (tokens if ask.as_tokens else plain)[0]
        waiter = Recorder(texts_of(ask), tenant=ask.tenant, agent=ask.agent, deadline=loop.time() + ask.seconds)
        if ask.moves and len(providers) > 1:
            waiter.submit = move
        lane.announce()
        try:
            dispatcher.submit(lane, waiter, waiter.items())
        except Exception as error:
            assert getattr(error, "code", None) == "provider_unavailable", error  # noqa: PT017 # the code is what counts
            continue
        waiters.append(waiter)
        if ask.withdrawn_after is not None:
            loop.call_later(ask.withdrawn_after, withdraw, waiter)
        await asyncio.sleep(ask.gap)
    await asyncio.sleep(10_000)

    for waiter in waiters:
        waiter.check()
        if id(waiter) in withdrawn:
            assert (len(waiter.rows), len(waiter.charged)) == frozen[id(waiter)]
            assert waiter.error is None
        else:
            assert waiter.done.is_set()
            assert waiter.unflushed == 0 or waiter.error is not None
            assert (waiter.error is None) == (len(waiter.rows) == len(waiter.texts))
        chance = bool(world.faults) and waiter.error is not None and "whenever it is sent" in waiter.error.message
        if waiter.error is not None and waiter.error.code in ("provider_error", "input_too_long") and not chance:
            assert waiter.error.details is not None
            bad = waiter.texts[waiter.error.details["index"]]
            assert (bad if isinstance(bad, str) else bytes(bad).decode()).startswith("poison")
    for provider in providers:
        for call in provider.calls:
            assert len({type(t) for t in call.texts}) == 1
            assert len(call.texts) <= world.max_inputs
        assert provider.most_in_flight <= world.concurrency
    assert_each_flight_was_paid_once(waiters, flights, [call for p in providers for call in p.answered])
    assert (
        dispatcher.queued_texts
        == dispatcher.queued_tokens
        == dispatcher.open_requests
        == dispatcher.calls_in_flight
        == 0
    )
    for lane in (*plain, *tokens):
        assert not lane.flights
        assert lane.idle
        assert lane.queue.texts == lane.queue.tokens == 0
    await dispatcher.close()


def assert_each_flight_was_paid_once(
    waiters: list[Recorder], flights: list[Flight], answered_calls: list[EmbedCall]
) -> None:
    """A flight is paid by one waiter, once, if a call answered it. What no call answered is paid by nobody, except by who left before it failed."""
    charged = Counter((f.home.tenant.name, repr(f.text)) for f in flights if f.charged)
    paid = Counter((w.tenant, repr(w.texts[i])) for w in waiters for i in w.charged)
    assert paid == charged
    answered = {repr(t) for call in answered_calls for t in call.texts}
    assert answered <= {text for _, text in charged}
    gone = {repr(w.texts[i]) for w in waiters if len(w.rows) < len(w.texts) for i in w.charged}
    assert {text for _, text in charged} <= answered | gone


def provider_of(world: World) -> FakeProvider:
    def script(call: EmbedCall, number: int) -> ProviderError | None:
        if number <= len(world.faults) and (fault := world.faults[number - 1]) is not None:
            return ProviderError(fault, "as scripted")
        if len(call.texts) > world.provider_cap:
            return ProviderError(ProviderFault.TOO_LARGE, "too many")
        for place, text in enumerate(call.texts):
            fault = POISON.get(text if isinstance(text, str) else bytes(text).decode())
            if fault is not None:
                named = fault is ProviderFault.TOO_LONG and world.names_long_text
                return ProviderError(fault, "bad text", index=place if named else None)
        return None

    return FakeProvider(world.latency, script)


PROFILE = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@PROFILE
@given(worlds)
def test_every_waiter_gets_exactly_its_own_vectors_or_one_error(world: World) -> None:
    run(play(world, provider_of(world), provider_of(world)))


def found_wrong(
    tamper: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    charged: bool = False,
    faults: tuple[ProviderFault | None, ...] = (),
) -> bool:
    """Whether a fixed world of plain texts, duplicates and followers shows a fault."""
    world = World(
        asks=(
            Ask("t", "a", ("w1", "w2", "w1"), False, 0.0, None, 1e6, moves=True),
            Ask("t", "b", ("w2", "w3"), False, 0.01, None, 1e6),
            Ask("u", "a", ("w1",), False, 0.0, 0.0, 1e6),
        ),
        max_inputs=64,
        max_tokens=1000,
        concurrency=2,
        latency=0.02,
        faults=faults,
        provider_cap=100,
        names_long_text=False,
    )
    provider = provider_of(world)
    provider.tamper = tamper
    try:
        run(play(world, provider, provider_of(world), charged=charged))
    except AssertionError:
        return True
    return False


def test_the_check_passes_on_the_fixed_world_as_it_is() -> None:
    assert not found_wrong()


def test_two_swapped_rows_are_found() -> None:
    """Negative control."""

    def swap(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        vectors[[0, 1]] = vectors[[1, 0]]
        return vectors

    assert found_wrong(swap)


def test_a_text_sent_without_anybody_paying_is_found() -> None:
    """Negative control."""
    assert found_wrong(charged=True)


def test_a_text_paid_by_two_waiters_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    original = Flight.payer

    def everybody_pays(self: Flight) -> tuple[Ticket, int]:
        for ticket, index in list(self.askers())[1:]:
            if index not in ticket.waiter.charged:  # type: ignore[attr-defined] # a Recorder
                ticket.waiter.charge(index, self.tokens, ticket.lane.candidate)
        return original(self)

    monkeypatch.setattr(Flight, "payer", everybody_pays)
    assert found_wrong()


def test_a_place_of_a_duplicate_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    monkeypatch.setattr(Flight, "join", lambda self, ticket, index: None)
    assert found_wrong()


def test_a_withdrawal_that_leaves_its_texts_behind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    monkeypatch.setattr("gateway.dispatch.lane.Lane.drop", lambda self, flight: None)
    assert found_wrong()


def test_the_check_passes_where_texts_are_handed_over() -> None:
    assert not found_wrong(faults=(ProviderFault.SERVER,))


def test_a_text_that_is_handed_over_and_kept_as_well_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: it would be answered twice."""
    monkeypatch.setattr(Flight, "leave", lambda self, ticket: None)
    assert found_wrong(faults=(ProviderFault.SERVER,))


def test_a_text_that_is_handed_over_without_its_charge_taken_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: it would be paid for twice."""
    monkeypatch.setattr("gateway.dispatch.recovery._take_back", lambda *_: None)
    assert found_wrong(faults=(ProviderFault.SERVER,))
