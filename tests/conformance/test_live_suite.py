"""The suite that `make live` puts to real providers: the local model passes it, a simulated OpenAI does, and one that errs does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator

import msgspec
import pytest

from adapters.catalogue import shipped
from adapters.providers.registry import PROVIDERS
from domain.ports.provider import Provider
from gateway.bench.connection import Answer
from gateway.bench.embeddings_api import OpenAIApi
from gateway.bench.faults import Fault
from gateway.bench.simulator import Simulator, SimulatorOptions
from gateway.bench.wire_api import Asked
from tests.live.places import Place, missing, places
from tests.live.suite import LiveSuite
from tests.support.scenarios import ROOT

KEY = "sk-simulated-0123456789abcdef"


class Reversing(OpenAIApi):
    """Answers in the wrong order, as if it were the right one."""

    def answer(self, asked: Asked, fault: Fault | None) -> Answer:
        return super().answer(asked._replace(texts=asked.texts[::-1]), fault)


def at(simulator: Simulator, environ: dict[str, str]) -> Place:
    found = next(p for p in places(environ) if p.name == "openai/text-embedding-3-small")
    endpoint = msgspec.structs.replace(found.endpoint, base_url=simulator.base_url)
    return Place(found.model, found.spec, found.offering, endpoint, environ)


class TestOfASimulatedOpenAI(LiveSuite):
    @pytest.fixture
    async def place(self) -> AsyncIterator[Place]:
        async with Simulator(SimulatorOptions(key=KEY)) as simulator:
            yield at(simulator, {"OPENAI_API_KEY": KEY})

    @pytest.fixture
    async def provider(self, place: Place) -> AsyncIterator[Provider]:
        opened = place.open()
        yield opened
        await opened.close()


class TestOfTheLocalModel(LiveSuite):
    @pytest.fixture
    def place(self) -> Place:
        return next(p for p in places({}) if p.name.startswith("local/"))

    @pytest.fixture
    async def provider(self, place: Place) -> AsyncIterator[Provider]:
        opened = place.open()
        yield opened
        await opened.close()


async def test_vectors_in_the_wrong_order_are_found_out() -> None:
    async with Simulator(SimulatorOptions(key=KEY), Reversing()) as simulator:
        place = at(simulator, {"OPENAI_API_KEY": KEY})
        provider = place.open()
        with pytest.raises(AssertionError):
            await LiveSuite().test_texts_get_in_a_batch_the_vectors_that_they_get_alone_in_the_order_asked(
                place, provider
            )
        await provider.close()


async def test_a_server_that_cuts_texts_is_found_out() -> None:
    async with Simulator(SimulatorOptions(key=KEY, max_input_tokens=100_000)) as simulator:
        place = at(simulator, {"OPENAI_API_KEY": KEY})
        provider = place.open()
        with pytest.raises(pytest.fail.Exception):
            await LiveSuite().test_a_text_over_the_models_limit_is_too_long(place, provider)
        await provider.close()


def test_without_credentials_nobody_is_asked_but_the_local_model_and_each_says_what_it_needs() -> None:
    assert {p.offering.provider for p in places({})} == {"local"}
    for name in PROVIDERS.keys() - {"local"}:
        assert str(missing(name, {})).startswith("set "), name
    assert missing("azure", {"AZURE_OPENAI_API_KEY": "k"}) == "set AZURE_OPENAI_ENDPOINT"


def test_every_provider_with_models_in_the_release_has_an_adapter() -> None:
    assert {o.provider for m in shipped().models for o in m.offerings} <= PROVIDERS.keys()


def test_make_live_asks_who_it_can_and_names_what_it_lacks() -> None:
    [command] = re.findall(r"^live:.*\n\t\$\(BIN\)/python (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "EMBERLOG_MODEL_STORE") if name in os.environ}
    ended = subprocess.run([sys.executable, *command.split()], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"^[1-9]\d* passed", ended.stdout, re.MULTILINE), "the local model was asked"
    for name in PROVIDERS.keys() - {"local"}:
        assert f"{name} was not asked: set " in ended.stdout
