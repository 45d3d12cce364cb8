"""Endpoints attested by a gateway on a real log: through its own requests, in every process, within their budget."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.postgres.pool import Connection
from domain.errors import GatewayError
from domain.events import SYSTEM_TENANT, ModelSpec, OfferingSpec, QuotaSet
from domain.model_decisions import Step, decide_change, decide_register, model_stream
from domain.ports.provider import EmbedAnswer, EmbedCall
from gateway.bench import vectors as bench_vectors
from gateway.decisions import append_decision
from gateway.gateway import Gateway
from gateway.house import master_key
from gateway.manage import Installation
from gateway.places import Places
from gateway.settings import EndpointSettings, Settings
from gateway.wire.messages import EmbeddingGenerate
from projections.provider_health.query import read_provider_health
from tests.integration.test_shred_gateway import tokens
from tests.support.databases import with_user
from tests.support.installing import installed, settings_of
from tests.support.waiting import until
from tests.unit.service.conftest import Recorder

MODEL, UNPRICED = "text-embedding-3-small", "own-model"
SPACE = f"{MODEL}@1/1536/unit"
TIMEOUT_MS = 1_500
vector_of = functools.cache(bench_vectors.vector_of)


class Endpoints:
    """What answers: vectors that follow from the text, and from another one where a model changed silently; or nothing, while it hangs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[list[str]] = []
        self.changed = False
        self.hangs = False

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        self.asked.append([str(text) for text in call.texts])
        if self.hangs:
            await asyncio.Event().wait()
        size = call.dimensions or (1536 if call.model == MODEL else 16)
        rows = [vector_of(f"{text}{' anew' if self.changed else ''}", size) for text in call.texts]
        return EmbedAnswer(np.ascontiguousarray(np.stack(rows)), len(call.texts))

    async def warm_up(self) -> None:
        pass

    async def check(self, timeout: float) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.fixture
def settings(migrated_dsn: str, tmp_path: Path) -> Settings:
    endpoints = [
        EndpointSettings(
            name=name, provider="openai", base_url="http://127.0.0.1:9/v1", models={MODEL: "", UNPRICED: ""},
            weight=weight, timeout_ms=TIMEOUT_MS,
        )
        for name, weight in (("one", 9), ("two", 0))
    ]  # fmt: skip
    return settings_of(migrated_dsn, tmp_path).model_copy(update={"attest_endpoints": True, "endpoints": endpoints})


@pytest.fixture
async def installation(migrated_dsn: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(migrated_dsn, tmp_path) as opened:
        async with opened.control(seeded=True) as control:
            spec = ModelSpec(version="1", dimensions=16, max_tokens=512)
            offering = OfferingSpec(
                provider="openai", provider_model=UNPRICED, max_inputs=32, max_tokens_per_call=10_000
            )
            await control.run(
                lambda plane: decide_register(plane, UNPRICED, spec, [offering], actor="cli:t"),
                stream=model_stream(UNPRICED),
            )
            await control.run(
                lambda plane: decide_change(plane, UNPRICED, {}, [Step("test")], now=0, actor="cli:t"),
                stream=model_stream(UNPRICED),
            )
        yield opened


@asynccontextmanager
async def serving(
    owner_dsn: str, settings: Settings, providers: Mapping[str, Endpoints] | None = None
) -> AsyncIterator[tuple[Gateway, Mapping[str, Endpoints]]]:
    gateway = await Gateway.open(
        settings, Places(with_user(owner_dsn, "emberlog_gateway"), owner_dsn, None), master_key(settings)
    )
    providers = providers or {name: Endpoints(name) for name in ("one", "two")}
    gateway.endpoints.pool.providers.update(providers)
    try:
        yield gateway, providers
    finally:
        await gateway.close()


async def ask(gateway: Gateway, token: str, number: int) -> Recorder:
    reply = Recorder()
    message = EmbeddingGenerate(id=f"r{number}", input="text", model=MODEL, cache="off", deadline_ms=20_000)
    gateway.generate(gateway.authenticate(token), "a1", message, ["text"], reply)
    await reply.wait()
    return reply


def states(gateway: Gateway) -> dict[str, str]:
    candidates = gateway.models().candidates(MODEL)
    return {c.endpoint.name: gateway.endpoints.attestations.state(c.endpoint, SPACE).value for c in candidates}


async def test_the_first_request_attests_its_endpoint_and_one_that_drifts_serves_no_more_in_any_process(
    migrated_dsn: str, owner: Connection, installation: Installation, settings: Settings
) -> None:
    keys = await tokens(installation)
    async with (
        serving(migrated_dsn, settings) as (gateway, providers),
        serving(migrated_dsn, settings, providers) as (
            other,
            _,
        ),
    ):
        one, two = providers["one"], providers["two"]
        first = await ask(gateway, keys["acme"], 1)
        assert first.answer is not None, first.refusal
        assert (first.answer.endpoint, len(one.asked), two.asked) == ("one", 3, []), "twice the probes, then the text"
        assert states(gateway) == {"one": "attested", "two": "unattested"}
        again = await ask(gateway, keys["acme"], 2)
        assert (again.answer is not None, len(one.asked)) == (True, 4)

        one.changed = True
        found = (await gateway.attest_model(MODEL, "key:k")).attestations
        assert [(d.endpoint, d.passed) for d in found] == [("one", False), ("two", True)]
        assert "what answers there is another model or version" in found[0].problems[0]

        async def known() -> bool:
            return states(other) == {"one": "quarantined", "two": "attested"}

        await until(known, what="the other process keeps the endpoint out too", timeout=5)
        calls = len(one.asked)
        for number, process in ((3, gateway), (4, other)):
            served = await ask(process, keys["acme"], number)
            assert served.answer is not None, served.refusal
            assert (served.answer.endpoint, served.answer.space, len(one.asked)) == ("two", SPACE, calls)

        async def alerted() -> bool:
            alerts = await gateway.alerts.alerts(None, state="open", kind="endpoint_drift")
            return [(a.tenant, a.labels["endpoint"], a.labels["space"]) for a in alerts] == [
                (SYSTEM_TENANT, "one", SPACE)
            ]

        await until(alerted, what="an alert says which endpoint drifted", timeout=15)

        async def attested_again() -> bool:
            return "attestations" in gateway._scheduler.states

        await until(attested_again, what="the installation's maintenance looks for what is to be attested again")
        two.hangs = True
        [hanging] = (await gateway.attest_model(MODEL, "key:k", endpoint="two")).attestations
        assert hanging.failure is not None
        assert (hanging.passed, hanging.failure.reason) == (None, "timeout")
        assert states(gateway)["two"] == "attested", "what did not answer has not drifted"
        two.hangs = False

        renewed = (await gateway.attest_model(MODEL, "key:k", endpoint="one", new_references=True)).attestations
        assert [(d.passed, d.epoch) for d in renewed] == [(True, 1)]
        assert states(gateway) == {"one": "attested", "two": "unattested"}

        async def shown() -> bool:
            rows = await read_provider_health(gateway._log.pool, endpoint="one", model=MODEL)
            return bool(rows) and rows[0].answered >= 4 and rows[0].attestations[0].passed

        await until(shown, what="the view shows what the endpoint answered and that it passes", timeout=10)
    ours: Any = await owner.fetch(
        "SELECT data->>'agent' AS agent, type FROM emberlog.events WHERE stream LIKE 'request/_system/%' AND type = 'embedding.requested'"
    )
    assert {row["agent"] for row in ours} == {"attestation"}
    drift: Any = await owner.fetch(
        "SELECT tenant, stream FROM emberlog.events WHERE type = 'endpoint.attested' AND data->>'passed' = 'false'"
    )
    assert {tuple(row) for row in drift} == {(SYSTEM_TENANT, "endpoint/one")}


async def test_a_model_of_unknown_price_is_attested_within_its_tokens_and_not_beyond(
    migrated_dsn: str, owner: Connection, installation: Installation, settings: Settings
) -> None:
    async with installation.writer() as instance:  # as earlier releases had it
        before = QuotaSet(scope="tenant", unit="nano_usd", window="month", limit=5, actor="settings")
        await append_decision(installation.log, instance, SYSTEM_TENANT, "tenant/_system", before)
    async with serving(migrated_dsn, settings) as (gateway, _):
        [found, _] = (await gateway.attest_model(UNPRICED, "key:k")).attestations
        assert (found.passed, found.failure) == (True, None)
        quotas = gateway.plane.quotas.of(SYSTEM_TENANT)
        assert {(k.scope, k.subject, k.unit): q.limit for k, q in quotas.items()} == {
            ("agent", "validation", "nano_usd"): 1_000_000_000,
            ("agent", "attestation", "tokens"): 5_000_000,
        }
        with pytest.raises(GatewayError) as unbounded:
            await gateway.validate_model(UNPRICED, "key:k")
        assert unbounded.value.code == "no_model_available", "what a validation costs is bound by money"
    used = await owner.fetchval(
        "SELECT sum((data->>'billed_tokens')::bigint) FROM emberlog.events WHERE tenant = '_system'"
    )
    little = settings.model_copy(update={"attestation_tokens_per_month": int(used) + 1})
    keys = await tokens(installation)
    async with serving(migrated_dsn, little) as (gateway, providers):
        [refused, _] = (await gateway.attest_model(UNPRICED, "key:k")).attestations
        assert refused.failure is not None
        assert (refused.passed, refused.failure.reason, refused.failure.code) == (None, "unattested", "quota_exceeded")
        asked = await ask(gateway, keys["acme"], 1)
        assert asked.refusal is not None, "what cannot be attested does not serve"
        assert asked.refusal.code == "provider_unavailable"
        assert {p.name: p.asked for p in providers.values()} == {"one": [], "two": []}

        async def told() -> bool:
            alerts = await gateway.alerts.alerts(None, state="open", kind="quota_high")
            return [(a.tenant, a.labels["subject"]) for a in alerts] == [(SYSTEM_TENANT, "attestation")]

        await until(told, what="an alert says that the tokens for attestation are used up", timeout=15)
