"""Deployments between two gateways on one log: what one puts to work, both send to; what one leaves, the other ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from domain.endpoints import Deployment
from domain.errors import GatewayError
from domain.events import EndpointSpec, ModelRegistered, ModelSpec, OfferingSpec, PriceSet
from gateway.decisions import create_key, create_tenant, decision_event
from gateway.gateway import Gateway
from gateway.house import master_key
from gateway.places import Places
from gateway.wire.messages import EmbeddingGenerate
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.endpoints import DIMENSIONS, Tellers
from tests.support.installing import installed, settings_of
from tests.support.waiting import until
from tests.unit.service.conftest import Recorder

MODEL = "own"


@dataclass
class Two:
    """Two gateways, the tenants `acme` and `other` with a key each, a model at the provider `told`, and what opens that."""

    gateways: list[Gateway]
    keys: dict[str, str]
    tellers: Tellers
    asked: int = 0

    async def deploy(self, which: int, name: str = "e", owner: str | None = None, **more: Any) -> Deployment:
        gateway = self.gateways[which]
        made, _ = await gateway.deployments.deploy(
            lambda stream, decide: gateway.control.run(decide, stream=stream),
            name, MODEL, EndpointSpec("told", {MODEL: ""}, **more), owner=owner, operator=True, actor="test",
        )  # fmt: skip
        return made

    async def settled(self, which: int, deployment: Deployment) -> Deployment:
        return await self.gateways[which].deployments.settled(deployment, 20)

    async def ask(self, which: int, tenant: str) -> str:
        """The endpoint that answered, or the code of what came instead."""
        self.asked += 1
        gateway, reply = self.gateways[which], Recorder()
        message = EmbeddingGenerate(id=f"r{self.asked}", input=f"text {self.asked}", model=MODEL)
        try:
            gateway.generate(gateway.authenticate(self.keys[tenant]), "bot", message, [str(message.input)], reply)
        except GatewayError as error:
            return error.code
        await reply.wait()
        if reply.answer is not None:
            return str(reply.answer.endpoint)
        assert reply.refusal is not None
        return reply.refusal.code


@pytest.fixture
async def two(migrated_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    tellers = Tellers().install(monkeypatch)
    settings = settings_of(migrated_dsn, tmp_path).model_copy(update={"attest_endpoints": True, "drain_seconds": 5.0})
    places = Places(with_user(migrated_dsn, "emberlog_gateway"), migrated_dsn, None)
    keys = {}
    async with installed(migrated_dsn, tmp_path) as installation, installation.writer() as instance:
        for tenant in ("acme", "other"):
            await create_tenant(installation.log, instance, installation.master(), tenant, actor="cli:test")
            keys[tenant] = (await create_key(installation.log, instance, tenant, ["agent"], actor="cli:test")).token
        spec = ModelSpec("1", DIMENSIONS, 512, unit=False)
        model = ModelRegistered(MODEL, spec, [OfferingSpec("told", "theirs", 16, 10_000)], state="available")
        price = PriceSet("p", MODEL, "told", effective_from=0, unit_pico_usd=1000)
        await installation.log.append(
            instance,
            [decision_event("_system", f"model/{MODEL}", model), decision_event("_system", "prices", price)],
        )
    async with AsyncExitStack() as stack:
        gateways = []
        for _ in range(2):
            gateways.append(await Gateway.open(settings, places, master_key(settings)))
            stack.push_async_callback(gateways[-1].close)
        yield Two(gateways, keys, tellers)
    assert tellers.open_now == []


async def test_what_one_gateway_puts_to_work_both_send_to_and_for_its_owner_alone(
    two: Two, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = two.gateways
    assert await two.ask(0, "acme") == "no_model_available"
    await first.credentials.set(
        lambda stream, decide: first.control.run(decide, stream=stream),
        "acme", "mine", provider="told", secret="acme's own secret", actor="test",
    )  # fmt: skip
    made = await two.settled(0, await two.deploy(0, owner="acme", credential="mine"))
    assert (made.state, made.reason) == ("ready", None)
    assert [t.key for t in two.tellers.open_now] == ["acme's own secret"]
    await until(lambda: second.models().candidates(MODEL, "acme"), what="the other gateway has the endpoint too")
    assert [await two.ask(which, "acme") for which in (0, 1)] == ["acme:e", "acme:e"]
    assert [await two.ask(which, "other") for which in (0, 1)] == ["no_model_available"] * 2
    assert [t.key for t in two.tellers.open_now] == ["acme's own secret"] * 2
    stored = str([(e.type, e.data) for e in await first._log.read(0, 10_000)])
    assert "deployment.changed" in stored
    assert "credential.set" in stored
    assert "own secret" not in stored + "".join(capsys.readouterr())

    # It asks for a long pause, and its circuit opens: neither is held against what is deployed in its place.
    dispatchers = [gateway.endpoints.dispatcher for gateway in two.gateways]
    for gateway, dispatcher in zip(two.gateways, dispatchers, strict=True):
        [candidate] = gateway.models().candidates(MODEL, "acme")
        dispatcher.lane(candidate, None, None).slots.pause(200)
        gateway.endpoints.desk.breakers.of(candidate.endpoint).force_open(200)
        assert dispatcher.paused("acme:e")
    await second.deployments.undeploy(
        lambda stream, decide: second.control.run(decide, stream=stream), made, actor="test"
    )
    assert (await two.settled(1, made)).state == "stopped"
    await until(lambda: not two.tellers.open_now, what="both gateways have closed it")
    assert [await two.ask(which, "acme") for which in (0, 1)] == ["no_model_available"] * 2
    await until(lambda: not any(d.paused("acme:e") for d in dispatchers), what="both gateways have forgotten it")
    made = await two.settled(0, await two.deploy(0, owner="acme", credential="mine"))
    assert (made.state, made.reason) == ("ready", None)
    await until(lambda: second.models().candidates(MODEL, "acme"), what="the other gateway has the endpoint again")
    assert [await two.ask(which, "acme") for which in (0, 1)] == ["acme:e", "acme:e"]


async def test_an_endpoint_whose_vectors_are_of_another_space_is_never_registered(two: Two) -> None:
    good = await two.settled(0, await two.deploy(0, "good"))
    assert (good.state, good.reason) == ("ready", None)
    two.tellers.drifted = True
    bad = await two.settled(0, await two.deploy(0, "bad", base_url="http://elsewhere"))
    assert (bad.state, bad.stage, bad.code) == ("failed", "load", "provider_error")
    assert [e.name for e in two.gateways[0].endpoints.pool.endpoints() if e.provider == "told"] == ["good"]
    assert len(two.tellers.open_now) == 1
    two.tellers.drifted = False
    again = await two.settled(0, await two.deploy(0, "bad", base_url="http://elsewhere"))
    assert (again.state, again.reason) == ("ready", None), "it is asked anew when it is deployed anew"


async def test_what_a_gateway_leaves_half_done_another_ends(two: Two) -> None:
    first, second = two.gateways
    two.tellers.shut = True
    made = await two.deploy(0)
    await until(lambda: first.plane.endpoints.deployments["e"].state == "loading", what="it is being loaded")
    await until(lambda: "e" in second.plane.endpoints.deployments, what="the other gateway knows of it")
    assert await second.deployments.reap() == 0
    await first.close()
    ended = await two.settled(1, made)
    assert (ended.state, ended.stage, ended.code, ended.claim) == ("failed", "load", "unavailable", None)
    assert two.tellers.open_now == []
    two.tellers.shut = False
    assert (await two.settled(1, await two.deploy(1))).state == "ready"


async def test_the_commands_list_what_gateways_have_deployed_and_say_why_one_cannot_be(
    two: Two, migrated_dsn: str, tmp_path: Path
) -> None:
    await two.settled(0, await two.deploy(0))
    cli = Cli(
        {
            "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
            "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
            "EMBERLOG_REDIS_URL": "none",
            "EMBERLOG_SECRET_KEY_FILE": str(tmp_path / "secret.key"),
        }
    )
    [listed] = await cli.json("models", "deployments", MODEL)
    assert (listed["endpoint"], listed["state"], listed["spec"]["provider"]) == ("e", "ready", "told")
    args = ("models", "deploy", MODEL, "--name", "e", "--provider", "told")
    refused = await cli.run(*args, "--weight", "9")
    assert (refused.code, "is ready with other settings" in refused.error) == (1, True)
    unknown = await cli.run(*args[:4], "more", *args[5:])  # that process has no such provider
    assert (unknown.code, "unknown provider 'told'" in unknown.out) == (1, True)
    gone = await cli.json("models", "undeploy", "e")
    assert gone["state"] == "stopped"
    await until(lambda: not two.tellers.open_now, what="the gateways have let go of it")
    assert (await cli.run(*args, "--option", "region")).code == 2
