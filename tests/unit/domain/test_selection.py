"""Which model is chosen, in which order, and what is said of those that are not."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.catalogue import Candidate, Model
from domain.errors import GatewayError
from domain.events import Failover, Preferences, TenantModelConfigured
from domain.menu import Entry, Menu, compile_menu
from domain.money import Price
from domain.selection import Blocked, Question, Selection, alternatives, explain, select
from tests.support.menus import catalogue, config, menu, model

QUOTA = GatewayError("quota_exceeded", "the quota of the month is used up", details={"window": "month"})


def chosen(found: Selection) -> tuple[str, str]:
    return found.model.id, found.reason


def passed(found: Selection) -> dict[str, str]:
    return {p.model: p.reason for p in found.passed_over}


def refused(
    menu: Menu, question: Question, preferences: Preferences | None = None, blocked: Blocked | None = None
) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        select(menu, question, preferences, blocked)
    return caught.value


def blocks(*models: str) -> Blocked:
    def blocked(entry: Entry) -> GatewayError | None:
        return QUOTA if entry.id in models else None

    return blocked


# -- the order ---------------------------------------------------------------------------------------------------------


def test_the_order_is_requested_task_model_ranked_models_tenant_default_any() -> None:
    everything = [model(name) for name in ("asked", "tasked", "first", "second", "usual", "zebra")]
    tenant = config(*(TenantModelConfigured(m.id, default=m.id == "usual") for m in everything))
    full = menu(*everything, tenant=tenant)
    stated = Preferences(models=["first", "second"], task_models={"search": "tasked"})
    assert chosen(select(full, Question("asked", task="search"), stated)) == ("asked", "requested")
    assert chosen(select(full, Question(task="search"), stated)) == ("tasked", "task_model")
    assert chosen(select(full, Question(task="other"), stated)) == ("first", "agent_model")
    assert chosen(select(full, Question(), stated, blocks())) == ("first", "agent_model")
    assert chosen(select(full, Question())) == ("usual", "tenant_default")
    assert chosen(select(menu(*everything), Question())) == ("asked", "any")


@pytest.mark.parametrize(
    ("optimize", "first"), [("cost", "cheap"), ("quality", "good"), ("latency", "quick"), (None, "wanted")]
)
def test_any_follows_the_strategy_then_priority_then_cost_then_id(optimize: str | None, first: str) -> None:
    models = [model("cheap", rank=9), model("good", rank=1), model("quick", rank=9), model("wanted", rank=9)]
    tenant = config(*(TenantModelConfigured(m.id, priority=200 if m.id == "wanted" else 100) for m in models))
    made = compile_menu(catalogue(models, {"cheap": 1}), tenant, latency_ms={"quick": 5, "good": 90, "cheap": 100})
    assert select(made, Question(optimize=optimize)).model.id == first
    assert select(made, Question(), Preferences(strategy=optimize or "tenant_default")).model.id == first


def test_ties_go_to_the_higher_priority_then_the_cheaper_then_the_first_id() -> None:
    models = [model(name) for name in ("a", "b", "c", "d")]
    tenant = config(*(TenantModelConfigured(m.id, priority=500 if m.id in "bcd" else 400) for m in models))
    made = compile_menu(catalogue(models, {"a": 1, "b": 9, "c": 3, "d": 3}), tenant)
    assert [e.id for e in made.orders["quality"]] == ["c", "d", "b", "a"]
    assert [e.id for e in made.orders["cost"]] == ["a", "c", "d", "b"]


def test_an_unknown_price_is_the_dearest_and_an_unmeasured_latency_the_longest() -> None:
    made = compile_menu(catalogue([model("a"), model("b")], {"a": None, "b": 10**9}), config(), latency_ms={"b": 10**6})
    assert [e.id for e in made.orders["cost"]] == ["b", "a"]
    assert [e.id for e in made.orders["latency"]] == ["b", "a"]


def test_prices_per_character_and_per_token_are_put_into_one_order() -> None:
    def price_of(candidate: Candidate) -> Price:
        name = candidate.model.id
        return Price(name, 30, "character") if name == "a" else Price(name, 100)

    made = compile_menu(catalogue([model("a"), model("b")]), config(), price_of=price_of)
    assert [e.id for e in made.orders["cost"]] == ["b", "a"]


def test_the_fixed_strategy_takes_nothing_that_the_agent_has_not_named() -> None:
    made = menu(model("a"), model("b", max_tokens=5))
    stated = Preferences(strategy="fixed", models=["b"])
    assert chosen(select(made, Question(), stated)) == ("b", "agent_model")
    assert refused(made, Question(longest=6), stated).code == "no_model_available"


def test_an_alias_names_its_model_wherever_a_model_is_named() -> None:
    made = menu(model("a"), model("long-name", aliases=("short",)))
    assert chosen(select(made, Question("short"))) == ("long-name", "requested")
    assert chosen(select(made, Question(), Preferences(models=["short", "long-name"]))) == ("long-name", "agent_model")


# -- adequacy ------------------------------------------------------------------------------------------------------------


def test_each_model_passed_over_has_its_reason() -> None:
    made = compile_menu(
        catalogue(
            [
                model("away"),
                model("big", dimensions=16),
                model("dear"),
                model("good"),
                model("short", max_tokens=10),
                model("slow"),
            ],
            {"dear": 10**6},
            unserved=["away"],
        ),
        config(),
        latency_ms={"big": 1, "dear": 1, "good": 1, "short": 1, "slow": 5000},
    )
    stated = Preferences(
        models=["nowhere", "away", "big", "short", "slow", "dear"],
        required_dimensions=8,
        max_latency_ms=100,
        max_cost_per_request_nano_usd=1000,
    )
    found = select(made, Question(tokens=50, longest=50), stated)
    assert chosen(found) == ("good", "any")
    assert passed(found) == {
        "nowhere": "not in the catalogue",
        "away": "no configured endpoint serves it",
        "big": "has no vectors of the size asked for: it has 16",
        "short": "takes at most 10 tokens a text",
        "slow": "took 5000 ms of late, longer than the agent allows",
        "dear": "would cost more than the agent allows for a request",
    }


def test_sizes_of_a_list_and_of_a_range_are_adequate_and_shown_in_the_space() -> None:
    made = menu(model("a", dimensions=8), model("b", dimensions=8, dimensions_allowed=(4,)))
    found = select(made, Question(dimensions=4))
    assert (found.model.id, found.dimensions, found.space) == ("b", 4, "b@1/4/unit")
    ranged = menu(model("r", dimensions=8, dimensions_range=(2, 8)))
    assert select(ranged, Question(dimensions=3, input_type="clustering")).space == "r@1/3/unit/clustering"
    assert select(ranged, Question(input_type="query")).space == "r@1/8/unit"
    assert refused(ranged, Question(dimensions=1)).code == "no_model_available"


def test_a_cost_cap_counts_once_the_tokens_are_known_and_rounds_up() -> None:
    made = menu(model("a"), model("b"), prices={"a": 2000, "b": 1000})
    stated = Preferences(models=["a", "b"], max_cost_per_request_nano_usd=10)
    assert select(made, Question(), stated).model.id == "a"
    assert select(made, Question(tokens=5), stated).model.id == "a"
    assert select(made, Question(tokens=6), stated).model.id == "b"
    assert refused(made, Question(tokens=11), stated).code == "no_model_available"
    unpriced = menu(model("a"), prices={"a": None})
    assert refused(unpriced, Question(tokens=1), stated).code == "no_model_available"


def test_a_named_model_over_the_cost_cap_is_refused_with_what_would_do() -> None:
    made = menu(model("a"), model("b"), prices={"a": 2000, "b": 1000})
    stated = Preferences(max_cost_per_request_nano_usd=10)
    error = refused(made, Question("a", tokens=6), stated)
    assert error.code == "budget_exceeded"
    assert error.details is not None
    assert (error.details["window"], error.details["limit"], error.details["alternatives"]) == ("request", 10, ["b"])
    found = select(made, Question("a", tokens=6, another=True), stated)
    assert (chosen(found), found.failover) == (("b", "any"), Failover("a", "e", "budget"))


def test_a_model_whose_latency_nobody_knows_is_tried() -> None:
    stated = Preferences(models=["a", "b"], max_latency_ms=50)
    for known, expected in (({}, "a"), ({"a": 50}, "a"), ({"a": 51}, "b")):
        made = compile_menu(catalogue([model("a"), model("b")]), config(), latency_ms=known)
        assert select(made, Question(), stated).model.id == expected


# -- what the tenant may use -------------------------------------------------------------------------------------------


def test_a_tenant_without_models_of_its_own_may_use_every_one_and_with_any_only_the_enabled() -> None:
    models = [model("a"), model("b"), model("c")]
    assert [e.id for e in menu(*models).orders["any"]] == ["a", "b", "c"]
    tenant = config(TenantModelConfigured("b"), TenantModelConfigured("c", state="disabled"))
    made = menu(*models, tenant=tenant)
    assert [e.id for e in made.orders["any"]] == ["b"]
    for name, why in (("a", "has not configured it"), ("c", "it is disabled for the tenant")):
        error = refused(made, Question(name))
        assert (error.code, error.status) == ("model_not_enabled", 403)
        assert why in error.message
        assert "choose one of b" in error.message


def test_a_model_of_a_higher_tier_is_not_on_the_menu() -> None:
    made = menu(model("a", minimum_tier="pro"), model("b"), tenant=config(tier="starter"))
    assert refused(made, Question("a")).code == "model_not_enabled"
    assert passed(select(made, Question(), Preferences(models=["a"]))) == {
        "a": "it needs the tier pro, and the tenant's is starter"
    }


def test_a_model_in_testing_serves_admins_who_name_it_and_nobody_else() -> None:
    made = menu(model("a", state="testing"), model("b"))
    assert chosen(select(made, Question("a", admin=True))) == ("a", "requested")
    assert refused(made, Question("a")).code == "model_not_enabled"
    assert select(made, Question(admin=True)).model.id == "b"
    assert passed(select(made, Question(), Preferences(models=["a"]))) == {"a": "it is being tested"}


def test_a_deprecated_model_comes_last_and_says_so() -> None:
    old = model("a", rank=1, state="deprecated", removed_at=1_798_761_600)
    made = menu(old, model("b", rank=5), prices={"a": 1})
    for order in ("cost", "quality", "latency", None):
        assert select(made, Question(optimize=order)).model.id == "b"
    found = select(made, Question("a"))
    assert found.notices == ("model 'a' is deprecated and goes on 2027-01-01: move to another",)
    assert select(made, Question("b")).notices == ()


def test_a_tenant_that_requires_known_prices_has_no_model_without_one() -> None:
    tenant = config(require_known_prices=True)
    made = menu(model("a"), model("b"), prices={"a": None}, tenant=tenant)
    assert select(made, Question()).model.id == "b"
    assert refused(made, Question("a")).code == "no_model_available"
    alone = menu(model("a"), prices={"a": None}, tenant=tenant)
    error = refused(alone, Question())
    assert error.code == "no_model_available"
    assert error.details == {
        "reasons": [{"model": "a", "reason": "its price is unknown, and the tenant requires known prices"}]
    }


def test_a_request_bound_to_a_budget_passes_unknown_prices_over() -> None:
    made = menu(model("a"), model("b"), prices={"a": None})
    found = select(made, Question(priced=True), Preferences(models=["a"]))
    assert (found.model.id, set(passed(found))) == ("b", {"a"})
    assert compile_menu(catalogue([model("a")], {"a": None}), config(), money_bound={"a"}).names == {}


@pytest.mark.parametrize("name", ["nothing", ""])
def test_an_unknown_model_is_not_found_and_the_choices_are_named(name: str) -> None:
    error = refused(menu(model("a")), Question(name))
    assert (error.code, error.status) == ("model_not_found", 404)
    assert "choose one of a" in error.message


def test_a_size_that_the_named_model_lacks_is_a_mistake_of_the_request() -> None:
    error = refused(menu(model("a"), model("b", dimensions=4)), Question("a", dimensions=4, another=True))
    assert (error.code, error.details) == ("invalid_request", {"field": "dimensions"})


# -- what blocks a model now -------------------------------------------------------------------------------------------


def test_a_blocked_model_is_kept_to_unless_another_may_answer() -> None:
    made = menu(model("a"), model("b"))
    error = refused(made, Question("a"), blocked=blocks("a"))
    assert (error.code, error.details) == ("quota_exceeded", {"window": "month", "alternatives": ["b"]})
    found = select(made, Question("a", another=True), blocked=blocks("a"))
    assert (chosen(found), found.failover) == (("b", "any"), Failover("a", "e", "quota"))
    assert passed(found) == {"a": "the quota of the month is used up"}


def test_explicit_fallbacks_come_before_the_rest_of_the_line() -> None:
    models = [model(name) for name in ("a", "b", "c", "d")]
    tenant = config(
        TenantModelConfigured("a", priority=900, fallback_models=["d", "c"]),
        *(TenantModelConfigured(name) for name in "bcd"),
    )
    made = menu(*models, tenant=tenant)
    for question in (Question("a", another=True), Question(another=True)):
        assert chosen(select(made, question, blocked=blocks("a"))) == ("d", "fallback")
        assert chosen(select(made, question, blocked=blocks("a", "d"))) == ("c", "fallback")
        assert chosen(select(made, question, blocked=blocks("a", "d", "c"))) == ("b", "any")
    assert alternatives(made, Question("a"), None, blocks("a"), "a") == ["d", "c", "b"]


def test_where_everything_is_blocked_the_first_refusal_stands_and_there_are_no_alternatives() -> None:
    budget = GatewayError("budget_exceeded", "the budget is used up", details={"window": "day"})

    def blocked(entry: Entry) -> GatewayError | None:
        return QUOTA if entry.id == "a" else budget

    error = refused(menu(model("a"), model("b")), Question(another=True), blocked=blocked)
    assert (error.code, error.details) == ("quota_exceeded", {"window": "month", "alternatives": []})


def test_alternatives_are_what_would_answer_if_another_might() -> None:
    made = menu(model("a"), model("b", dimensions=4), model("c"), model("d"))
    error = refused(made, Question("a", dimensions=8), blocked=blocks("a", "d"))
    assert error.details is not None
    assert error.details["alternatives"] == ["c"]


def test_a_model_that_is_gone_is_replaced_only_where_another_may_answer() -> None:
    old = model("a", state="deprecated", available=False)
    down = model("b", state="unavailable")
    made = menu(old, down, model("c"))
    assert refused(made, Question("a")).code == "no_model_available"
    assert select(made, Question("a", another=True)).failover == Failover("a", "", "deprecated")
    assert select(made, Question("b", another=True)).failover == Failover("b", "", "provider_error")


# -- the price ceiling -------------------------------------------------------------------------------------------------


def test_over_a_soft_budget_only_the_cheapest_adequate_model_is_chosen_where_another_may_answer() -> None:
    models = [model("cheap", dimensions=4), model("mid"), model("dear")]
    made = menu(*models, prices={"cheap": 1, "mid": 5, "dear": 9})
    stated = Preferences(models=["dear"], required_dimensions=8)
    found = select(made, Question(ceiling=True, another=True), stated)
    assert (chosen(found), found.failover) == (("mid", "price_ceiling"), Failover("dear", "e", "budget"))
    assert "soft budget" in passed(found)["dear"]
    told = explain(made, Question(ceiling=True, another=True), stated)
    assert (sorted(r.model for r in told.reasons), told.in_line) == (["cheap", "dear", "mid"], ["dear"])
    assert chosen(select(made, Question("dear", ceiling=True))) == ("dear", "requested")
    assert chosen(select(made, Question("dear", ceiling=True, another=True))) == ("cheap", "price_ceiling")
    assert chosen(select(made, Question("cheap", ceiling=True, another=True))) == ("cheap", "requested")
    assert select(made, Question("cheap", ceiling=True, another=True)).failover is None
    equal = menu(model("a"), model("b"), prices={"a": 5, "b": 5})
    assert chosen(select(equal, Question("b", ceiling=True, another=True))) == ("b", "requested")


# -- whatever the menu ------------------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c", "d", "e", "nowhere"])
models = st.builds(
    lambda name, dimensions, longest, rank, state: model(
        name, dimensions=dimensions, max_tokens=longest, rank=rank, state=state
    ),
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.sampled_from([4, 8]),
    st.sampled_from([10, 100]),
    st.integers(1, 3),
    st.sampled_from(["available", "available", "testing", "deprecated", "unavailable"]),
)
prices = st.dictionaries(names, st.none() | st.integers(0, 5000))
questions = st.builds(
    Question,
    model=st.none() | names,
    dimensions=st.none() | st.sampled_from([4, 8]),
    optimize=st.none() | st.sampled_from(["cost", "latency", "quality"]),
    task=st.none() | st.just("t"),
    another=st.booleans(),
    tokens=st.just(60),
    longest=st.sampled_from([5, 60]),
    priced=st.booleans(),
    ceiling=st.booleans(),
)
stated = st.none() | st.builds(
    Preferences,
    strategy=st.sampled_from(["tenant_default", "fixed", "cost", "latency", "quality"]),
    models=st.lists(names, max_size=4),
    task_models=st.dictionaries(st.just("t"), names),
    required_dimensions=st.none() | st.sampled_from([4, 8]),
    max_cost_per_request_nano_usd=st.none() | st.integers(1, 200),
    max_latency_ms=st.none() | st.just(50),
)


def outcome(
    menu: Menu, question: Question, preferences: Preferences | None, kept_back: frozenset[str]
) -> Selection | GatewayError:
    def blocked(entry: Entry) -> GatewayError | None:
        return QUOTA if entry.id in kept_back else None

    try:
        return select(menu, question, preferences, blocked)
    except GatewayError as error:
        return error


@given(st.lists(models, unique_by=lambda m: m.id), prices, questions, stated, st.frozensets(names))
def test_whatever_is_chosen_is_adequate_and_free_and_is_another_only_where_it_may_be(
    models: list[Model],
    prices: dict[str, int | None],
    question: Question,
    preferences: Preferences | None,
    kept_back: frozenset[str],
) -> None:
    made = compile_menu(catalogue(models, prices), config(), latency_ms={"a": 10, "b": 90})
    found = outcome(made, question, preferences, kept_back)
    if isinstance(found, GatewayError):
        if found.code == "quota_exceeded":
            assert kept_back
            assert set((found.details or {})["alternatives"]) <= {m.id for m in models} - kept_back
        return
    entry = made.names[found.model.id]
    assert found.model.id not in kept_back
    assert not entry.testing
    if question.model is not None and not question.another:
        assert found.model.id == question.model
    assert found.dimensions == question.dimensions or question.dimensions is None
    if found.reason != "requested":
        assert question.longest <= entry.max_tokens
        if preferences is not None and preferences.max_cost_per_request_nano_usd is not None:
            charge = entry.charge_nano_usd(question.tokens, 0)
            assert charge is not None
            assert charge <= preferences.max_cost_per_request_nano_usd
        if question.priced:
            assert entry.price.unit_pico_usd is not None
    if found.failover is not None:
        assert found.failover.model != found.model.id
        assert question.another


@given(st.lists(models, unique_by=lambda m: m.id), prices, questions, stated)
def test_an_explanation_has_one_reason_for_each_model(
    models: list[Model], prices: dict[str, int | None], question: Question, preferences: Preferences | None
) -> None:
    made = compile_menu(catalogue(models, prices), config(), latency_ms={"a": 10, "b": 90})
    try:
        told = [r.model for r in explain(made, question, preferences).reasons]
    except GatewayError:
        return
    assert len(told) == len(set(told))
    assert {m.id for m in models} <= set(told)


@given(st.lists(models, unique_by=lambda m: m.id), prices, questions, stated)
def test_what_alternatives_are_named_would_be_chosen_if_another_might(
    models: list[Model], prices: dict[str, int | None], question: Question, preferences: Preferences | None
) -> None:
    made = compile_menu(catalogue(models, prices), config(), latency_ms={"a": 10, "b": 90})
    plain = msgspec.structs.replace(question, another=False, ceiling=False)
    first = outcome(made, plain, preferences, frozenset())
    if isinstance(first, GatewayError):
        return
    error = outcome(made, plain, preferences, frozenset({first.model.id}))
    assert isinstance(error, GatewayError)
    instead = (error.details or {})["alternatives"]
    again = outcome(made, msgspec.structs.replace(plain, another=True), preferences, frozenset({first.model.id}))
    if isinstance(again, GatewayError):
        assert instead == [] or (preferences is not None and preferences.strategy == "fixed")
    else:
        assert again.model.id in instead or again.reason == "agent_model"
