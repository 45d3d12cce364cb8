"""Several endpoints of one space behind running gateways: one that dies, one that drifts, one that is put to work and taken out again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gateway.demo.process import GatewayProcess
from tests.acceptance.http import request
from tests.acceptance.ledger import GENERATED, audit
from tests.acceptance.load import check_vectors
from tests.acceptance.peer import Message, Peer, rows_of, session
from tests.acceptance.provider import MODEL, Simulator
from tests.acceptance.site import Site
from tests.support.waiting import until

ON = {"EMBERLOG_ATTEST_ENDPOINTS": "true", "EMBERLOG_BREAKER_OPEN_SECONDS": "60"}


def toml(*places: tuple[str, Simulator, int]) -> str:
    return "\n".join(
        f'[[endpoints]]\nname = "{name}"\nprovider = "openai"\nbase_url = "{simulator.url}/v1"\n'
        f'api_key_env = "SIMULATOR_KEY"\nmodels = ["{MODEL}"]\ntimeout_ms = 5000\nweight = {weight}\n'
        for name, simulator, weight in places
    )


@pytest.fixture
def spare() -> Iterator[Simulator]:
    """A second provider of the same model."""
    started = Simulator()
    yield started
    started.close()


@contextlib.asynccontextmanager
async def running(site: Site, **env: str) -> AsyncIterator[GatewayProcess]:
    gateway = site.gateway(log=f"{len(env)}-{id(env)}.log", **env)
    await gateway.start()
    try:
        yield gateway
    finally:
        assert await gateway.stop() == 0


async def attempts(site: Site) -> list[tuple[str, str]]:
    return [
        (a["endpoint"], a["reason"])
        for e in await site.events()
        if e.type == GENERATED and e.tenant == "default"
        for a in e.data.get("attempts", ())
    ]


def answered_by(message: Message) -> str:
    assert message["type"] == "embedding.result", message
    return str(message["endpoint"])


async def endpoint(gateway: GatewayProcess, name: str, key: str) -> Any:
    answer = await request(f"{gateway.url}/api/v1/endpoints/{name}", key=key)
    assert answer.status == 200, answer.body
    return answer.json()


async def test_a_dead_endpoint_costs_no_answer_and_its_circuit_opens_in_every_gateway(
    migrated: Site, provider: Simulator, spare: Simulator, folder: Any
) -> None:
    dead = Simulator()
    (folder / "emberlog.toml").write_text(toml(("main", dead, 9), ("spare", spare, 1)))
    migrated.env["EMBERLOG_CONFIG"] = str(folder / "emberlog.toml")
    async with running(migrated, **ON) as one, running(migrated, **ON) as other:
        operator = (await migrated.create_key(None, "operator", url=one.url)).token
        await migrated.ask("tenants", "create", "default")
        key = (await migrated.create_key("default", "agent", url=one.url)).token
        async with session(one.url, key) as peer:
            first = await peer.embed("before", "hello")
            assert answered_by(first) == "main"
            dead.close()
            for n in range(6):
                answer = await peer.embed(f"after-{n}", f"hello {n}")
                assert answered_by(answer) == "spare"
                assert answer["space"] == first["space"]
                assert answer["failover"]["from"] == {"endpoint": "main", "model": MODEL}
                check_vectors([f"hello {n}"], rows_of(answer), f"after-{n}")

            async def seen() -> bool:
                return (await endpoint(other, "main", operator))["circuit"]["state"] == "open"

            await until(seen, what="the other gateway knows that the circuit is open", timeout=5)
            answer = await peer.embed("open", "hello again")
            assert answer["failover"]["reason"] == "circuit_open"
            async with session(other.url, key) as elsewhere:
                answer = await elsewhere.embed("open-elsewhere", "hello from elsewhere")
                assert (answered_by(answer), answer["failover"]["reason"]) == ("spare", "circuit_open")
            reset = await request(f"{one.url}/api/v1/endpoints/main/breaker/reset", {}, key=operator)
            assert reset.status == 200, reset.body

            async def closed() -> bool:
                return (await endpoint(other, "main", operator))["circuit"]["state"] == "closed"

            await until(closed, what="the other gateway knows that the circuit was reset", timeout=5)
        events = await migrated.events()
        audit(events)
        tried = await attempts(migrated)
        assert {a for a in tried if a[0] == "main"} <= {("main", "connection"), ("main", "circuit_open")}
        changed = [e.data["state"] for e in events if e.type == "breaker.state_changed"]
        assert changed[0] == "open"
        assert changed[-1] == "closed"
        assert changed.count("open") == 1, "what was adopted is not said again"


async def test_an_endpoint_that_hangs_is_left_in_time_for_another_to_answer(
    migrated: Site, provider: Simulator, spare: Simulator, folder: Any
) -> None:
    (folder / "emberlog.toml").write_text(toml(("main", provider, 9), ("spare", spare, 1)))
    migrated.env["EMBERLOG_CONFIG"] = str(folder / "emberlog.toml")
    async with running(migrated, **ON) as gateway:
        await migrated.ask("tenants", "create", "default")
        key = (await migrated.create_key("default", "agent", url=gateway.url)).token
        async with session(gateway.url, key) as peer:
            await peer.embed("before", "hello")
            provider.fault("hang", count=-1)
            answer = await peer.embed("hanging", "a deadline shorter than the endpoint's timeout", deadline_ms=3000)
            assert (answered_by(answer), answer["failover"]["reason"]) == ("spare", "timeout")
        provider.behave()


async def test_an_endpoint_that_serves_another_model_than_it_says_answers_nobody(
    migrated: Site, provider: Simulator, spare: Simulator, folder: Any
) -> None:
    (folder / "emberlog.toml").write_text(toml(("main", provider, 1), ("spare", spare, 9)))
    migrated.env["EMBERLOG_CONFIG"] = str(folder / "emberlog.toml")
    spare.fault("drifted", count=-1)
    async with running(migrated, EMBERLOG_ATTEST_ENDPOINTS="false") as gateway:
        await migrated.ask("tenants", "create", "default")
        key = (await migrated.create_key("default", "agent", url=gateway.url)).token
        async with session(gateway.url, key) as peer:
            assert answered_by(await peer.embed("unattested", "hello")) == "spare", "nobody looked, so nobody noticed"
    # References come from an endpoint that somebody trusts; from then on the other is found out by its first request.
    attested = await migrated.ask("models", "attest", MODEL, "--endpoint", "main")
    assert all(found["passed"] for found in attested), attested
    async with running(migrated, **ON) as gateway, session(gateway.url, key) as peer:
        answers = [await peer.embed(f"attested-{n}", f"hello {n}", dimensions=None) for n in range(3)]
        assert [answered_by(a) for a in answers] == ["main"] * 3
        operator = (await migrated.create_key(None, "operator", url=gateway.url)).token
        ended = await migrated.run("models", "attest", MODEL, "--endpoint", "spare", "--json")
        assert ended.code == 1, "a script sees that something is wrong"
        drifted = json.loads(ended.out)
        assert [(f["endpoint"], f["passed"]) for f in drifted] == [("spare", False)]

        async def told() -> bool:
            alerts = (await request(f"{gateway.url}/api/v1/alerts", key=operator)).json()["alerts"]
            return any(a["kind"] == "endpoint_drift" and a["labels"]["endpoint"] == "spare" for a in alerts)

        await until(told, what="an alert of the drift is raised", timeout=10)
    probes = [e for e in await migrated.events() if e.tenant == "_system" and e.type == GENERATED]
    assert probes, "our own calls go through the same log"


async def ready(gateway: GatewayProcess, deployment: str, key: str, state: str = "ready") -> Any:
    async def found() -> Any:
        told = (await request(f"{gateway.url}/api/v1/deployments/{deployment}", key=key)).json()
        assert told["state"] == state or told["state"] != "failed", told
        return told if told["state"] == state else None

    return await until(found, what=f"the deployment is {state}", timeout=20)


async def test_an_endpoint_is_put_to_work_in_every_gateway_and_taken_out_without_an_error(
    migrated: Site, provider: Simulator, spare: Simulator, folder: Any
) -> None:
    (folder / "emberlog.toml").write_text(toml(("main", provider, 1)))
    migrated.env["EMBERLOG_CONFIG"] = str(folder / "emberlog.toml")
    async with running(migrated, **ON) as one, running(migrated, **ON) as other:
        await migrated.ask("tenants", "create", "default")
        key = (await migrated.create_key("default", "agent", url=one.url)).token
        operator = (await migrated.create_key(None, "operator", url=one.url)).token
        spec = {
            "name": "extra", "provider": "openai", "base_url": f"{spare.url}/v1", "api_key_env": "SIMULATOR_KEY", "weight": 9,
        }  # fmt: skip
        began = await request(f"{one.url}/api/v1/models/{MODEL}/deploy", spec, key=operator)
        assert began.status in (200, 201, 202), began.body
        deployment = began.json()["id"]
        await ready(one, deployment, operator)
        await ready(other, deployment, operator)
        async with session(one.url, key) as peer, session(other.url, key) as elsewhere:
            assert answered_by(await peer.embed("one", "hello")) == "extra"
            assert answered_by(await elsewhere.embed("two", "hello from elsewhere")) == "extra"
            asking = asyncio.create_task(_ask_until_main(peer))
            ended = await request(f"{one.url}/api/v1/deployments/{deployment}", key=operator, method="DELETE")
            assert ended.status in (200, 202), ended.body
            answers = await asking
            assert {answered_by(a) for a in answers} <= {"extra", "main"}
            await ready(one, deployment, operator, "stopped")

            async def gone() -> bool:
                return answered_by(await elsewhere.embed(f"gone-{id(object())}", "hello", cache="off")) == "main"

            await until(gone, what="the other gateway sends nothing there any more", timeout=5)
        audit(await migrated.events())


async def _ask_until_main(peer: Peer) -> list[Message]:
    answers: list[Message] = []
    while not answers or answered_by(answers[-1]) != "main":
        answers.append(await peer.embed(f"draining-{len(answers)}", f"text {len(answers)}"))
    return answers
