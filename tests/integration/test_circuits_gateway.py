"""Circuits over two gateways and one log: what one finds out the other acts upon, and an operator's reset closes both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from domain.catalogue import Endpoint
from domain.decoding import decode_data
from domain.endpoint_decisions import decide_reset_breaker
from domain.endpoint_health import Health
from domain.errors import GatewayError
from domain.events import BreakerChanged, EndpointHealthChanged
from domain.ports.breaker import CircuitState
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault
from gateway.decisions import create_key, create_tenant
from gateway.gateway import Gateway
from gateway.house import master_key
from gateway.places import Places
from gateway.wire.messages import EmbeddingGenerate
from tests.support.databases import with_user
from tests.support.installing import installed, settings_of
from tests.support.waiting import until
from tests.unit.service.conftest import Recorder


class Sick:
    """A provider that is ill until a test says otherwise. Signs of life it gives either way."""

    def __init__(self) -> None:
        self.calls = 0
        self.well = False

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        self.calls += 1
        if not self.well:
            raise ProviderError(ProviderFault.SERVER, "no", status=503)
        rows = np.zeros((len(call.texts), 384), dtype=np.float32)
        rows[:, 0] = 1
        return EmbedAnswer(rows)

    async def warm_up(self) -> None: ...

    async def check(self, timeout: float) -> None: ...

    async def close(self) -> None: ...


class Two:
    def __init__(self, gateways: list[Gateway], key: str) -> None:
        self.gateways = gateways
        self.key = key
        self.provider = Sick()
        self.asked = 0
        for gateway in gateways:
            gateway.endpoints.pool.providers["local"] = self.provider

    async def ask(self, gateway: Gateway) -> str:
        self.asked += 1
        reply = Recorder()
        message = EmbeddingGenerate(id=f"r{self.asked}", input=f"text {self.asked}", model="all-MiniLM-L6-v2")
        try:
            gateway.generate(gateway.authenticate(self.key), "bot", message, [str(message.input)], reply)
        except GatewayError as error:
            return error.code
        await reply.wait()
        return "ok" if reply.answer is not None else reply.refusal.code if reply.refusal is not None else "?"

    def endpoint(self, gateway: Gateway) -> Endpoint:
        [endpoint] = gateway.endpoints.pool.endpoints()
        return endpoint

    def state(self, gateway: Gateway) -> CircuitState:
        return gateway.endpoint_desk.breakers.of(self.endpoint(gateway)).state

    async def told(self, kind: type[BreakerChanged] | type[EndpointHealthChanged]) -> list[tuple[str, str]]:
        events = await self.gateways[0]._log.read(0, 10_000)
        found = [decode_data(e.type, e.data, e.schema_version) for e in events if e.type == kind.TYPE]
        return [
            (d.previous, d.state if isinstance(d, BreakerChanged) else d.health)
            for d in found
            if isinstance(d, BreakerChanged | EndpointHealthChanged)
        ]


@pytest.fixture
async def two(migrated_dsn: str, tmp_path: Path) -> AsyncIterator[Two]:
    settings = settings_of(migrated_dsn, tmp_path)
    places = Places(with_user(migrated_dsn, "emberlog_gateway"), migrated_dsn, None)
    async with installed(migrated_dsn, tmp_path) as installation, installation.writer() as instance:
        await create_tenant(installation.log, instance, installation.master(), "acme", actor="cli:test")
        key = (await create_key(installation.log, instance, "acme", ["agent"], actor="cli:test")).token
    async with AsyncExitStack() as stack:
        gateways = []
        for _ in range(2):
            gateway = await Gateway.open(settings, places, master_key(settings))
            stack.push_async_callback(gateway.close)
            gateways.append(gateway)
        yield Two(gateways, key)


async def test_a_circuit_that_opens_in_one_gateway_is_open_in_the_other_until_an_operator_resets_it(two: Two) -> None:
    one, other = two.gateways
    while two.state(one) is not CircuitState.OPEN:
        assert await two.ask(one) == "provider_unavailable"
    assert two.provider.calls == 5
    await until(lambda: two.state(other) is CircuitState.OPEN, what="the other hears of it", timeout=2)
    for gateway in two.gateways:
        assert await two.ask(gateway) == "provider_unavailable"
        assert gateway.endpoint_desk.health.of("local") is Health.UNHEALTHY
    assert two.provider.calls == 5, "nothing is sent while it is open"

    two.provider.well = True
    endpoint = two.endpoint(other)
    await other.control.run(
        lambda plane: decide_reset_breaker(plane, endpoint, "key:op", now=1.0), stream="endpoint/local"
    )
    assert two.state(other) is CircuitState.CLOSED
    await until(lambda: two.state(one) is CircuitState.CLOSED, what="the first hears of it", timeout=2)
    assert [await two.ask(gateway) for gateway in two.gateways] == ["ok", "ok"]
    assert await two.told(BreakerChanged) == [("closed", "open"), ("open", "closed")]
    assert "unhealthy" in {health for _, health in await two.told(EndpointHealthChanged)}
