"""Who may not get in, on every way in: failed attempts are limited by address, and a key of one agent speaks for no other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2 as httpx
import pytest
from websockets.exceptions import InvalidStatus

from domain.errors import GatewayError
from gateway.limits.logins import FailedLogins
from gateway.limits.standing import Standing
from tests.unit.wire.fake_service import BOUND_KEY, KEY, FakeService
from tests.unit.wire.harness import QUICK, Gateway

EMBEDDINGS = {"input": "text"}


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(FakeService(), QUICK).running() as running:
        yield running


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False) as client:
        yield client


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", **more}


async def upgrade_status(gateway: Gateway, key: str) -> int:
    with pytest.raises(InvalidStatus) as refused:
        async with gateway.client(key):
            pass
    return refused.value.response.status_code


async def test_every_way_in_counts_for_the_same_address_and_a_valid_key_always_passes(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    gateway.service.failed_logins = FailedLogins(5)
    assert (await http.get("/v1/models")).status_code == 401
    assert (await http.get("/v1/models", headers=bearer("wrong"))).status_code == 401
    assert (await http.post("/v1/embeddings", json=EMBEDDINGS, headers={"authorization": "Basic x"})).status_code == 401
    assert await upgrade_status(gateway, "wrong") == 401
    async with gateway.client(None) as client:
        refused = await client.ask({"type": "session.open", "id": "o", "agent": {"id": "a"}, "token": "wrong"})
        assert refused["code"] == "unauthorized"
        assert await client.closed() == 4401

    for answer in (
        await http.get("/v1/models"),
        await http.get("/api/v1/events", headers=bearer("wrong")),
        await http.post("/v1/embeddings", json=EMBEDDINGS, headers=bearer("wrong")),
        await http.get("/metrics", headers=bearer("wrong", via="1.1 proxy")),
    ):
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "rate_limited"
        assert int(answer.headers["retry-after"]) <= 12
    assert await upgrade_status(gateway, "wrong") == 429
    async with gateway.client(None) as client:
        refused = await client.ask({"type": "session.open", "id": "o", "agent": {"id": "a"}, "token": "wrong"})
        assert refused["code"] == "rate_limited"
        assert 0 < refused["retry_after_ms"] <= 12_000
        assert await client.closed() == 4401

    assert (await http.get("/v1/models", headers=bearer(KEY))).status_code == 200
    assert (await http.post("/v1/embeddings", json=EMBEDDINGS, headers=bearer(KEY))).status_code == 200
    async with gateway.client(None) as client:
        await client.open(token=KEY)
    async with gateway.session() as client:
        assert (await client.embed())["type"] == "embedding.result"


async def test_the_address_is_the_client_that_a_trusted_proxy_speaks_for_and_nobody_else_is_believed() -> None:
    for trusted, expected in (("127.0.0.1", [401, 401, 429]), (None, [401, 429, 429])):
        service = FakeService()
        service.failed_logins = FailedLogins(1)
        options = {"trusted_proxies": [trusted]} if trusted else {}
        async with (
            Gateway(service, QUICK, **options).running() as gateway,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False) as http,
        ):
            told = [
                (await http.get("/v1/models", headers={"x-forwarded-for": client})).status_code
                for client in ("192.0.2.1", "192.0.2.2", "192.0.2.2")
            ]
        assert told == expected


async def test_a_key_of_one_agent_opens_no_session_of_another(gateway: Gateway) -> None:
    async with gateway.client(BOUND_KEY) as client:
        refused = await client.ask({"type": "session.open", "id": "o", "agent": {"id": "other"}})
        assert (refused["type"], refused["code"], refused["id"]) == ("error", "forbidden", "o")
        assert refused["details"]["field"] == "agent.id"
        assert (await client.open("scout"))["agent"] == "scout"
        assert (await client.embed())["type"] == "embedding.result"
    async with gateway.client(None) as client:
        refused = await client.ask(
            {"type": "session.open", "id": "o", "agent": {"id": "other"}, "token": BOUND_KEY, "preferences": {}}
        )
        assert refused["code"] == "forbidden"
    assert gateway.service.registered == []


async def test_a_key_of_one_agent_embeds_in_its_name_over_http_and_in_no_other(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    other = bearer(BOUND_KEY, **{"x-emberlog-agent": "other"})
    refused = await http.post("/v1/embeddings", json=EMBEDDINGS, headers=other)
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "forbidden"
    assert refused.json()["error"]["param"] == "x-emberlog-agent"
    assert gateway.service.tickets == []
    for headers in (bearer(BOUND_KEY), bearer(BOUND_KEY, **{"x-emberlog-agent": "scout"})):
        assert (await http.post("/v1/embeddings", json=EMBEDDINGS, headers=headers)).status_code == 200
    assert [ticket.agent for ticket in gateway.service.tickets] == ["scout", "scout"]


async def test_an_http_answer_says_how_the_rate_limits_stand_where_there_are_some(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    answer = await http.post("/v1/embeddings", json=EMBEDDINGS, headers=bearer(KEY))
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]

    gateway.service.rates = (Standing("requests", 60, 59, 1_000), Standing("tokens", 1000, 990, 600))
    expected = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "990",
        "x-ratelimit-reset-tokens": "600ms",
    }
    answer = await http.post("/v1/embeddings", json=EMBEDDINGS, headers=bearer(KEY))
    assert answer.status_code == 200
    assert {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit")} == expected

    gateway.service.refusal = GatewayError("rate_limited", "wait", retry_after_ms=1_500)
    answer = await http.post("/v1/embeddings", json=EMBEDDINGS, headers=bearer(KEY))
    assert answer.status_code == 429
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1500")
    assert {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit")} == expected
    async with gateway.session() as client:
        refused = await client.embed()
        assert (refused["code"], refused["retry_after_ms"]) == ("rate_limited", 1_500)
