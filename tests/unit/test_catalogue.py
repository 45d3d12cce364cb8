"""The catalogue's data file: what it ships, and that a wrong entry is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.catalogue import DATA, CatalogueError, shipped
from adapters.providers.local.files import DIMENSIONS, MAX_TOKENS, MODEL
from domain.catalogue import Catalogue, Endpoint
from domain.events import ModelRegistered, ModelSpec
from domain.model_config import PROVIDERS, check_model
from domain.money import charge_nano_usd
from domain.plane import ControlPlane
from domain.problems import Problems
from gateway.catalogue.live import LiveCatalogue
from gateway.catalogue.seeding import assume, owed

MODEL_ENTRY = """
[[models]]
id = "m"
version = "1"
dimensions = 8
max_tokens = 100
unit = true
rank = 1
created = 2026-01-01
source = "the maker's page, 2026-01-01"
"""
OFFERING = """
[[offerings]]
model = "m"
provider = "p"
provider_model = "m-v1"
max_inputs = 10
max_tokens_per_call = 1000
source = "the provider's page, 2026-01-01"
"""
PRICE = """price_id = "p-m"
usd_per_million_tokens = "0.02"
price_source = "2026-01-01, first-party: the provider's page"
"""
OFFERING += PRICE


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "catalogue.toml"
        path.write_text(text, "utf-8")
        return path

    return write


def assembled(*endpoints: Endpoint) -> Catalogue:
    """The shipped catalogue as requests would see it."""
    plane = ControlPlane()
    assume(plane, shipped())
    return LiveCatalogue(plane, endpoints).current()


def test_the_shipped_models_are_what_an_operator_could_register_and_are_available() -> None:
    found = shipped()
    ids = [model.id for model in found.models]
    assert len(set(ids)) == len(ids) >= 26
    assert {(model.state, model.origin) for model in found.models} == {("available", "shipped")}
    for model in found.models:
        problems = Problems()
        check_model(problems, model.id, model.spec, model.offerings)
        problems.check(model.id)
        assert model.offerings, model.id
    assert sorted(model.spec.rank for model in found.models) == sorted({model.spec.rank for model in found.models})
    assert {o.provider for model in found.models for o in model.offerings} == set(PROVIDERS)
    assert assembled().served() == []


def test_what_nobody_states_is_not_shipped_as_a_price() -> None:
    priced = {(price.model, price.provider): price for price in shipped().prices}
    assert ("jina-embeddings-v3", "jina") not in priced
    assert priced["text-embedding-005", "vertex"].unit == "character"
    assert priced["mistral-embed", "mistral"].source == "2026-11-20, first-party: the provider's documentation"
    assert [key for key, price in priced.items() if price.unit_pico_usd == 0] == [(MODEL, "local")]


def test_the_digest_of_a_shipped_model_tells_its_facts_apart(written: Callable[[str], Path]) -> None:
    (first,), (same,) = (shipped(written(text)).models for text in (MODEL_ENTRY, MODEL_ENTRY + "\n"))
    (other,) = shipped(written(replaced("max_inputs = 10", "max_inputs = 11"))).models
    assert first.shipped == same.shipped != other.shipped


def test_the_local_model_is_described_as_its_provider_serves_it_and_is_free() -> None:
    catalogue = assembled(Endpoint(name="local", provider="local", models={MODEL: ""}))
    (candidate,) = catalogue.candidates(MODEL)
    assert (candidate.model.dimensions, candidate.model.max_tokens) == (DIMENSIONS, MAX_TOKENS)
    assert candidate.provider_model == MODEL
    assert (candidate.offering.price.id, candidate.offering.price.unit_pico_usd) == ("local-free", 0)
    assert candidate.model.space(384, "query") == "all-MiniLM-L6-v2@1/384/unit"
    assert catalogue.resolve("sentence-transformers/all-MiniLM-L6-v2") is candidate.model


@pytest.mark.parametrize(
    ("model", "size", "cents_for_a_million"),
    [("text-embedding-3-small", 1536, 2), ("text-embedding-3-large", 3072, 13), ("text-embedding-ada-002", 1536, 10)],
)
def test_openai_models_have_their_sizes_prices_and_caps(model: str, size: int, cents_for_a_million: int) -> None:
    catalogue = assembled(Endpoint(name="main", provider="openai", models={model: ""}))
    (candidate,) = catalogue.candidates(model)
    assert (candidate.model.dimensions, candidate.model.tokenizer) == (size, "cl100k_base")
    assert candidate.model.supports(1) == candidate.model.supports(size - 1) == candidate.offering.sends_dimensions
    assert not candidate.model.supports(size + 1)
    assert charge_nano_usd(1_000_000, candidate.offering.price.unit_pico_usd) == cents_for_a_million * 10_000_000
    assert (candidate.max_inputs, candidate.max_tokens_per_call) == (2048, 300_000)
    assert re.fullmatch(rf"openai-{model}-\d{{4}}-\d\d", candidate.offering.price.id)


def test_every_shipped_entry_says_when_and_how_surely_it_is_known() -> None:
    found, text = shipped(), "\n".join(file.read_text("utf-8") for file in DATA.glob("*.toml"))
    sources = re.findall(r'^source = "(.*)"$', text, flags=re.MULTILINE)
    assert len(sources) == len(found.models) + sum(len(model.offerings) for model in found.models)
    assert all(re.match(r"\d{4}-\d\d-\d\d\. ", source) for source in sources)
    priced = [price.source or "" for price in found.prices]
    assert priced
    assert all(re.match(r"\d{4}-\d\d-\d\d, (ours|first-party|secondary): ", source) for source in priced)


def test_a_price_left_out_is_unknown_and_not_free(written: Callable[[str], Path]) -> None:
    text = MODEL_ENTRY + OFFERING
    (price,) = shipped(written(text)).prices
    assert price.unit_pico_usd == 20_000
    unpriced = shipped(written(text.replace(PRICE, "")))
    assert unpriced.prices == ()
    plane = ControlPlane()
    assume(plane, unpriced)
    (candidate,) = LiveCatalogue(plane, [Endpoint(name="e", provider="p", models={"m": ""})]).current().candidates("m")
    assert candidate.offering.price.unit_pico_usd is None


def replaced(old: str, new: str) -> str:
    assert old in MODEL_ENTRY + OFFERING
    return (MODEL_ENTRY + OFFERING).replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[models", "not TOML"),
        ("[[prices]]\nid = 1", r"unknown section 'prices'; expected \[\[models\]\]"),
        (replaced("dimensions = 8", 'dimensions = "8"'), r"models\[0\] \(m\): Expected `int`, got `str`.*dimensions"),
        (replaced("unit = true\n", ""), r"models\[0\] \(m\): Object missing required field `unit`"),
        (replaced("rank = 1", "rang = 1"), r"models\[0\] \(m\): Object contains unknown field `rang`"),
        (replaced("rank = 1", "rank = 0"), "model 'm': dimensions, max_tokens and rank must be at least 1"),
        (replaced('id = "m"', 'id = "m@2"'), "model 'm@2': id and version .* without '/' and '@'"),
        (
            replaced("unit = true", "unit = true\ndimensions_range = [1, 7]"),
            "model 'm': dimensions_range .* default of 8",
        ),
        (replaced("the maker's page, 2026-01-01", " "), "model 'm': source must say"),
        (MODEL_ENTRY * 2, "model 'm': the name 'm' is taken by model 'm'"),
        (MODEL_ENTRY + MODEL_ENTRY.replace('"m"', '"n"\naliases = ["m"]'), "model 'n': the name 'm' is taken"),
        (replaced('model = "m"\n', 'model = "x"\n'), "offering of 'x' at 'p': there is no such model; models: m"),
        (replaced("max_inputs = 10", "max_inputs = 0"), "offering of 'm' at 'p': max_inputs must be at least 1"),
        (replaced("= 1000", "= 99"), "offering of 'm' at 'p': .* at least one text of 100 tokens"),
        (replaced("max_inputs = 10", "max_inputs = 10\ntakes_tokens = true"), "offering of 'm' .* tokenizer is named"),
        (replaced('"0.02"', '"0.0000001"'), "offering of 'm' at 'p': price '0.0000001': expected a decimal"),
        (replaced('"0.02"', "0.02"), r"offerings\[0\] \(m\): Expected `str \| null`, got `float`"),
        (replaced('"p-m"', '""'), "offering of 'm' at 'p': a price, price_id and price_source go together"),
        (MODEL_ENTRY + OFFERING * 2, "offering of 'm' at 'p': there are two of it"),
        (
            MODEL_ENTRY + OFFERING + OFFERING.replace('"p"', '"q"'),
            "offering of 'm' at 'q': the price id 'p-m' is taken by the offering of 'm' at 'p'",
        ),
    ],
)
def test_a_wrong_entry_is_refused_by_name(written: Callable[[str], Path], text: str, message: str) -> None:
    path = written(text)
    with pytest.raises(CatalogueError, match=message) as caught:
        shipped(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"none\.toml: cannot be read: No such file"):
        shipped(tmp_path / "none.toml")


def test_an_endpoint_for_a_model_that_was_never_registered_is_refused_with_what_its_provider_offers() -> None:
    plane = ControlPlane()
    assume(plane, shipped())
    live = LiveCatalogue(plane, [Endpoint(name="e", provider="openai", models={"text-embedding-4": ""})])
    with pytest.raises(
        ValueError, match=r"endpoint 'e': .*'text-embedding-4' at provider 'openai'; it offers there: text-"
    ):
        live.check()


def test_an_endpoint_for_a_model_that_its_provider_does_not_offer_serves_nothing_and_does_not_stop_the_gateway() -> (
    None
):
    plane = ControlPlane()
    assume(plane, shipped())
    live = LiveCatalogue(plane, [Endpoint(name="e", provider="openai", models={MODEL: ""})])
    live.check()
    assert live.current().candidates(MODEL) == []
    assert [(u.endpoint, u.model) for u in live.current().unserved] == [("e", MODEL)]


def test_a_shipped_model_whose_name_an_operator_has_given_away_is_left_out(written: Callable[[str], Path]) -> None:
    plane = ControlPlane()
    mine = ModelRegistered(model="own", spec=ModelSpec("1", 8, 100, aliases=["m"]), offerings=[])
    plane.apply(1, "_system", "model/own", 1, mine)
    assert [event.type for event in owed(plane, shipped(written(MODEL_ENTRY)))] == []
    other = written(MODEL_ENTRY.replace('id = "m"', 'id = "n"\naliases = ["own"]'))
    assert owed(plane, shipped(other)) == []
    free = written(MODEL_ENTRY.replace('id = "m"', 'id = "n"'))
    assert [event.stream for event in owed(plane, shipped(free))] == ["model/n"]
