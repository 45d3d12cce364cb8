"""Circuits of several processes: what one finds out the others act upon, and nothing is said twice."""

from __future__ import annotations

import asyncio

import pytest

from adapters.breaker import CircuitPolicy
from domain.catalogue import Endpoint
from domain.decoding import decode_data
from domain.endpoint_decisions import decide_reset_breaker
from domain.events import BreakerChanged, DeploymentChanged, EndpointSpec, EventData
from domain.plane import ControlPlane
from domain.ports.breaker import CircuitState
from domain.ports.event_log import NewEvent
from domain.ports.provider import ProviderError, ProviderFault
from gateway.decisions import decision_event
from gateway.endpoints.announcer import Announcer
from gateway.endpoints.breakers import Breakers

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
MAIN = Endpoint("main", "openai", {"small": ""})
OWN = Endpoint("own", "openai", {"small": ""}, tenant="acme", credential="key")


class World:
    """One log, one time of day, and processes with monotonic clocks of their own."""

    def __init__(self) -> None:
        self.now = 5_000.0
        self.plane = ControlPlane()
        self.log: list[NewEvent] = []
        self.processes: list[Process] = []
        self.folded = 0

    def process(self, name: str) -> Process:
        process = Process(self, name)
        self.processes.append(process)
        return process

    def words(self) -> list[tuple[str | None, str, str]]:
        words = [w for w in map(decoded, self.log) if isinstance(w, BreakerChanged)]
        return [(w.instance, w.previous, w.state) for w in words]

    def tell(self) -> None:
        """Every process reads what was written since, and so does the fold."""
        while self.folded < len(self.log):
            event = self.log[self.folded]
            self.folded += 1
            for process in self.processes:
                process.breakers.observe(decoded(event))
            self.plane.apply(self.folded, event.tenant, event.stream, self.folded, decoded(event))


class Process:
    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.poked: list[str] = []
        began = world.now - len(name)
        self.breakers = Breakers(
            world.plane.endpoints.breakers,
            CircuitPolicy(),
            lambda subject, event: world.log.append(event),
            instance=lambda: name,
            clock=lambda: world.now - began,
            wall=lambda: world.now,
        )
        self.breakers.on_change(self.poked.append)

    def state(self, endpoint: Endpoint = MAIN) -> CircuitState:
        return self.breakers.standing(endpoint).state

    async def call(self, fault: ProviderFault | None = None, endpoint: Endpoint = MAIN) -> None:
        async def work() -> None:
            if fault is not None:
                raise ProviderError(fault, "no")

        permit = self.breakers.of(endpoint).admit()
        assert permit is not None
        try:
            await permit.run(work)
        except ProviderError:
            assert fault is not None

    async def fail(self, times: int = 5, endpoint: Endpoint = MAIN) -> None:
        for _ in range(times):
            await self.call(ProviderFault.SERVER, endpoint)


def decoded(event: NewEvent) -> EventData:
    return decode_data(event.type, event.data, event.schema_version)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_circuit_that_opens_in_one_process_opens_in_the_others_until_the_same_time(world: World) -> None:
    one, two = world.process("one"), world.process("second")
    assert two.state() is CLOSED
    await one.fail()
    world.now += 4
    world.tell()
    assert two.state() is OPEN
    assert two.breakers.standing(MAIN).open_for == pytest.approx(one.breakers.of(MAIN).open_for) == pytest.approx(26)
    assert two.breakers.standing(MAIN).adopted
    assert not one.breakers.standing(MAIN).adopted
    assert two.poked == ["main"]
    assert world.words() == [("one", "closed", "open")]  # what was adopted is not said again


async def test_trials_of_one_process_close_the_circuit_of_those_that_only_heard_of_it(world: World) -> None:
    one, two = world.process("one"), world.process("second")
    two.state()
    await one.fail()
    world.tell()
    world.now += 30
    await one.call()
    await one.call()
    world.tell()
    assert two.state() is CLOSED
    assert world.words() == [("one", "closed", "open"), ("one", "open", "half_open"), ("one", "half_open", "closed")]


async def test_what_a_process_has_seen_itself_no_other_process_closes(world: World) -> None:
    one, two = world.process("one"), world.process("second")
    await two.fail()
    await one.fail()
    world.tell()
    world.now += 30
    await one.call()
    await one.call()
    world.tell()
    assert one.state() is CLOSED
    assert two.state() is HALF_OPEN


async def test_a_trial_that_fails_anywhere_opens_it_everywhere(world: World) -> None:
    one, two = world.process("one"), world.process("second")
    two.state()
    await one.fail()
    world.tell()
    world.now += 30
    await two.call()
    world.tell()
    await one.call(ProviderFault.CONNECTION)
    world.tell()
    assert one.state() is two.state() is OPEN
    assert two.breakers.standing(MAIN).open_for == pytest.approx(30)


async def test_processes_that_find_out_the_same_say_it_once_between_them(world: World) -> None:
    processes = [world.process(f"p{n}") for n in range(8)]
    for process in processes:
        await process.fail(4)
    await processes[0].fail(1)
    world.tell()
    assert [p.state() for p in processes] == [OPEN] * 8
    world.now += 30
    for process in processes:
        await process.call()
        world.tell()
    for process in processes[1:]:
        await process.call()
        world.tell()
    assert [state for _, _, state in world.words()] == ["open", "half_open", "closed"]


async def test_a_process_that_starts_finds_circuits_open_and_those_whose_time_has_passed_half_open(
    world: World,
) -> None:
    await world.process("one").fail()
    world.tell()
    world.now += 10
    late = world.process("late")
    assert late.state() is OPEN
    assert late.breakers.standing(MAIN).open_for == pytest.approx(20)
    world.now += 3600
    later = world.process("later")
    assert later.state() is HALF_OPEN
    await later.call()
    await later.call()
    world.tell()
    assert {p.state() for p in world.processes} == {CLOSED, HALF_OPEN}  # the first has seen for itself
    assert late.state() is CLOSED
    assert world.process("last").state() is CLOSED


async def test_clocks_that_differ_by_hours_do_not_keep_a_circuit_open_for_hours(world: World) -> None:
    one, two = world.process("one"), world.process("second")
    two.state()
    await one.fail()
    world.now -= 7200  # here it is two hours earlier
    world.tell()
    assert two.breakers.standing(MAIN).open_for == pytest.approx(30)


async def test_a_reset_closes_it_everywhere_and_says_who_did_it(world: World) -> None:
    one, two = world.process("one"), world.process("second")
    await two.fail()
    await one.fail()
    world.tell()
    [decision] = decide_reset_breaker(world.plane, MAIN, "key:op", now=world.now)
    assert isinstance(decision.data, BreakerChanged)
    assert (decision.tenant, decision.stream) == ("_system", "endpoint/main")
    assert (decision.data.previous, decision.data.state, decision.data.reason) == ("open", "closed", "reset")
    assert decision.data.actor == "key:op"
    for process in world.processes:
        process.breakers.observe(decision.data)
    world.plane.apply(9, decision.tenant, decision.stream, 9, decision.data)
    assert one.state() is two.state() is CLOSED
    assert world.process("later").state() is CLOSED
    assert decide_reset_breaker(world.plane, MAIN, "key:op", now=world.now) == []


async def test_a_reset_closes_what_waits_for_its_own_trial_calls_though_the_last_word_is_closed(world: World) -> None:
    one, two = world.process("one"), world.process("second")
    await two.fail()
    await one.fail()
    world.now += 30
    await one.call()
    await one.call()
    world.tell()
    assert (one.state(), two.state()) == (CLOSED, HALF_OPEN)
    [decision] = decide_reset_breaker(world.plane, MAIN, "key:op", now=world.now, state=one.state())
    two.breakers.observe(decision.data)
    assert two.state() is CLOSED
    assert decide_reset_breaker(ControlPlane(), MAIN, "key:op", now=world.now) == []


async def test_the_word_of_a_tenants_own_endpoint_is_of_that_tenant(world: World) -> None:
    one = world.process("one")
    await one.fail(endpoint=OWN)
    assert [(e.tenant, e.stream) for e in world.log] == [("acme", "endpoint/own")]


async def test_an_endpoint_of_another_owner_under_the_same_name_is_another_circuit_and_one_that_is_gone_is_forgotten(
    world: World,
) -> None:
    one = world.process("one")
    await one.fail(endpoint=MAIN)
    assert one.breakers.states() == {"main": OPEN}
    world.tell()
    assert one.state(Endpoint("own", "openai", {}, tenant="acme")) is CLOSED
    assert one.breakers.of(MAIN) is one.breakers.of(MAIN)
    assert one.breakers.of(MAIN) is not one.breakers.of(Endpoint("main", "openai", {}, tenant="acme"))
    one.breakers.keep(["other"])
    assert one.breakers.states() == {}


async def test_lanes_are_poked_when_another_trial_call_may_go_out(world: World) -> None:
    one = world.process("one")
    await one.fail()
    world.now += 30
    del one.poked[:]
    await one.call(ProviderFault.RATE_LIMITED)
    assert one.poked == ["main", "main"]  # it is half open; the slot is free again


async def test_calls_that_had_no_time_to_be_answered_in_do_not_open_a_circuit(world: World) -> None:
    one = world.process("one")
    for _ in range(20):
        await one.call(ProviderFault.TIMEOUT)
    assert one.state() is CLOSED


async def test_changes_are_counted(world: World) -> None:
    one = world.process("one")
    for _ in range(2):
        await one.fail()
        world.now += 30
        await one.call()
        await one.call()
    assert one.breakers.changes == {
        ("main", "closed", "open"): 2,
        ("main", "open", "half_open"): 2,
        ("main", "half_open", "closed"): 2,
    }


async def test_while_the_log_is_away_the_latest_word_of_each_endpoint_is_kept_and_then_written() -> None:
    written: list[bytes] = []
    gate, writing, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def append(event: NewEvent) -> None:
        writing.set()
        await gate.wait()
        written.append(event.data)
        if len(written) == 3:
            done.set()

    def event(text: str) -> NewEvent:
        return NewEvent(key=b"k", event_id=b"i", tenant="t", stream="s", type="x", data=text.encode(), schema_version=1)

    announcer = Announcer(append)
    task = asyncio.create_task(announcer.run())
    announcer.say("a", event("a1"))
    await writing.wait()
    for n in range(100):
        announcer.say("b", event(f"b{n}"))
        announcer.say("a", event(f"a{n}"))
    assert len(announcer._pending) == 2
    gate.set()
    await done.wait()
    task.cancel()
    assert written == [b"a1", b"b99", b"a99"]


async def test_a_call_that_outlasts_its_endpoint_ends_and_says_nothing_of_the_next_one_of_that_name() -> None:
    world = World()
    one = world.process("a")
    for _ in range(4):
        await one.call(ProviderFault.SERVER)
    permit = one.breakers.of(MAIN).admit()
    assert permit is not None

    async def fails() -> None:
        one.breakers.keep([])  # it is undeployed meanwhile
        raise ProviderError(ProviderFault.SERVER, "no")

    with pytest.raises(ProviderError):
        await permit.run(fails)
    assert (world.words(), one.state()) == ([], CLOSED)


@pytest.mark.parametrize("known", [False, True])
async def test_what_is_deployed_anew_begins_with_a_closed_circuit_in_every_process(known: bool) -> None:
    world = World()
    one, two = world.process("a"), world.process("b")
    for _ in range(5):
        await one.call(ProviderFault.SERVER, OWN)
    world.tell()
    assert one.state(OWN) is two.state(OWN) is OPEN
    if known:
        one.breakers.keep([])
    for state in ("preparing", "allocating"):
        data = DeploymentChanged(
            "own", "new", "small", state, 1, spec=EndpointSpec("openai", {"small": ""}), owner="acme"
        )
        world.log.append(decision_event("acme", "endpoint/own", data))
    world.tell()
    assert one.state(OWN) is two.state(OWN) is world.process("c").state(OWN) is CLOSED
    for _ in range(5):
        await two.call(ProviderFault.SERVER, OWN)
    world.tell()
    assert one.state(OWN) is OPEN


async def test_nothing_is_kept_of_endpoints_that_are_gone() -> None:
    world = World()
    one = world.process("a")
    for endpoint in (MAIN, OWN):
        for _ in range(5):
            await one.call(ProviderFault.SERVER, endpoint)
    one.breakers.keep(["main"])
    assert set(one.breakers.states()) == {name for name, *_ in one.breakers.changes} == {"main"}
