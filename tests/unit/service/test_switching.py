"""A request whose texts move on in several parts at once, or that changes its model while some of them are on their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from domain.catalogue import Candidate, Endpoint
from domain.events import AgentRegistered, Preferences
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from domain.tenancy import Principal
from gateway.service.pending import Pending
from gateway.service.service import RequestService
from tests.unit.service import test_sending
from tests.unit.service.conftest import PRICE_PICO, ScriptedProvider
from tests.unit.service.test_sending import DEAR_PICO, Holds, Probes, Site, catalogue, failing, generated, opened, right

site = test_sending.site
TEXTS = [f"text {i}" for i in range(40)]
"""Of three calls."""


@pytest.fixture
async def three() -> AsyncIterator[Site]:
    """A site with a third endpoint of model m, d, that stands by."""
    async with opened(catalogue(Endpoint("d", "p", {"m": ""}, weight=0))) as made:
        yield made


def probes_fail(where: str, fault: ProviderFault) -> Callable[[str], None]:
    def outcome(name: str) -> None:
        if name == where:
            raise ProviderError(fault, "as told")

    return outcome


async def test_parts_of_a_request_that_wait_for_one_attestation_all_go_on_where_it_fails(three: Site) -> None:
    three.providers["a"].behaviour = failing(ProviderFault.SERVER)
    three.probes.standing["b"] = "unattested"
    three.probes.outcome = probes_fail("b", ProviderFault.AUTHENTICATION)
    reply = await three.ask(TEXTS, model="m", deadline_ms=5000)
    assert right(reply, TEXTS)
    assert sorted(t for c in three.providers["d"].calls for t in c) == sorted(TEXTS)
    assert three.providers["b"].calls == []


async def test_parts_that_fail_apart_change_the_model_once(site: Site) -> None:
    site.providers["a"].behaviour = failing(ProviderFault.SERVER)
    site.probes.standing["b"] = "unattested"
    site.probes.outcome = probes_fail("b", ProviderFault.AUTHENTICATION)
    reply = await site.ask(TEXTS, model="m", failover="any", deadline_ms=5000)
    assert right(reply, TEXTS)
    assert sorted(t for c in site.providers["c"].calls for t in c) == sorted(TEXTS), "each text once"
    assert (await generated(site)).billed_tokens == 80


async def test_a_stream_that_changes_its_model_gives_out_nothing_of_the_one_it_leaves(site: Site) -> None:
    texts, both = TEXTS[:20], asyncio.Event()

    class Late(ScriptedProvider):
        async def embed(self, call: EmbedCall) -> Any:
            if len(call.texts) < 16:
                raise ProviderError(ProviderFault.SERVER, "as told")
            await both.wait()
            await asyncio.sleep(0)  # answers in the turn of the loop after the one that finds no other endpoint
            return await super().embed(call)

    class Failing(Probes):
        async def ensure(self, candidate: Candidate, size: int, input_type: str | None) -> None:
            asyncio.get_running_loop().call_soon(both.set)
            await both.wait()
            raise ProviderError(ProviderFault.AUTHENTICATION, "as told")

    site.service.sending._attests = Failing()
    site.providers["a"] = Late()
    site.probes.standing["b"] = "unattested"
    reply = await site.ask(texts, model="m", failover="any", stream=True, deadline_ms=5000)
    assert reply.refusal is None
    assert reply.answer is not None
    assert reply.answer.model == "n"
    assert len(reply.streamed) == 20, "each row once"
    assert sorted(t for c in site.providers["c"].calls for t in c) == sorted(texts)


async def test_a_replay_goes_on_to_an_endpoint_that_was_beyond_the_agents_limit_of_cost(site: Site) -> None:
    site.plane.apply(
        1, "acme", "tenant/acme", None, AgentRegistered("a1", Preferences(max_cost_per_request_nano_usd=90))
    )
    first = await site.ask(["one", "two"], model="m")
    assert right(first, ["one", "two"])
    site.lru.resize(0, 3600)
    site.providers["a"].behaviour = failing(ProviderFault.SERVER)
    again = await site.ask(["one", "two"], model="m", deadline_ms=5000)
    assert right(again, ["one", "two"])
    assert again.answer is not None
    assert first.answer is not None
    assert (again.answer.replayed, again.answer.cost) == (True, first.answer.cost)
    assert len(site.providers["b"].calls) == 1


async def test_each_text_costs_us_what_the_endpoint_charges_that_answered_it(site: Site) -> None:
    def short(call: EmbedCall) -> None:
        if len(call.texts) < 16:
            raise ProviderError(ProviderFault.SERVER, "as told")

    texts = TEXTS[:20]
    site.providers["a"].behaviour = short
    assert right(await site.ask(texts, model="m"), texts)
    event = await generated(site)
    assert event.endpoint == "b"
    assert event.nano_usd == 40 * DEAR_PICO // 1000
    assert event.provider_nano_usd == (32 * PRICE_PICO + 8 * DEAR_PICO) // 1000


async def test_what_was_answered_before_another_model_took_over_costs_us_all_the_same(site: Site) -> None:
    def short(call: EmbedCall) -> None:
        if len(call.texts) < 16:
            raise ProviderError(ProviderFault.SERVER, "as told")

    texts = TEXTS[:20]
    for name in ("a", "b"):
        site.providers[name].behaviour = short
    reply = await site.ask(texts, model="m", failover="any")
    assert right(reply, texts)
    assert reply.answer is not None
    assert reply.answer.model == "n"
    event = await generated(site)
    assert event.nano_usd == 40 * PRICE_PICO // 1000
    assert event.provider_nano_usd == (32 + 40) * PRICE_PICO // 1000


async def test_what_a_tenants_own_endpoint_answered_costs_us_nothing(site: Site) -> None:
    def short(call: EmbedCall) -> None:
        if len(call.texts) < 16:
            raise ProviderError(ProviderFault.SERVER, "as told")

    texts = TEXTS[:20]
    site.principal = Principal("k2", "globex", frozenset({"agent"}))
    site.providers["own"].behaviour = short
    assert right(await site.ask(texts, model="m"), texts)
    event = await generated(site)
    assert event.endpoint == "a"
    assert event.provider_nano_usd == 8 * PRICE_PICO // 1000


@pytest.mark.parametrize("step", ["hand_over", "completed"])
async def test_a_defect_in_a_step_of_one_request_fails_no_other_of_its_call(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    if step == "hand_over":
        site.providers["a"].behaviour = failing(ProviderFault.SERVER)
    original = getattr(RequestService, step)

    def defective(self: RequestService, pending: Pending, *more: Any) -> None:
        if pending.message.id == "bad":
            raise KeyError("as told")
        original(self, pending, *more)

    monkeypatch.setattr(RequestService, step, defective)
    replies = [site.send(f"text {name}", id=name, model="m", deadline_ms=5000)[0] for name in ("r1", "bad", "r2")]
    for reply in replies:
        await reply.wait()
    assert right(replies[0], ["text r1"])
    assert right(replies[2], ["text r2"])
    assert replies[1].refusal is not None
    assert replies[1].refusal.code == "internal"
    again = await site.ask("text bad", id="again", model="m", deadline_ms=5000)
    assert right(again, ["text bad"]), "its text is not lost to others"


async def test_a_request_that_was_never_sent_goes_to_its_next_model_alone(site: Site) -> None:
    site.circuits["b"].open()
    site.probes.standing["a"] = "unattested"
    site.probes.outcome = probes_fail("a", ProviderFault.AUTHENTICATION)
    reply = await site.ask("one", model="m", failover="any", deadline_ms=5000)
    assert right(reply, ["one"])
    assert reply.answer is not None
    assert reply.answer.model == "n"
    assert site.providers["a"].calls == [], "it would have given a vector of another space"
    assert site.providers["c"].calls == [["one"]]


async def test_a_request_whose_circuit_opens_while_it_is_logged_goes_to_its_next_model_alone(site: Site) -> None:
    reply, _ = site.send("one", model="m", failover="any", deadline_ms=5000)
    for name in ("a", "b"):
        site.circuits[name].open()
    await reply.wait()
    assert right(reply, ["one"])
    assert [c for name in ("a", "b") for c in site.providers[name].calls] == []


@pytest.mark.parametrize("end", ["cancelled", "deadline_exceeded", "unavailable"])
async def test_a_request_that_ends_while_its_next_model_is_found_holds_nothing_and_is_sent_nowhere(
    site: Site, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    reached, let_go = asyncio.Event(), asyncio.Event()
    admit = Holds.__call__

    async def slowly(self: Holds, pending: Pending) -> None:
        reached.set()
        await let_go.wait()
        admit(self, pending)

    monkeypatch.setattr(
        Holds, "__call__", lambda self, p: slowly(self, p) if p.selection.model.id == "n" else admit(self, p)
    )
    for name in ("a", "b"):
        site.providers[name].behaviour = failing(ProviderFault.SERVER)
    reply, ticket = site.send("one", model="m", failover="any", deadline_ms=300 if end == "deadline_exceeded" else 5000)
    await reached.wait()
    if end == "cancelled":
        ticket.cancel()
    elif end == "unavailable":
        site.service.fenced()
    await reply.wait()
    let_go.set()
    assert reply.refusal is not None
    assert reply.refusal.code == end
    await asyncio.gather(*site.service._tasks)
    assert site.providers["c"].calls == []


async def test_a_resend_that_comes_while_the_first_changes_its_model_gets_the_same_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, let_go = asyncio.Event(), asyncio.Event()
    admit = Holds.__call__

    async def slowly(self: Holds, pending: Pending) -> None:
        reached.set()
        await let_go.wait()
        admit(self, pending)

    monkeypatch.setattr(
        Holds, "__call__", lambda self, p: slowly(self, p) if p.selection.model.id == "n" else admit(self, p)
    )
    for name in ("a", "b"):
        site.providers[name].behaviour = failing(ProviderFault.SERVER)
    first, _ = site.send("one", model="m", failover="any", deadline_ms=5000)
    await reached.wait()
    second, _ = site.send("one", model="m", failover="any", deadline_ms=5000)
    let_go.set()
    assert right(await first.wait(), ["one"])
    assert right(await second.wait(), ["one"])
    assert first.answer is not None
    assert second.answer is not None
    assert (second.answer.model, second.answer.event, second.answer.replayed) == ("n", first.answer.event, True)
    assert len(site.providers["c"].calls) == 1
