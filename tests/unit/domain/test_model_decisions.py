"""Registering and changing models: what is the same, what is taken, what must stay, and every field that is wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from adapters.providers.local.files import MODEL
from adapters.tokenizers.registry import BPE
from domain.catalogue import Endpoint, Price
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import ModelRegistered, ModelSpec, ModelStateChanged, ModelUpdated, ModelValidated, OfferingSpec
from domain.menu import compile_menu
from domain.model_config import TOKENIZERS
from domain.model_decisions import Step, decide_change, decide_register, decide_validated
from domain.plane import ControlPlane
from domain.selection import Question, select
from domain.tenant_config import TenantConfig

SPEC = ModelSpec(version="1", dimensions=8, max_tokens=100, aliases=["maker/m"])
OFFERING = OfferingSpec("openai", "m-1", max_inputs=10, max_tokens_per_call=1000)
OTHER = OfferingSpec("cohere", "m-c", max_inputs=96, max_tokens_per_call=1000, config={"truncate": "END"})


def fold(plane: ControlPlane, decisions: list[Decision]) -> None:
    for decision in decisions:
        version = plane.versions.get(decision.stream, 0) + 1
        plane.apply(plane.position + 1, decision.tenant, decision.stream, version, decision.data)


def register(plane: ControlPlane, model: str = "m", spec: ModelSpec = SPEC, *offerings: OfferingSpec) -> list[Decision]:
    decisions = decide_register(plane, model, spec, offerings or (OFFERING, OTHER), actor="key:k")
    fold(plane, decisions)
    return decisions


def change(plane: ControlPlane, *steps: str, **facts: Any) -> list[Decision]:
    decisions = decide_change(plane, "m", facts, [Step(s) for s in steps], now=0, actor="key:k")
    fold(plane, decisions)
    return decisions


def available(plane: ControlPlane) -> None:
    change(plane, "test")
    fold(plane, decide_validated(plane, ModelValidated(model="m", endpoint="e", passed=True, at=1)))


def fields(error: GatewayError) -> list[str]:
    assert error.code == "invalid_config"
    assert error.details is not None
    return [f["field"] for f in error.details["fields"]]


def test_a_registered_model_is_a_draft_and_says_who_registered_it() -> None:
    plane = ControlPlane()
    [decision] = register(plane)
    assert decision.stream == "model/m"
    assert isinstance(decision.data, ModelRegistered)
    assert (decision.data.state, decision.data.origin, decision.data.actor) == ("draft", "operator", "key:k")


def test_the_same_model_again_is_there_already_whatever_the_order_of_its_offerings() -> None:
    plane = ControlPlane()
    register(plane)
    assert register(plane, "m", SPEC, OTHER, OFFERING) == []


@pytest.mark.parametrize(
    ("model", "spec", "field"),
    [
        ("m", msgspec.structs.replace(SPEC, dimensions=9), "model_id"),
        ("n", msgspec.structs.replace(SPEC, aliases=["n2", "maker/m"]), "aliases"),
        ("n", msgspec.structs.replace(SPEC, aliases=["m"]), "aliases"),
    ],
)
def test_another_model_of_a_name_that_is_taken_is_refused(model: str, spec: ModelSpec, field: str) -> None:
    plane = ControlPlane()
    register(plane)
    with pytest.raises(GatewayError) as caught:
        register(plane, model, spec)
    assert (caught.value.code, caught.value.status) == ("model_exists", 409)
    assert caught.value.details is not None
    assert caught.value.details["field"] == field


def test_an_alias_is_no_id_of_another_model() -> None:
    plane = ControlPlane()
    register(plane, "m", msgspec.structs.replace(SPEC, aliases=["n"]))
    with pytest.raises(GatewayError, match="the name 'n' is taken by model 'm'"):
        register(plane, "n", msgspec.structs.replace(SPEC, aliases=[]))


def test_the_id_of_a_removed_model_is_not_used_again_and_its_aliases_are_free() -> None:
    plane = ControlPlane()
    register(plane)
    change(plane, "remove")
    with pytest.raises(GatewayError, match="ids are not used again"):
        register(plane)
    register(plane, "n")
    assert plane.models.resolve("maker/m") is plane.models.models["n"]


@pytest.mark.parametrize(
    ("facts", "wrong"),
    [
        ({"dimensions": 16}, ["dimensions"]),
        ({"version": "2", "unit": False, "tokenizer": "o200k_base"}, ["version", "unit", "tokenizer"]),
        ({"type": "classification", "dimensions": 0}, ["dimensions", "type"]),
    ],
)
def test_what_names_the_spaces_of_an_available_model_stays(facts: dict[str, Any], wrong: list[str]) -> None:
    plane = ControlPlane()
    register(plane)
    available(plane)
    before = plane.models.models["m"]
    with pytest.raises(GatewayError, match="register what differs as a model of its own") as caught:
        change(plane, **facts)
    assert fields(caught.value) == wrong
    assert plane.models.models["m"] is before


def test_a_model_in_testing_may_change_altogether() -> None:
    plane = ControlPlane()
    register(plane)
    change(plane, "test")
    [decision] = change(plane, dimensions=16, version="2", unit=False)
    assert isinstance(decision.data, ModelUpdated)
    assert (plane.models.models["m"].spec.dimensions, plane.models.models["m"].state) == (16, "testing")


def test_facts_and_steps_go_together_or_not_at_all() -> None:
    plane = ControlPlane()
    register(plane)
    available(plane)
    updated, moved = change(plane, "unavailable", max_tokens=50)
    assert isinstance(updated.data, ModelUpdated)
    assert isinstance(moved.data, ModelStateChanged)
    assert (moved.data.previous, moved.data.state) == ("available", "unavailable")
    with pytest.raises(GatewayError, match="is unavailable: that takes no 'update'"):
        change(plane, "available", max_tokens=60)
    assert (plane.models.models["m"].spec.max_tokens, plane.models.models["m"].state) == (50, "unavailable")


def test_what_is_so_already_is_no_event() -> None:
    plane = ControlPlane()
    register(plane)
    assert change(plane, max_tokens=100, offerings=[OTHER, OFFERING]) == []


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"dimensions": 0}, ["dimensions"]),
        ({"dimensions": -1, "max_tokens": 10**400, "rank": 0}, ["max_tokens", "rank", "dimensions"]),
        ({"dimensions": 65_537}, ["dimensions"]),
        ({"dimensions_range": (9, 8)}, ["dimensions_range"]),
        ({"dimensions_range": (1, 7)}, ["dimensions_range"]),
        ({"dimensions_range": (1, 8), "dimensions_allowed": [4]}, ["dimensions_range"]),
        ({"dimensions_allowed": [4, 0, 4]}, ["dimensions_allowed", "dimensions_allowed[1]"]),
        ({"version": "1/2"}, ["version"]),
        ({"version": ""}, ["version"]),
        ({"type": "chat"}, ["type"]),
        ({"type": "classification"}, ["dimensions"]),
        ({"model_type": "voice"}, ["model_type"]),
        ({"minimum_tier": "gold"}, ["minimum_tier"]),
        ({"tokenizer": "words"}, ["tokenizer"]),
        ({"created": -1}, ["created"]),
        ({"name": "n" * 201}, ["name"]),
        ({"aliases": ["a b", "m", ""]}, ["aliases[0]", "aliases[1]", "aliases[2]"]),
        ({"aliases": [f"a{i}" for i in range(33)]}, ["aliases"]),
        ({"capabilities": ["Code!"]}, ["capabilities[0]"]),
    ],
)
def test_every_wrong_fact_of_a_model_is_named(changes: dict[str, Any], wrong: list[str]) -> None:
    plane = ControlPlane()
    with pytest.raises(GatewayError) as caught:
        decide_register(plane, "m", msgspec.structs.replace(SPEC, **changes), [], actor="key:k")
    assert fields(caught.value) == wrong
    assert len(caught.value.message) < 2000


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"provider": "Open AI"}, ["provider"]),
        ({"provider_model": ""}, ["provider_model"]),
        ({"max_inputs": 0, "max_tokens_per_call": 99}, ["max_inputs", "max_tokens_per_call"]),
        ({"max_inputs": 10**9}, ["max_inputs"]),
        ({"provider": "cohere", "max_inputs": 97}, ["max_inputs"]),
        ({"takes_tokens": True}, ["takes_tokens"]),
        ({"config": {"encoding": "float"}}, ["config.encoding"]),
        ({"provider": "cohere", "config": {"truncate": "MIDDLE", "x": ""}}, ["config.truncate", "config.x"]),
        ({"provider": "own-plugin", "config": {"Any thing": "1"}}, ["config.Any thing"]),
        ({"provider": "own-plugin", "config": {"anything": "v" * 257}}, ["config.anything"]),
    ],
)
def test_every_wrong_fact_of_an_offering_is_named(changes: dict[str, Any], wrong: list[str]) -> None:
    offering = msgspec.structs.replace(OFFERING, **changes)
    with pytest.raises(GatewayError) as caught:
        decide_register(
            ControlPlane(), "m", SPEC, [OTHER if changes.get("provider") != "cohere" else OFFERING, offering], actor="k"
        )
    assert fields(caught.value) == [f"offerings[1].{field}" for field in wrong]


@pytest.mark.parametrize("model", ["", "a/b", "a@1", "a b", "-a", "ä", "a" * 129, "register", "state"])
def test_an_id_that_cannot_be_part_of_a_space_or_of_a_path_is_refused(model: str) -> None:
    with pytest.raises(GatewayError) as caught:
        decide_register(ControlPlane(), model, SPEC, [], actor="k")
    assert fields(caught.value) == ["model_id"]


def test_a_model_that_embeds_nothing_can_be_registered_without_sizes() -> None:
    spec = ModelSpec(version="1", dimensions=0, max_tokens=100, type="text-generation")
    assert len(decide_register(ControlPlane(), "chat", spec, [OFFERING], actor="k")) == 1


def test_a_request_for_a_model_that_embeds_nothing_is_told_so_and_no_other_request_gets_it() -> None:
    plane = ControlPlane()
    register(plane, "chat", ModelSpec(version="1", dimensions=0, max_tokens=100, type="text-generation"), OFFERING)
    endpoint = Endpoint("e", "openai", {"chat": ""})
    menu = compile_menu(plane.models.catalogue(lambda model, provider: Price("p", 1), [endpoint]), TenantConfig())
    with pytest.raises(GatewayError, match="it is of the type text-generation") as named:
        select(menu, Question(model="chat", admin=True))
    assert (named.value.code, named.value.status) == ("type_unsupported", 400)
    with pytest.raises(GatewayError) as unnamed:
        select(menu, Question(admin=True))
    assert unnamed.value.code == "no_model_available"


def test_the_tokenizers_that_can_be_named_are_those_that_are_there() -> None:
    assert set(TOKENIZERS) == {*BPE, MODEL}


def test_two_offerings_at_one_provider_are_refused() -> None:
    with pytest.raises(GatewayError) as caught:
        decide_register(ControlPlane(), "m", SPEC, [OFFERING, OFFERING], actor="k")
    assert fields(caught.value) == ["offerings[1].provider"]
