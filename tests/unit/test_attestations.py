"""Endpoints are held against the references of their spaces, once however many wait; what drifted is kept out, by itself and until it passes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from domain.attestations import quarantined
from domain.catalogue import Candidate, Catalogue, Endpoint, Model, Offering
from domain.decoding import decode_data
from domain.errors import GatewayError
from domain.events import EndpointAttested
from domain.plane import ControlPlane
from domain.ports.event_log import Appended, AppendStatus, NewEvent
from domain.ports.provider import ProviderError, ProviderFault
from domain.prices import UNKNOWN
from gateway.catalogue.attestation import Answer
from gateway.catalogue.probes import PROBES
from gateway.endpoints.attest_due import AGAIN_SECONDS, EARLY, DueAttestations
from gateway.endpoints.attest_model import attest_model
from gateway.endpoints.attestations import Attestations
from tests.support.references import Kept
from tests.support.waiting import until

Rows = NDArray[np.float32]
MODEL = Model("m", "1", 64, 100, None, True, 1, dimensions_allowed=(16,), dimensions_range=(8, 64))
SPACE = MODEL.space(64, None)
HOUR = 3600


def vectors(seed: int, size: int = 64) -> Rows:
    rows = np.random.default_rng(seed).normal(size=(len(PROBES), 64)).astype(np.float32)[:, :size]
    return cast("Rows", rows / np.linalg.norm(rows, axis=1, keepdims=True))


def endpoint(name: str, tenant: str | None = None, base_url: str | None = None) -> Endpoint:
    return Endpoint(name, "p", {"m": ""}, base_url=base_url, tenant=tenant)


class World:
    """The database, the log, and the providers behind the endpoints: what each answers, a fault, or nothing (an event to wait for)."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.kept = Kept()
        self.log: list[NewEvent] = []
        self.endpoints = endpoints
        self.answers: dict[str, Rows | GatewayError | asyncio.Event] = {e.name: vectors(1) for e in endpoints}
        self.asked: list[tuple[str, int | None, str | None]] = []
        self.now = time.time()
        self.models = self.catalogue()
        self.process = Process(self)

    def catalogue(self) -> Catalogue:
        return Catalogue([MODEL], [Offering("m", "p", "pm", UNKNOWN, 64, 10_000)], self.endpoints)

    def candidate(self, name: str) -> Candidate:
        return next(c for c in self.catalogue().all_candidates("m") if c.endpoint.name == name)

    async def ask(self, candidate: Candidate, texts: Sequence[str], size: int | None, input_type: str | None) -> Answer:
        name = candidate.endpoint.name
        self.asked.append((name, size, input_type))
        await asyncio.sleep(0)
        if isinstance(answer := self.answers[name], asyncio.Event):
            await answer.wait()
            answer = vectors(1)
        if isinstance(answer, GatewayError):
            raise answer
        rows = answer[:, :size]
        return Answer(rows / np.linalg.norm(rows, axis=1, keepdims=True), name, "", 7)

    async def order(self, **options: Any) -> list[dict[str, Any]]:
        """What somebody who orders an attestation is told."""
        process = self.process
        answer = await attest_model(
            process.attestations, process.plane.endpoints, self.catalogue(), "m", actor="key:k", **options
        )
        return [msgspec.to_builtins(d) for d in answer.attestations]

    def events(self) -> list[EndpointAttested]:
        return [cast("EndpointAttested", decode_data(e.type, e.data, e.schema_version)) for e in self.log]


class Process:
    """One gateway process of that world, which folds the log when it is told to."""

    def __init__(self, world: World, *, enabled: bool = True) -> None:
        self.world = world
        self.plane = ControlPlane()
        self.attestations = Attestations(
            plane=self.plane,
            catalogue=lambda: world.models,
            pool=cast("Any", world.kept),
            ask=world.ask,
            ready=self.ready,
            append=self.append,
            reach=self.reach,
            enabled=enabled,
            clock=lambda: world.now,
        )

    async def ready(self, owner: str | None) -> None:
        pass

    async def append(self, events: Sequence[NewEvent]) -> list[Appended]:
        self.world.log += events
        return [Appended(AppendStatus.APPENDED, len(self.world.log)) for _ in events]

    async def reach(self, position: int) -> None:
        for number in range(self.plane.position, position):
            event = self.world.log[number]
            data = decode_data(event.type, event.data, event.schema_version)
            self.plane.apply(number + 1, event.tenant, event.stream, None, data)

    def state(self, name: str, space: str = SPACE) -> str:
        return self.attestations.state(self.world.candidate(name).endpoint, space).value

    async def ensure(self, name: str, size: int = 64, input_type: str | None = None) -> None:
        await self.attestations.ensure(self.world.candidate(name), size, input_type)

    async def attest(self, name: str) -> EndpointAttested:
        return await self.attestations.attest(self.world.candidate(name), 64, None)

    def due(self, every_hours: int = 24) -> DueAttestations:
        world = self.world
        return DueAttestations(self.plane.endpoints, self.attestations, world.catalogue, every_hours, lambda: world.now)


@pytest.fixture
def world() -> World:
    return World(endpoint("one"), endpoint("two"))


async def test_the_first_endpoint_gives_the_references_and_others_are_held_against_them(world: World) -> None:
    process = world.process
    assert process.state("one") == "unattested"
    await process.ensure("one", input_type="query")
    await process.ensure("one")
    assert (process.state("one"), world.asked) == ("attested", [("one", 64, "document")] * 2)
    noise = np.random.default_rng(3).normal(scale=2e-3, size=(len(PROBES), 64)).astype(np.float32)
    world.answers["two"] = vectors(1).astype(np.float16).astype(np.float32) + noise
    await process.ensure("two")
    assert process.state("two") == "attested"
    first, second = world.events()
    assert (first.references, first.cosine_min, first.epoch) == (second.references, 1_000_000, 0)
    assert 999_000 <= (second.cosine_min or 0) < 1_000_000
    assert len(world.asked) == 3, "of an endpoint that is not the first one call is enough"


async def test_a_silent_change_of_vectors_is_found_and_keeps_that_endpoint_out_of_the_space_alone(world: World) -> None:
    process, other = world.process, Process(world)
    await process.ensure("one")
    await process.ensure("two")
    world.answers["one"] = vectors(2)
    world.now += 25 * HOUR
    assert await process.due().run() == {"passed": 1, "drifted": 1, "unanswered": 0}
    with pytest.raises(ProviderError) as refused:
        await process.ensure("one")
    assert refused.value.fault is ProviderFault.DRIFTED
    await other.reach(len(world.log))
    assert [p.state(name) for p in (process, other) for name in ("one", "two")] == ["quarantined", "attested"] * 2
    [told] = quarantined(process.plane.endpoints)
    assert (told.endpoint, told.cosine_min is not None, len(told.problems)) == ("one", True, 1)
    calls = len(world.asked)
    with pytest.raises(ProviderError):
        await process.ensure("one")
    assert len(world.asked) == calls, "nothing is sent to it while it is quarantined"
    unchecked = Process(world, enabled=False)
    await unchecked.reach(len(world.log))
    await unchecked.ensure("one")
    assert unchecked.state("one") == "attested", "without attestation it would have served"


async def test_an_endpoint_that_is_wrong_from_the_start_does_not_serve_and_gives_no_references(world: World) -> None:
    process = world.process
    world.answers["one"] = np.repeat(vectors(1)[:1], len(PROBES), axis=0)
    with pytest.raises(ProviderError) as refused:
        await process.ensure("one")
    assert (refused.value.fault, process.state("one"), world.kept.rows) == (ProviderFault.DRIFTED, "quarantined", {})
    await process.ensure("two")
    assert process.state("two") == "attested"


async def test_quarantine_is_tried_again_an_hour_later_and_lifted_by_passing(world: World) -> None:
    process = world.process
    await process.ensure("two")
    world.answers["one"] = vectors(2)
    with pytest.raises(ProviderError):
        await process.ensure("one")
    with pytest.raises(ProviderError):
        await process.attestations.ensure(world.candidate("one"), 64, None, again=True)
    assert world.asked[-1][0] == "one", "whoever puts it to work has it asked again"
    world.now += AGAIN_SECONDS - 1
    assert list(process.due().due()) == []
    world.answers["one"] = vectors(1)
    world.now += 1
    assert await process.due().run() == {"passed": 1, "drifted": 0, "unanswered": 0}
    assert process.state("one") == "attested"
    assert quarantined(process.plane.endpoints) == []


def failing(code: str, *reasons: str) -> GatewayError:
    attempts = [{"endpoint": "one", "reason": reason, "ms": 5, "status": 500} for reason in reasons]
    return GatewayError(code, "no", details={"attempts": attempts} if reasons else None)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (failing("provider_unavailable", "connection", "server"), ProviderFault.SERVER),
        (failing("provider_unavailable", "timeout"), ProviderFault.TIMEOUT),
        (failing("provider_unavailable", "circuit_open"), ProviderFault.CIRCUIT_OPEN),
        (failing("provider_unavailable", "bad_answer"), ProviderFault.BAD_ANSWER),
        (failing("deadline_exceeded"), ProviderFault.TIMEOUT),
        (failing("provider_error", "refused"), ProviderFault.UNATTESTED),
        (failing("quota_exceeded"), ProviderFault.UNATTESTED),
        (failing("unavailable"), ProviderFault.UNATTESTED),
    ],
)
async def test_probes_that_are_not_answered_are_a_failed_attempt_and_no_drift(
    world: World, error: GatewayError, fault: ProviderFault
) -> None:
    process = world.process
    world.answers["one"] = error
    with pytest.raises(ProviderError) as failed:
        await process.ensure("one")
    assert (failed.value.fault, failed.value.fault.elsewhere) == (fault, True)
    assert (process.state("one"), world.log, world.kept.rows) == ("unattested", [], {})
    world.answers["one"] = vectors(1)
    await process.ensure("one")
    assert process.state("one") == "attested"


async def test_a_database_that_is_away_is_a_failed_attempt_too(world: World) -> None:
    world.kept.away = True
    with pytest.raises(ProviderError) as failed:
        await world.process.ensure("one")
    assert failed.value.fault is ProviderFault.UNATTESTED
    world.kept.away = False
    await world.process.ensure("one")
    assert world.process.state("one") == "attested"


async def test_a_failed_attestation_of_what_was_attested_leaves_it_so_and_is_tried_again(world: World) -> None:
    process = world.process
    await process.ensure("one")
    world.now += 25 * HOUR
    world.answers["one"] = failing("provider_unavailable", "timeout")
    for _ in range(2):
        assert await process.due().run() == {"passed": 0, "drifted": 0, "unanswered": 1}
        assert process.state("one") == "attested"


async def test_a_hundred_that_wait_ask_once_and_one_that_leaves_takes_nobody_along(world: World) -> None:
    process, answered = world.process, asyncio.Event()
    await process.ensure("two")
    world.answers["one"] = answered
    waiting = [asyncio.create_task(process.ensure("one")) for _ in range(100)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    answered.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [None] * 99
    assert (len(world.asked), len(world.log)) == (3, 2)


async def test_a_drift_or_failure_is_told_to_all_who_wait(world: World) -> None:
    process = world.process
    await process.ensure("two")
    world.answers["one"] = vectors(2)
    done = await asyncio.gather(*(process.ensure("one") for _ in range(5)), return_exceptions=True)
    assert [cast("ProviderError", e).fault for e in done] == [ProviderFault.DRIFTED] * 5
    assert len(world.log) == 2


async def test_of_two_processes_that_begin_at_once_the_first_to_write_decides(world: World) -> None:
    one, other = world.process, Process(world)
    await asyncio.gather(one.ensure("one"), other.ensure("one"))
    assert len({e.references for e in world.events()}) == 1
    assert all(e.passed for e in world.events())
    rival = World(endpoint("one"), endpoint("two"))
    rival.answers["two"] = vectors(2)
    done = await asyncio.gather(rival.process.ensure("one"), Process(rival).ensure("two"), return_exceptions=True)
    assert sorted(e.passed for e in rival.events()) == [False, True]
    assert sum(isinstance(e, ProviderError) for e in done) == 1
    assert len(rival.kept.rows) == len(PROBES), "the references are all of one endpoint"


async def test_close_ends_what_is_under_way(world: World) -> None:
    world.answers["one"] = asyncio.Event()
    waiting = asyncio.create_task(world.process.ensure("one"))
    await asyncio.sleep(0)
    await world.process.attestations.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_another_configuration_is_another_endpoint(world: World) -> None:
    process = world.process
    await process.ensure("one")
    world.endpoints = (endpoint("one", base_url="https://elsewhere.example.com"), endpoint("two"))
    assert process.state("one") == "unattested"
    world.now += 25 * HOUR
    assert list(process.due().due()) == [], "it is attested when a request comes for it"
    world.answers["one"] = vectors(2)
    with pytest.raises(ProviderError):
        await process.ensure("one")
    world.endpoints = (endpoint("one", base_url="https://third.example.com"), endpoint("two"))
    assert process.state("one") == "unattested", "what another place did does not keep this one out"


async def test_each_size_and_input_type_with_a_space_of_its_own_is_attested_by_itself(world: World) -> None:
    process = world.process
    await process.ensure("one", 16, "clustering")
    await process.ensure("one", 16, "query")
    assert world.asked == [("one", 16, "clustering")] * 2 + [("one", 16, "document")] * 2
    assert (
        process.state("one", MODEL.space(16, "clustering")) == process.state("one", MODEL.space(16, None)) == "attested"
    )
    assert process.state("one") == process.state("one", MODEL.space(16, "classification")) == "unattested"


async def test_sizes_that_are_freely_chosen_go_by_the_models_own_and_are_not_asked_for(world: World) -> None:
    process = world.process
    for size in range(17, 64):
        await process.ensure("one", size)
    assert world.asked == [("one", 64, "document")] * 2
    assert process.state("one", MODEL.space(33, None)) == "attested"
    world.answers["one"] = vectors(2)
    assert not (await process.attest("one")).passed
    assert process.state("one", MODEL.space(33, None)) == "quarantined"
    assert process.state("one", MODEL.space(33, "clustering")) == "unattested"


# -- endpoints of tenants -----------------------------------------------------------------------------------------------


async def test_a_tenants_endpoint_gives_no_references_to_others_and_is_held_against_its_own() -> None:
    world = World(endpoint("mine", "acme"), endpoint("more", "acme"), endpoint("theirs", "globex"), endpoint("shared"))
    process = world.process
    world.answers["mine"] = world.answers["more"] = vectors(666)
    await process.ensure("mine")
    await process.ensure("more")
    await process.ensure("theirs")
    await process.ensure("shared")
    owners = [(e.endpoint, e.owner, e.passed) for e in world.events()]
    assert owners == [
        ("mine", "acme", True),
        ("more", "acme", True),
        ("theirs", "globex", True),
        ("shared", None, True),
    ]
    assert [e.tenant for e in world.log] == ["acme", "acme", "globex", "_system"]
    assert process.state("shared") == "attested", "the tenant's vectors have not become those of the space"
    # Now that the space has references, those endpoints are held against them.
    assert [process.state(name) for name in ("mine", "theirs")] == ["unattested"] * 2
    with pytest.raises(ProviderError):
        await process.ensure("mine")
    await process.ensure("theirs")
    assert [process.state(name) for name in ("mine", "theirs", "shared")] == ["quarantined", "attested", "attested"]


async def test_a_tenants_endpoint_that_changes_is_found_by_what_it_gave_before() -> None:
    world = World(endpoint("mine", "acme"))
    await world.process.ensure("mine")
    world.answers["mine"] = vectors(2)
    assert not (await world.process.attest("mine")).passed
    assert world.process.state("mine") == "quarantined"
    await world.order(new_references=True, endpoint="mine")
    assert world.process.state("mine") == "attested"


async def test_a_tenants_endpoint_cannot_be_made_to_give_the_space_new_references() -> None:
    world = World(endpoint("mine", "acme"), endpoint("shared"))
    await world.process.ensure("shared")
    asked = len(world.asked)
    with pytest.raises(GatewayError, match="a tenant's endpoint gives it no others"):
        await world.order(new_references=True, endpoint="mine")
    assert (len(world.asked), world.process.state("shared")) == (asked, "attested")
    alone = World(endpoint("mine", "acme"))
    with pytest.raises(GatewayError, match="only endpoints of tenants serve m"):
        await alone.order(new_references=True)


# -- on order -------------------------------------------------------------------------------------------------------------


async def test_new_references_are_taken_on_order_and_unattest_every_endpoint_of_the_space(world: World) -> None:
    process, other = world.process, Process(world)
    await process.ensure("one")
    await process.ensure("one", 16)
    await process.ensure("two")
    world.answers["one"] = vectors(2)
    found = await world.order(new_references=True, endpoint="one")
    assert [(d["space"], d["passed"], d["epoch"]) for d in found] == [
        (SPACE, True, 1),
        (MODEL.space(16, None), True, 1),
    ]
    assert {e.actor for e in world.events()[-2:]} == {"key:k"}
    await other.reach(len(world.log))
    assert [(p.state("one"), p.state("two")) for p in (process, other)] == [("attested", "unattested")] * 2
    with pytest.raises(ProviderError):
        await other.ensure("two")
    world.answers["two"] = vectors(2)
    assert (await process.attest("two")).passed
    assert len(world.kept.rows) == 4 * len(PROBES), "what was there before is kept"


async def test_an_attestation_by_the_old_references_counts_for_nothing_once_they_are_renewed(world: World) -> None:
    process, behind = world.process, Process(world)
    await process.ensure("one")
    await behind.reach(len(world.log))
    await world.order(new_references=True, endpoint="one")
    assert (await behind.attest("two")).epoch == 0
    await process.reach(len(world.log))
    assert process.state("two") == "unattested"


async def test_renewing_takes_the_next_epoch_even_where_one_was_begun_and_never_logged(world: World) -> None:
    process = world.process
    await process.ensure("one")
    world.kept.rows.update({(SPACE, "", 1, p): b"\0" * 256 for (_, _, _, p) in list(world.kept.rows)})
    found = await world.order(new_references=True)
    assert [(d["endpoint"], d["passed"], d["epoch"]) for d in found] == [("one", True, 2), ("two", True, 2)]


async def test_an_order_tells_what_was_found_of_each_endpoint_and_what_was_not_answered(world: World) -> None:
    await world.process.ensure("one", 16)
    world.answers["two"] = failing("provider_unavailable", "timeout")
    found = await world.order()
    assert [(d["endpoint"], d["space"], d["passed"]) for d in found] == [
        ("one", SPACE, True),
        ("one", MODEL.space(16, None), True),
        ("two", SPACE, None),
    ]
    assert found[0]["cosine_min"] == 1.0
    assert found[2]["failure"] == {"reason": "timeout", "code": "provider_unavailable", "message": "no"}
    with pytest.raises(GatewayError, match="does not serve m; those that do: one, two"):
        await world.order(endpoint="three")
    with pytest.raises(GatewayError, match="the catalogue has no model 'n'"):
        await attest_model(
            world.process.attestations, world.process.plane.endpoints, world.catalogue(), "n", actor="key:k"
        )


# -- when -----------------------------------------------------------------------------------------------------------------


async def test_attestations_come_due_within_their_period_and_not_all_at_once() -> None:
    world = World(*(endpoint(f"e{n}") for n in range(20)))
    for e in world.endpoints:
        await world.process.ensure(e.name)
    due = world.process.due()
    begun, counts = world.now, []
    for share in (0, 1 - EARLY - 0.01, 1 - EARLY / 2, 1):
        world.now = begun + share * 24 * HOUR
        counts.append(len(list(due.due())))
    assert counts[:2] == [0, 0]
    assert 2 < counts[2] < 18
    assert counts[3] == 20
    assert await due.run() == {"passed": 20, "drifted": 0, "unanswered": 0}
    assert list(due.due()) == []


async def test_an_order_waits_for_endpoints_that_hang_side_by_side_and_tells_them_in_order() -> None:
    world = World(endpoint("shared"), *(endpoint(f"mine{n}", "acme") for n in range(3)))
    await world.process.ensure("shared")
    hangs = asyncio.Event()
    world.answers |= {f"mine{n}": hangs for n in range(3)}
    ordered = asyncio.create_task(world.order())
    await until(lambda: {f"mine{n}" for n in range(3)} <= {n for n, *_ in world.asked}, what="all are asked", timeout=2)
    hangs.set()
    assert [d["endpoint"] for d in await ordered] == ["shared", "mine0", "mine1", "mine2"]


async def test_one_that_breaks_what_attests_it_keeps_no_other_from_being_attested() -> None:
    world = World(endpoint("broken"), endpoint("shared"))
    for e in world.endpoints:
        await world.process.ensure(e.name)
    world.now += 25 * HOUR
    world.answers["broken"] = np.zeros(3, dtype=np.float32)
    assert await world.process.due().run() == {"passed": 1, "drifted": 0, "unanswered": 1}


async def test_a_tenants_endpoints_that_hang_hold_up_nobody_elses_attestation() -> None:
    mine, others = [endpoint(f"mine{n}", "acme") for n in range(8)], [endpoint("shared"), endpoint("theirs", "other")]
    world = World(*others, *mine)
    for e in world.endpoints:
        await world.process.ensure(e.name)
    world.now += 25 * HOUR
    world.asked.clear()
    hangs = asyncio.Event()
    for e in mine:
        world.answers[e.name] = hangs
    running = asyncio.create_task(world.process.due().run())
    await until(
        lambda: {"shared", "theirs"} < {name for name, *_ in world.asked}, what="the others are asked", timeout=1
    )
    assert len([name for name, *_ in world.asked if name.startswith("mine")]) == 1
    hangs.set()
    assert sum((await running).values()) == len(world.endpoints)
