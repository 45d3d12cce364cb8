"""The catalogue's rules: sizes, names, candidates and their caps."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.catalogue import Catalogue, Endpoint, Model, Offering, Price

FIXED = Model(
    id="fixed", version="1", dimensions=8, max_tokens=100, tokenizer=None, unit=True, rank=2, dimensions_allowed=(4, 2)
)
RANGED = Model(
    id="ranged",
    version="3",
    dimensions=1536,
    max_tokens=100,
    tokenizer=None,
    unit=False,
    rank=1,
    dimensions_range=(1, 1536),
    aliases=("r",),
)


def offering(model: str, provider: str, pico: int | None = 5) -> Offering:
    price = Price(f"{provider}-{model}", pico)
    return Offering(model, provider, f"{provider}/{model}", price, max_inputs=100, max_tokens_per_call=1000)


def endpoint(name: str, provider: str, *models: str, weight: int = 1) -> Endpoint:
    return Endpoint(name=name, provider=provider, models=dict.fromkeys(models, ""), weight=weight)


def test_a_model_supports_its_default_size_and_those_listed_and_no_other() -> None:
    assert [size for size in range(20) if FIXED.supports(size)] == [2, 4, 8]
    assert FIXED.dimensions_text() == "2, 4, 8"


@given(st.integers(-10, 4000))
def test_a_model_with_a_range_supports_exactly_the_range(size: int) -> None:
    assert RANGED.supports(size) == (1 <= size <= 1536)
    assert RANGED.dimensions_text() == "1 to 1536"


def test_a_model_names_its_spaces() -> None:
    assert FIXED.space(8, "document") == "fixed@1/8/unit"
    assert RANGED.space(256, "clustering") == "ranged@3/256/raw/clustering"


def test_a_name_is_an_id_or_an_alias() -> None:
    catalogue = Catalogue([FIXED, RANGED], [], [])
    assert catalogue.resolve("ranged") is catalogue.resolve("r") is RANGED
    assert catalogue.resolve("R") is None
    assert catalogue.resolve("") is None


def test_candidates_come_heavier_first_then_cheaper_then_by_name_and_unknown_prices_last() -> None:
    offerings = [offering("fixed", "cheap", 1), offering("fixed", "dear", 9), offering("fixed", "unknown", None)]
    endpoints = [
        endpoint("z", "cheap", "fixed"),
        endpoint("u", "unknown", "fixed"),
        endpoint("d", "dear", "fixed"),
        endpoint("a", "cheap", "fixed"),
        endpoint("heavy", "unknown", "fixed", weight=2),
    ]
    catalogue = Catalogue([FIXED], offerings, endpoints)
    assert [c.endpoint.name for c in catalogue.candidates("fixed")] == ["heavy", "a", "z", "d", "u"]
    assert catalogue.candidates("ranged") == []
    assert catalogue.served() == [FIXED]


@given(st.one_of(st.none(), st.integers(1, 300)), st.one_of(st.none(), st.integers(1, 3000)))
def test_the_tighter_cap_of_offering_and_endpoint_binds(inputs: int | None, tokens: int | None) -> None:
    place = msgspec.structs.replace(endpoint("e", "p", "fixed"), max_inputs=inputs, max_tokens_per_call=tokens)
    (candidate,) = Catalogue([FIXED], [offering("fixed", "p")], [place]).candidates("fixed")
    assert candidate.max_inputs == min(100, inputs or 100)
    assert candidate.max_tokens_per_call == min(1000, tokens or 1000)


def test_an_endpoint_may_use_an_id_of_its_own_for_a_model() -> None:
    own = Endpoint(name="own", provider="p", models={"fixed": "my-deployment"})
    catalogue = Catalogue([FIXED], [offering("fixed", "p")], [own, endpoint("plain", "p", "fixed")])
    found = {c.endpoint.name: c.provider_model for c in catalogue.candidates("fixed")}
    assert found == {"own": "my-deployment", "plain": "p/fixed"}


@pytest.mark.parametrize(("model", "provider", "offered"), [("none", "p", "fixed"), ("fixed", "q", "nothing")])
def test_an_endpoint_does_not_serve_what_the_catalogue_lacks_and_that_is_told_with_what_it_has(
    model: str, provider: str, offered: str
) -> None:
    catalogue = Catalogue([FIXED], [offering("fixed", "p")], [endpoint("e", provider, model)])
    assert catalogue.candidates(model) == catalogue.served() == []
    (unserved,) = catalogue.unserved
    assert (unserved.endpoint, unserved.model) == ("e", model)
    assert unserved.reason.endswith(f"{model!r} at provider {provider!r}; it offers there: {offered}")


def test_a_model_that_embeds_nothing_is_known_and_never_served() -> None:
    chat = msgspec.structs.replace(FIXED, type="text-generation")
    catalogue = Catalogue([chat], [offering("fixed", "p")], [endpoint("e", "p", "fixed")])
    assert catalogue.resolve("fixed") is chat
    assert catalogue.candidates("fixed") == catalogue.served() == []
    assert "only 'embedding' models are dispatched" in catalogue.unserved[0].reason


@pytest.mark.parametrize(
    ("state", "available", "listed"),
    [
        ("available", True, True),
        ("testing", True, False),
        ("unavailable", True, False),
        ("deprecated", True, True),
        ("deprecated", False, False),
    ],
)
def test_only_models_that_everybody_may_use_are_listed_as_served(state: str, available: bool, listed: bool) -> None:
    model = msgspec.structs.replace(FIXED, state=state, available=available)
    catalogue = Catalogue([model], [offering("fixed", "p")], [endpoint("e", "p", "fixed")])
    assert catalogue.served() == ([model] if listed else [])
    assert len(catalogue.candidates("fixed")) == 1
