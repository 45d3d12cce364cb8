"""The catalogue of a gateway on a real log: seeded once, kept current, its models validated through the gateway's own requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from adapters.catalogue import DATA, shipped
from adapters.postgres.pool import Connection
from domain.catalogue import Catalogue
from domain.errors import GatewayError
from domain.events import ModelSpec
from domain.events.base import PRICES_STREAM
from domain.model_decisions import Step, decide_change, decide_register, model_stream
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault
from domain.price_decisions import decide_price
from gateway.bench.vectors import vector_of
from gateway.catalogue.retirement import end_graces
from gateway.control import Control, Decide
from gateway.gateway import Gateway
from gateway.house import master_key
from gateway.manage import Installation
from gateway.places import Places
from gateway.settings import EndpointSettings, Settings
from gateway.wire.messages import EmbeddingGenerate
from tests.acceptance.provider import Simulator
from tests.integration.test_shred_gateway import tokens
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.installing import installed, settings_of
from tests.support.waiting import until
from tests.unit.service.conftest import Recorder

MODEL = "own-model"
_COUNT = "SELECT type, count(*) FROM emberlog.events WHERE type LIKE 'model.%' OR type = 'price.set' GROUP BY type"


class Hashing:
    """A provider whose vectors follow from the text; `stuck` (the same for all of them) and `error` are what goes wrong."""

    def __init__(self) -> None:
        self.stuck = False
        self.error: ProviderError | None = None
        self.calls = 0

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        self.calls += 1
        if self.error is not None:
            raise self.error
        size = call.dimensions or 16
        rows = np.stack([vector_of("" if self.stuck else str(text), size) for text in call.texts])
        return EmbedAnswer(np.ascontiguousarray(rows), len(call.texts))

    async def warm_up(self) -> None:
        pass

    async def check(self, timeout: float) -> None:
        pass

    async def close(self) -> None:
        pass


def own_settings(owner_dsn: str, folder: Path) -> Settings:
    """An endpoint that serves a model which no release ships with."""
    endpoint = EndpointSettings(name="own", provider="openai", base_url="http://127.0.0.1:9/v1", models={MODEL: ""})
    return settings_of(owner_dsn, folder).model_copy(update={"endpoints": [endpoint]})


@asynccontextmanager
async def serving(owner_dsn: str, settings: Settings) -> AsyncIterator[tuple[Gateway, Hashing]]:
    gateway = await Gateway.open(
        settings, Places(with_user(owner_dsn, "emberlog_gateway"), owner_dsn, None), master_key(settings)
    )
    provider = Hashing()
    gateway.endpoints.pool.providers["own"] = provider
    try:
        yield gateway, provider
    finally:
        await gateway.close()


@pytest.fixture
async def installation(migrated_dsn: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(migrated_dsn, tmp_path) as opened:
        yield opened


@pytest.fixture
def cli(migrated_dsn: str, tmp_path: Path) -> Cli:
    settings = settings_of(migrated_dsn, tmp_path)
    assert settings.database_url is not None
    return Cli(
        {
            "EMBERLOG_DATABASE_URL": settings.database_url.get_secret_value(),
            "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
            "EMBERLOG_REDIS_URL": "none",
            "EMBERLOG_SECRET_KEY_FILE": str(settings.secret_key_file),
        }
    )


REGISTER = (
    "models", "register", MODEL, "--provider", "openai", "--dimensions", "16", "--max-tokens", "512", "--max-inputs", "32",
    "--usd-per-million", "0.01", "--set", 'aliases=["maker/own"]',
)  # fmt: skip


async def test_many_who_start_at_once_seed_the_log_once(
    migrated_dsn: str, tmp_path: Path, owner: Connection, installation: Installation
) -> None:
    async def seeding() -> None:
        async with installed(migrated_dsn, tmp_path) as one, one.control(seeded=True) as control:
            assert control.plane.models.models.keys() >= {m.id for m in shipped().models}

    await asyncio.gather(*(seeding() for _ in range(4)))
    release = shipped()
    expected = {"model.registered": len(release.models), "price.set": len(release.prices)}
    assert dict(await owner.fetch(_COUNT)) == expected
    await seeding()
    assert dict(await owner.fetch(_COUNT)) == expected


async def test_reading_the_catalogue_shows_what_is_shipped_and_writes_nothing(cli: Cli, owner: Connection) -> None:
    listed = await cli.json("models", "list")
    assert {m["id"] for m in listed} == {m.id for m in shipped().models}
    local = next(m for m in listed if m["id"] == "all-MiniLM-L6-v2")
    assert (local["state"], local["endpoints"], local["offerings"][0]["unit_pico_usd"]) == ("available", ["local"], 0)
    assert await cli.json("models", "show", "sentence-transformers/all-MiniLM-L6-v2") == local
    counted = await cli.json("models", "statistics")
    assert (counted["total_models"], counted["by_state"], counted["served"]) == (
        len(listed),
        {"available": len(listed)},
        1,
    )
    providers = {p["name"]: p for p in await cli.json("models", "providers")}
    assert (providers["local"]["endpoints"], providers["local"]["models"]) == (["local"], ["all-MiniLM-L6-v2"])
    assert dict(await owner.fetch(_COUNT)) == {}


async def test_a_model_of_ones_own_goes_from_its_registration_to_its_first_answer(
    cli: Cli, migrated_dsn: str, tmp_path: Path, owner: Connection, installation: Installation
) -> None:
    settings = own_settings(migrated_dsn, tmp_path)
    with pytest.raises(ValueError, match=r"endpoint 'own': .* A model of your own is registered first"):
        await Gateway.open(
            settings, Places(with_user(migrated_dsn, "emberlog_gateway"), migrated_dsn, None), master_key(settings)
        )
    assert (await cli.json(*REGISTER))["state"] == "draft"
    assert (await cli.run(*REGISTER)).out == f"there already: {MODEL}, draft\n"
    keys = await tokens(installation)
    async with serving(migrated_dsn, settings) as (gateway, provider):
        principal = gateway.authenticate(keys["acme"])
        notices: list[Any] = []

        async def answered() -> str:
            reply = Recorder()
            message = EmbeddingGenerate(id=f"r{provider.calls}", input="text", model="maker/own", cache="off")
            try:
                gateway.generate(principal, "a1", message, ["text"], reply)
            except GatewayError as error:
                return error.code
            await reply.wait()
            assert reply.answer is not None, reply.refusal
            notices.append(reply.answer.notices)
            return reply.answer.space

        def catalogue() -> Catalogue:
            return gateway.models()

        assert await answered() == "model_not_found"
        with pytest.raises(GatewayError, match="is draft: that takes no 'validate'"):
            await gateway.validate_model(MODEL, "key:k")
        await cli.json("models", "test", MODEL)

        async def seen() -> bool:
            return MODEL in catalogue().models

        await until(seen, what="the running gateway knows the model that another process let be tested", timeout=5)
        assert await answered() == "model_not_enabled"

        provider.stuck = True
        await gateway.validate_model(MODEL, "key:k")
        failed = gateway.plane.models.models[MODEL]
        assert failed.state == "draft"
        assert failed.validated is not None
        assert failed.validated.problems == ["different texts got the same vector (probes 0 and 1)"]
        assert await owner.fetchval("SELECT count(*) FROM emberlog.space_references") == 0

        provider.stuck = False
        await cli.json("models", "test", MODEL)
        await gateway.catch_up()
        provider.error = ProviderError(ProviderFault.REFUSED, "no such model", status=404)
        await gateway.validate_model(MODEL, "key:k")
        refused = gateway.plane.models.models[MODEL]
        assert refused.validated is not None
        assert (refused.state, refused.validated.passed) == ("draft", False)
        assert "refused" in refused.validated.problems[0]

        provider.error = ProviderError(ProviderFault.AUTHENTICATION, "no", status=401)
        await cli.json("models", "test", MODEL)
        await gateway.catch_up()
        with pytest.raises(GatewayError) as away:
            await gateway.validate_model(MODEL, "key:k")
        assert away.value.code == "provider_unavailable"
        assert gateway.plane.models.models[MODEL].state == "testing", "what says nothing of the model changes nothing"

        provider.error = None
        await gateway.validate_model(MODEL, "key:k")
        good = gateway.plane.models.models[MODEL]
        assert good.state == "available"
        assert good.validated is not None
        assert (good.validated.passed, good.validated.endpoint, good.validated.dimensions) == (True, "own", 16)
        assert await owner.fetchval("SELECT count(DISTINCT space) FROM emberlog.space_references") == 1
        assert await answered() == f"{MODEL}@1/16/unit"
        assert notices == [msgspec.UNSET]
        await cli.json("models", "deprecate", MODEL, "--grace-days", "30")
        await gateway.catch_up()
        assert await answered() == f"{MODEL}@1/16/unit"
        assert "is deprecated and goes on 20" in str(notices[-1])

    ours: list[Any] = await owner.fetch(
        "SELECT type, data FROM emberlog.events WHERE tenant = '_system' AND stream LIKE 'request/_system/%'"
    )
    assert {row["type"] for row in ours} >= {"embedding.requested", "embedding.generated"}, (
        "our own requests are logged too"
    )
    budget = await owner.fetchval(
        "SELECT data->>'limit' FROM emberlog.events WHERE type = 'quota.set' AND data->>'unit' = 'nano_usd'"
    )
    assert budget == "1000000000"


async def test_our_own_requests_stop_at_their_budget(
    cli: Cli, migrated_dsn: str, tmp_path: Path, installation: Installation
) -> None:
    await cli.json(*REGISTER[:-4], "--usd-per-million", "1000")
    await cli.json("models", "test", MODEL)
    settings = own_settings(migrated_dsn, tmp_path).model_copy(update={"system_budget_nano_usd": 5})
    async with serving(migrated_dsn, settings) as (gateway, provider):
        with pytest.raises(GatewayError) as refused:
            await gateway.validate_model(MODEL, "key:k")
        assert (refused.value.code, provider.calls) == ("budget_exceeded", 0)
        assert gateway.plane.models.models[MODEL].state == "testing"


async def test_a_grace_period_ends_in_removal_once_however_many_look(migrated_dsn: str, tmp_path: Path) -> None:
    ended, running = "text-embedding-ada-002", "text-embedding-3-large"

    async def deprecate(control: Control, model: str, now: float) -> None:
        await control.run(
            lambda plane: decide_change(plane, model, {}, [Step("deprecate", grace_days=1)], now=now, actor="cli:t"),
            stream=model_stream(model),
        )

    async with (
        installed(migrated_dsn, tmp_path) as one,
        installed(migrated_dsn, tmp_path) as two,
        one.control(seeded=True) as control,
    ):
        await deprecate(control, ended, 0)
        await deprecate(control, running, time.time())
        async with two.control() as other:
            assert sum(await asyncio.gather(end_graces(control), end_graces(other))) == 1
            assert await end_graces(control) == 0
            states = {m.id: m.state for m in other.plane.models.models.values()}
            assert (states[ended], states[running]) == ("removed", "deprecated")


async def test_the_facts_of_a_new_release_are_taken_unless_an_operator_changed_the_model(
    installation: Installation, owner: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with installation.control(seeded=True) as control:
        await control.run(
            lambda plane: decide_change(plane, "text-embedding-3-large", {"rank": 7}, now=0, actor="cli:t"),
            stream=model_stream("text-embedding-3-large"),
        )
        price = {"id": "ours", "model": "text-embedding-3-large", "provider": "openai", "usd_per_million": "0.5"}
        await control.run(
            lambda plane: decide_price(plane, price, now=time.time(), actor="cli:t"), stream=PRICES_STREAM
        )
    newer = tmp_path / "newer.toml"
    text = (DATA / "openai.toml").read_text().replace("max_inputs = 2048", "max_inputs = 1024")
    newer.write_text(text.replace("-2026-11", "-2027-01").replace('"0.02"', '"0.01"').replace('"0.13"', '"0.12"'))
    monkeypatch.setattr("adapters.catalogue.DATA", newer)
    async with installation.control(seeded=True) as control:
        models = control.plane.models.models
        assert models["text-embedding-3-small"].offerings[0].max_inputs == 1024
        assert models["text-embedding-3-large"].offerings[0].max_inputs == 2048
        assert models["text-embedding-3-large"].spec.rank == 7
        now, prices = time.time() + 1, control.plane.prices
        assert prices.list_price("text-embedding-3-large", "openai", now).id == "ours"
        small = [prices.list_price("text-embedding-3-small", "openai", at).unit_pico_usd for at in (now - 3600, now)]
        assert small == [20_000, 10_000], "what was charged before is what it was"
    updates = await owner.fetch(
        "SELECT data->>'model' AS m FROM emberlog.events WHERE type = 'model.updated' ORDER BY position"
    )
    assert [row["m"] for row in updates].count("text-embedding-3-small") == 1


async def test_of_two_who_register_one_id_with_other_facts_the_later_is_refused(installation: Installation) -> None:
    def registering(dimensions: int) -> Decide:
        spec = ModelSpec(version="1", dimensions=dimensions, max_tokens=8)
        return lambda plane: decide_register(plane, "a", spec, [], actor="cli:t")

    async with installation.control() as one, installation.control() as two:
        await one.run(registering(8), stream="model/a")
        with pytest.raises(GatewayError, match="is in the catalogue with other facts"):
            await two.run(registering(9), stream="model/a")
        assert not (await two.run(registering(8), stream="model/a")).changed


async def test_commands_validate_a_model_and_attest_its_endpoint_on_a_server_that_speaks_openais_api(
    cli: Cli, tmp_path: Path, owner: Connection
) -> None:
    simulator = Simulator()
    try:
        config = tmp_path / "emberlog.toml"
        config.write_text(
            f'[[endpoints]]\nname = "own"\nprovider = "openai"\nbase_url = "{simulator.url}/v1"\nmodels = ["{MODEL}"]\n'
        )
        cli.environment["EMBERLOG_CONFIG"] = str(config)
        there = "text-embedding-3-small"  # the server's own name for it
        sized = [word.replace("16", "1536") for word in REGISTER]
        await cli.json(*sized, "--provider-model", there, "--set", "dimensions_range=[1,1536]")
        await cli.json("models", "test", MODEL)
        found = await cli.json("models", "validate", MODEL)
        assert (found["state"], found["endpoints"], found["validation"]["problems"]) == ("available", ["own"], [])
        assert found["validation"]["space"] == f"{MODEL}@1/1536/unit"
        again = await cli.run("models", "validate", MODEL)
        assert (again.code, "is available: that takes no 'validate'" in again.error) == (1, True)

        [good] = await cli.json("models", "attest", MODEL)
        assert (good["endpoint"], good["space"], good["passed"]) == ("own", f"{MODEL}@1/1536/unit", True)
        assert (good["cosine_min"], good["epoch"]) == (1.0, 0), "by the references that validation has taken"
        await owner.execute(
            "UPDATE emberlog.space_references r SET vector = (SELECT min(vector) FROM emberlog.space_references)"
        )
        drifted = await cli.run("models", "attest", MODEL, "--endpoint", "own")
        assert (drifted.code, "drifted" in drifted.out, "are not those of the space" in drifted.out) == (1, True, True)
        renewed = await cli.run("models", "attest", MODEL, "--new-references")
        assert (renewed.code, "attested" in renewed.out) == (0, True)
        unknown = await cli.run("models", "attest", MODEL, "--endpoint", "other")
        assert (unknown.code, "does not serve own-model; those that do: own" in unknown.error) == (1, True)
    finally:
        simulator.close()


async def test_commands_say_what_is_wrong_and_exit_in_kind(cli: Cli) -> None:
    for words, code, said in (
        (("models", "show", "nothing"), 1, "model_not_found"),
        (("models", "register", "x", "--dimensions", "0", "--max-tokens", "9"), 2, "offerings: is missing"),
        (("models", "register", "--set", "colour"), 2, "expected FIELD=VALUE"),
        (("models", "register", "--file", "/nowhere.json"), 2, "cannot be read"),
        (("models", "deprecate", "all-MiniLM-L6-v2", "--grace-days", "9999"), 2, "grace_days"),
        (("models", "remove", "all-MiniLM-L6-v2"), 1, "resource_constraint"),
        (("models", "validate", "all-MiniLM-L6-v2"), 1, "that takes no 'validate'"),
        (("models", "update", "all-MiniLM-L6-v2", "--set", "dimensions=8"), 2, "dimensions: is 384 and stays so"),
    ):
        outcome = await cli.run(*words)
        assert (outcome.code, said in outcome.error) == (code, True), outcome
