"""What a request does where the model that was chosen for it refuses: another, where another may answer, or a refusal that names some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from domain.catalogue import Catalogue
from domain.errors import GatewayError
from domain.events import (
    AgentRegistered,
    EmbeddingFailed,
    EmbeddingGenerated,
    EmbeddingRequested,
    EventData,
    Failover,
    Preferences,
    PriceSet,
    TenantConfigured,
    TenantModelConfigured,
)
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from domain.prices import PriceBook
from gateway.service.pending import Pending
from tests.support.menus import catalogue, model
from tests.unit.service import conftest
from tests.unit.service.conftest import DIMENSIONS, Rig, make_rig


class Used:
    """A gate at which the quotas of some models are used up. `slow`: it says so after a wait."""

    def __init__(self) -> None:
        self.models: dict[str, str] = {}
        self.slow = False
        self.asked: list[tuple[str, int]] = []
        self.released: list[str] = []

    def __call__(self, pending: Pending) -> Awaitable[None] | None:
        self.asked.append((pending.selection.model.id, pending.total_tokens))
        if self.slow:
            return self._wait(pending)
        self._check(pending)
        return None

    async def _wait(self, pending: Pending) -> None:
        await asyncio.sleep(0)
        self._check(pending)

    def _check(self, pending: Pending) -> None:
        name = pending.selection.model.id
        if name in self.models:
            raise GatewayError(self.models[name], f"{name} is used up", details={"window": "month", "alternatives": []})
        pending.hold = Hold(self, name)


class Hold:
    """What the gate gave out."""

    remaining: int | None = None

    def __init__(self, gate: Used, name: str) -> None:
        self._gate = gate
        self._name = name

    def settle(self, data: EventData) -> None:
        pass

    def release(self) -> None:
        self._gate.released.append(self._name)


class Site:
    """A rig of three models that one endpoint serves: a and b of words, c of at most 3 tokens a text and by estimate."""

    def __init__(self, rig: Rig, used: Used) -> None:
        self.rig = rig
        self.used = used

    def given(self, *events: EventData) -> None:
        plane = self.rig.service.selector._plane
        for data in events:
            plane.apply(plane.position + 1, "acme", "tenant/acme", None, data)

    def agent(self, **preferences: Any) -> None:
        self.given(AgentRegistered("a1", Preferences(**preferences)))

    async def generated(self) -> EmbeddingGenerated:
        (event,) = await self.rig.events("embedding.generated")
        assert isinstance(event, EmbeddingGenerated)
        return event


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    def three(_: int) -> Catalogue:
        sizes = {"a": 20, "b": 30, "c": 3}
        return catalogue(
            model(n, dimensions=DIMENSIONS, max_tokens=m, tokenizer="words", unit=False) for n, m in sizes.items()
        )

    monkeypatch.setattr(conftest, "make_catalogue", three)
    prices = PriceBook()
    for name, pico in (("a", 3000), ("b", 2000), ("c", 1000)):
        prices.apply(PriceSet(f"p-{name}", name, "p", effective_from=0, unit_pico_usd=pico))
    used = Used()
    rig = await make_rig(gates=[used], dry_gates=[used], prices=prices)
    yield Site(rig, used)
    await rig.service.close()
    await rig.appender.close()


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(("code", "reason"), [("quota_exceeded", "quota"), ("budget_exceeded", "budget")])
async def test_another_model_answers_where_the_quota_of_the_named_one_is_used_up(
    site: Site, slow: bool, code: str, reason: str
) -> None:
    site.used.models, site.used.slow = {"a": code}, slow
    reply = await site.rig.ask("one two", model="a", failover="any")
    assert reply.answer is not None
    assert (reply.answer.model, reply.answer.failover) == (
        "c",
        {"from": {"endpoint": "e", "model": "a"}, "to": {"endpoint": "e", "model": "c"}, "reason": reason},
    )
    event = await site.generated()
    assert (event.model, event.failover, event.nano_usd) == ("c", Failover("a", "e", reason), 2)
    (requested,) = await site.rig.events("embedding.requested")
    assert isinstance(requested, EmbeddingRequested)
    assert (requested.model, requested.space) == ("c", event.space)
    assert site.used.asked == [("a", 2), ("c", 2)]


async def test_explicit_fallbacks_are_tried_first_and_every_refusal_is_remembered(site: Site) -> None:
    site.given(
        TenantModelConfigured("a", fallback_models=["c", "b"]), TenantModelConfigured("b"), TenantModelConfigured("c")
    )
    site.used.models = {"a": "quota_exceeded", "c": "quota_exceeded"}
    reply = await site.rig.ask("one two", model="a", failover="any")
    assert reply.answer is not None
    assert reply.answer.model == "b"
    assert [name for name, _ in site.used.asked] == ["a", "c", "b"]


async def test_a_named_model_is_kept_to_and_the_refusal_names_what_would_answer(site: Site) -> None:
    site.used.models = {"a": "quota_exceeded"}
    for slow in (False, True):
        site.used.slow = slow
        refusal = await refused(site, "one two", model="a", id=f"slow-{slow}")
        assert (refusal.code, refusal.details) == ("quota_exceeded", {"window": "month", "alternatives": ["c", "b"]})
    assert await site.rig.events() == []


async def test_where_nothing_is_left_the_first_refusal_is_told(site: Site) -> None:
    site.used.models = {"a": "quota_exceeded", "b": "budget_exceeded", "c": "budget_exceeded"}
    refusal = await refused(site, "one two", model="a", failover="any")
    assert (refusal.code, refusal.message) == ("quota_exceeded", "a is used up")
    assert refusal.details == {"window": "month", "alternatives": []}


async def test_the_tenants_failover_holds_where_the_request_says_nothing(site: Site) -> None:
    site.used.models = {"a": "quota_exceeded"}
    site.given(TenantConfigured(failover="any"))
    reply = await site.rig.ask("one two", model="a", id="r1")
    assert reply.answer is not None
    assert reply.answer.model == "c"
    assert (await refused(site, "one two", model="a", id="r2", failover="same_space")).code == "quota_exceeded"


async def test_a_request_that_names_no_model_takes_the_next_unless_it_says_none(site: Site) -> None:
    site.agent(models=["a", "b"])
    site.used.models = {"a": "quota_exceeded"}
    reply = await site.rig.ask("one two", id="r1")
    assert reply.answer is not None
    assert reply.answer.model == "b"
    assert (await refused(site, "one two", id="r2", failover="none")).code == "quota_exceeded"


async def test_a_request_is_not_switched_by_other_refusals(site: Site) -> None:
    site.used.models = {"a": "rate_limited"}
    assert (await refused(site, "one two", model="a", failover="any")).code == "rate_limited"


async def test_what_is_embedded_by_the_other_model_is_cut_anew_from_the_texts_as_they_were_sent(site: Site) -> None:
    site.given(
        TenantModelConfigured("c"), TenantModelConfigured("b"), TenantModelConfigured("a", fallback_models=["b"])
    )
    site.used.models = {"c": "quota_exceeded"}
    reply = await site.rig.ask("one two three four five", model="c", failover="any", truncate="end")
    assert reply.answer is not None
    assert (reply.answer.usage.tokens, reply.answer.usage.truncated) == (5, [])
    assert site.used.asked == [("c", 3), ("b", 5)]
    assert site.rig.provider.calls == [["one two three four five"]]


async def test_a_text_too_long_for_the_first_in_line_goes_to_a_model_that_takes_it(site: Site) -> None:
    long = " ".join(["word"] * 25)
    site.agent(strategy="cost")
    reply = await site.rig.ask(long, id="r1")
    assert reply.answer is not None
    assert (reply.answer.model, reply.answer.failover) == ("b", None)
    assert (await refused(site, long, id="r2", model="c", failover="any")).code == "input_too_long"
    longest = await refused(site, " ".join(["word"] * 31), id="r3")
    assert (longest.code, longest.details) == (
        "input_too_long", {"field": "input", "index": 0, "tokens": 31, "max_tokens": 3}
    )  # fmt: skip


async def test_the_agents_cost_cap_is_held_against_the_count_of_tokens(site: Site) -> None:
    site.agent(models=["a", "b"], max_cost_per_request_nano_usd=5)
    for id_, text, expected in (("r1", "one", "a"), ("r2", "one two", "b"), ("r3", "one two three", "c")):
        reply = await site.rig.ask(text, id=id_)
        assert reply.answer is not None
        assert (reply.answer.model, reply.answer.failover) == (expected, None)
    assert (await refused(site, "one two three four five six", id="r4")).code == "budget_exceeded"
    refusal = await refused(site, "one two", id="r5", model="a")
    assert refusal.code == "budget_exceeded"
    assert refusal.details is not None
    assert (refusal.details["window"], refusal.details["limit"]) == ("request", 5)
    assert refusal.details["alternatives"] == ["c", "b"]


async def test_a_dry_run_shows_what_would_answer_and_why(site: Site) -> None:
    site.agent(models=["a", "b"], max_cost_per_request_nano_usd=5)
    reply = await site.rig.ask("one two", dry_run=True)
    assert reply.answer is not None
    assert (reply.answer.model, reply.answer.cost.nano_usd, reply.answer.reasons) == (
        "b",
        4,
        [
            {"model": "a", "reason": "would cost more than the agent allows for a request"},
            {"model": "b", "reason": "agent_model"},
        ],
    )
    assert (site.used.asked, site.used.released) == ([("b", 2)], ["b"])
    assert await site.rig.events() == []


@pytest.mark.parametrize("slow", [False, True])
async def test_a_dry_run_asks_the_quotas_and_keeps_nothing_of_them(site: Site, slow: bool) -> None:
    site.used.models, site.used.slow = {"a": "quota_exceeded"}, slow
    reply = await site.rig.ask("one two", model="a", failover="any", dry_run=True)
    assert reply.answer is not None
    assert (reply.answer.model, reply.answer.event, reply.answer.cost.nano_usd) == ("c", None, 2)
    assert reply.answer.failover is not None
    assert reply.answer.failover["reason"] == "quota"
    assert reply.answer.reasons == [
        {"model": "a", "reason": "a is used up"},
        {"model": "c", "reason": "any"},
    ]
    refusal = await refused(site, "one two", model="a", dry_run=True)
    assert (refusal.code, refusal.details) == ("quota_exceeded", {"window": "month", "alternatives": ["c", "b"]})
    assert site.used.released == ["c"]
    assert await site.rig.events() == []


async def test_switches_are_counted_by_tenant_models_and_reason(site: Site) -> None:
    site.used.models = {"a": "quota_exceeded"}
    await site.rig.ask("one", model="a", failover="any")
    registry = CollectorRegistry()
    registry.register(site.rig.metrics)
    assert (
        'embedding_model_switches_total{from_model="a",reason="quota",tenant_id="acme",to_model="c"} 1.0'
        in generate_latest(registry).decode()
    )


async def test_answers_of_a_deprecated_model_carry_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        conftest,
        "make_catalogue",
        lambda _: catalogue([model("old", dimensions=DIMENSIONS, unit=False, state="deprecated")]),
    )
    rig = await make_rig()
    try:
        reply = await rig.ask("one", model="old")
        assert reply.answer is not None
        assert reply.answer.notices == ["model 'old' is deprecated: move to another"]
    finally:
        await rig.service.close()
        await rig.appender.close()


async def test_texts_that_are_counted_off_the_loop_are_switched_all_the_same(site: Site) -> None:
    site.used.models = {"a": "quota_exceeded"}
    reply = await site.rig.ask(["word " * 10] * 1000, model="a", failover="any", stream=True)
    assert reply.answer is not None
    assert reply.answer.model == "b"
    assert len(reply.streamed) == 1000


async def refused(site: Site, texts: str, **options: Any) -> GatewayError:
    """The refusal, raised at once or told later."""
    try:
        reply = await site.rig.ask(texts, **options)
    except GatewayError as error:
        return error
    assert reply.refusal is not None
    return reply.refusal


async def test_a_switched_request_that_fails_says_so_too(site: Site) -> None:
    def refuse(call: EmbedCall) -> None:
        raise ProviderError(ProviderFault.REFUSED, "not to its liking")

    site.used.models, site.rig.provider.behaviour = {"a": "quota_exceeded"}, refuse
    assert (await refused(site, "one two", model="a", failover="any")).code == "provider_error"
    (event,) = await site.rig.events("embedding.failed")
    assert isinstance(event, EmbeddingFailed)
    assert (event.model, event.failover) == ("c", Failover("a", "e", "quota"))


async def test_a_replay_embeds_the_texts_as_the_model_that_answered_took_them(site: Site) -> None:
    site.used.models = {"a": "quota_exceeded", "c": "quota_exceeded"}
    text = " ".join(f"w{i}" for i in range(25))
    first = await site.rig.ask(text, model="a", failover="any", truncate="end", cache="off")
    assert first.answer is not None
    assert first.answer.model == "b"
    site.used.models = {}
    again = await site.rig.ask(text, model="a", failover="any", truncate="end", cache="off")
    assert again.answer is not None
    assert (again.answer.model, again.answer.replayed) == ("b", True)
    assert site.rig.provider.calls == [[text], [text]], "b takes it whole, a would not"
    assert first.rows is not None
    assert again.rows is not None
    assert (first.rows == again.rows).all()
