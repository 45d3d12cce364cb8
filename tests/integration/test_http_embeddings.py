from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import numpy as np
import openai
import pytest

from domain.errors import GatewayError
from gateway.wire.messages import Limits
from tests.unit.wire.fake_service import BILLING_KEY, INSTALLATION_KEY, KEY, FakeService, rows_of
from tests.unit.wire.harness import QUICK, Gateway
from tests.unit.wire.raw_peer import RawPeer

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(FakeService(), QUICK).running() as running:
        yield running


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    base = f"http://127.0.0.1:{gateway.port}"
    async with httpx.AsyncClient(base_url=base, headers={"authorization": f"Bearer {KEY}"}, trust_env=False) as client:
        yield client


async def embed(http: httpx.AsyncClient, body: Any, **headers: str) -> httpx.Response:
    return await http.post("/v1/embeddings", json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
@pytest.mark.parametrize("text", ["one", ["one", "two"], [1, 2, 3], [[1, 2], [3]]])
async def test_the_official_client_gets_the_vectors_of_every_form_of_input(
    gateway: Gateway, encoding_format: Any, text: Any
) -> None:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{gateway.port}/v1", max_retries=0) as client:
        answer = await client.embeddings.create(
            model="tiny", input=text, encoding_format=encoding_format, dimensions=8, user="u1"
        )
    many = text if isinstance(text, list) and not isinstance(text[0], int) else [text]
    received: list[Any] = [d.embedding for d in answer.data]
    vectors = [
        np.frombuffer(base64.b64decode(v), "<f4") if isinstance(v, str) else np.array(v, np.float32) for v in received
    ]
    assert (np.stack(vectors) == rows_of(many, 8)).all()
    assert [d.index for d in answer.data] == list(range(len(many)))
    assert (answer.object, answer.model, answer.usage.prompt_tokens) == ("list", "tiny", 3 * len(many))
    assert gateway.service.tickets[0].message.metadata == {"user": "u1"}


async def test_a_long_answer_comes_in_parts_and_whole(gateway: Gateway, http: httpx.AsyncClient) -> None:
    texts = [f"text {i}" for i in range(200)]
    answer = await embed(http, {"input": texts, "model": "tiny", "encoding_format": "base64"})
    assert answer.headers["transfer-encoding"] == "chunked"
    vectors = [np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in answer.json()["data"]]
    assert (np.stack(vectors) == rows_of(texts, 4)).all()


async def test_request_headers_reach_the_service_and_answer_headers_the_client(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    answer = await embed(
        http,
        {"input": "one", "model": "tiny"},
        idempotency_key="my-id",
        x_emberlog_agent="worker",
        x_emberlog_thread="t1",
        x_emberlog_failover="any",
        x_emberlog_deadline_ms="1500",
        traceparent=f"00-{TRACE}-b7ad6b7169203331-01",
    )
    message = gateway.service.tickets[0].message
    assert (message.id, message.thread, message.failover, message.deadline_ms) == ("my-id", "t1", "any", 1500)
    assert answer.headers["x-emberlog-space"] == "tiny@1/4/unit"
    assert answer.headers["x-emberlog-provider"] == "fake"
    assert answer.headers["x-emberlog-endpoint"] == "fake-main"
    assert answer.headers["x-emberlog-event"] == "0190"
    assert answer.headers["x-emberlog-replayed"] == "false"
    assert answer.headers["x-emberlog-nano-usd"] == "60"
    assert {"x-emberlog-failover", "x-emberlog-notices"}.isdisjoint(answer.headers)
    assert answer.headers["traceparent"].split("-")[1] == TRACE
    gateway.service.notices = ["model 'tiny' is deprecated"]
    other = await embed(http, {"input": "one", "model": "tiny"})
    assert other.headers["x-emberlog-notices"] == "[\"model 'tiny' is deprecated\"]"
    assert gateway.service.tickets[1].message.id.startswith("http-")
    assert other.headers["traceparent"].split("-")[1] != TRACE


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_message", "body"),
        (b"{", "invalid_message", "body"),
        (b"[1]", "invalid_message", None),
        (b'{"model": "tiny"}', "invalid_message", "input"),
        (b'{"input": 3}', "invalid_message", "input"),
        (b'{"input": null}', "invalid_message", "input"),
        (b'{"input": ["a", 3]}', "invalid_message", "input"),
        (b'{"input": [1, "a"]}', "invalid_message", "input"),
        (b'{"input": [[1], "a"]}', "invalid_message", "input"),
        (b'{"input": [-1]}', "invalid_request", "input"),
        (b'{"input": [1.5]}', "invalid_message", "input"),
        (b'{"input": []}', "invalid_request", "input"),
        (b'{"input": ["a", ""]}', "invalid_request", "input"),
        (b'{"input": "a\\u0000"}', "invalid_message", "input"),
        (b'{"input": "\\ud800"}', "invalid_message", "body"),
        (b'{"input": "\xff"}', "invalid_message", "body"),
        (b'{"input": "a", "encoding_format": "int8"}', "invalid_request", "encoding_format"),
        (b'{"input": "a", "dimensions": "8"}', "invalid_message", "dimensions"),
        (b'{"input": "a", "dimensions": 99999999999999999999}', "invalid_message", "dimensions"),
        (b'{"input": "a", "model": ""}', "invalid_request", "model"),
        (b'{"input": "a", "x": ' + b"[" * 100_000, "invalid_message", "body"),
        (b'{"input": ' + b"[" * 100_000, "invalid_message", "body"),
    ],
)
async def test_a_bad_body_is_a_400_that_names_the_field(
    http: httpx.AsyncClient, body: bytes, code: str, param: str | None
) -> None:
    answer = await http.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert error["param"] == param or param is None
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"idempotency-key": "x" * 65}, "idempotency-key"),
        ({"x-emberlog-agent": "x" * 129}, "x-emberlog-agent"),
        ({"x-emberlog-failover": "maybe"}, "x-emberlog-failover"),
        ({"x-emberlog-deadline-ms": "soon"}, "x-emberlog-deadline-ms"),
        ({"x-emberlog-deadline-ms": "0"}, "deadline_ms"),
        ({"content-type": "text/plain"}, "content-type"),
    ],
)
async def test_a_bad_header_is_a_400_that_names_it(
    http: httpx.AsyncClient, headers: dict[str, str], param: str
) -> None:
    answer = await http.post(
        "/v1/embeddings", content=b'{"input": "a"}', headers={"content-type": "application/json", **headers}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_body_over_the_limit_is_a_413_declared_or_not(gateway: Gateway, http: httpx.AsyncClient) -> None:
    gateway.service.limits = Limits(max_message_bytes=1000)
    declared = await embed(http, {"input": "x" * 2000})
    assert (declared.status_code, declared.json()["error"]["code"]) == (413, "invalid_request")

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    streamed = await http.post("/v1/embeddings", content=parts(), headers={"content-type": "application/json"})
    assert streamed.status_code == 413


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"authorization": ""}, 401, "unauthorized"),
        ({"authorization": "Bearer em_wrong"}, 401, "unauthorized"),
        ({"authorization": "Basic abc"}, 401, "unauthorized"),
        ({"authorization": f"Bearer {BILLING_KEY}"}, 403, "forbidden"),
        ({"authorization": f"Bearer {INSTALLATION_KEY}"}, 403, "forbidden"),
    ],
)
async def test_bad_and_insufficient_credentials_are_refused(
    http: httpx.AsyncClient, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await embed(http, {"input": "a"}, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_the_key_may_come_as_x_api_key(gateway: Gateway) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"http://127.0.0.1:{gateway.port}/v1/embeddings", json={"input": "a"}, headers={"X-API-Key": KEY}
        )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "retry_after", "kind"),
    [
        (GatewayError("rate_limited", "slow down", retry_after_ms=1500), 429, "2", "rate_limit_error"),
        (GatewayError("quota_exceeded", "no more", details={"window": "day"}), 402, None, "insufficient_quota"),
        (GatewayError("id_reused", "another body"), 409, None, "invalid_request_error"),
        (GatewayError("provider_unavailable", "all failed", details={"attempts": []}), 502, None, "server_error"),
        (GatewayError("deadline_exceeded", "too late"), 504, None, "server_error"),
    ],
)
async def test_refusals_have_the_status_of_their_code_and_say_whether_to_retry(
    gateway: Gateway, http: httpx.AsyncClient, error: GatewayError, status: int, retry_after: str | None, kind: str
) -> None:
    gateway.service.fail = error
    answer = await embed(http, {"input": "a"})
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, retry_after)
    assert answer.json()["error"] == {
        "message": error.message,
        "type": kind,
        "code": error.code,
        "param": None,
        "details": error.details or None,
    }
    assert answer.headers["x-should-retry"] == ("true" if error.retryable else "false")


async def test_an_error_of_ours_is_a_500_with_its_trace_and_without_its_text(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    gateway.service.fail = RuntimeError("secret detail")
    answer = await embed(http, {"input": "a"}, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    assert answer.status_code == 500
    assert answer.json()["error"]["details"] == {"trace": TRACE}
    assert "secret" not in answer.text


async def test_an_error_after_the_request_was_taken_is_answered(gateway: Gateway, http: httpx.AsyncClient) -> None:
    gateway.service.hold = True
    asking = asyncio.create_task(embed(http, {"input": "a"}))
    await gateway.service.arrived.wait()
    gateway.service.tickets[0].reply.error(GatewayError("provider_error", "refused"))
    assert (await asking).status_code == 502


@pytest.mark.parametrize("key", ["", "Idempotency-Key: mine\r\n"])
async def test_a_client_that_disconnects_gives_its_request_up_unless_it_can_ask_again(
    gateway: Gateway, http: httpx.AsyncClient, key: str
) -> None:
    gateway.service.hold = True
    peer = await RawPeer.connect(gateway.port)
    body = json.dumps({"input": "a"}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{key}Content-Length: {len(body)}\r\n\r\n"
    await peer.write(head.encode() + body)
    await gateway.service.arrived.wait()
    ticket = gateway.service.tickets[0]
    peer.reset()
    async with asyncio.timeout(2):
        await (ticket.vanished if key else ticket.cancelled).wait()
    assert ticket.cancelled.is_set() != ticket.vanished.is_set()
    gateway.service.hold = False
    assert (await embed(http, {"input": "a"})).status_code == 200


async def test_a_draining_server_refuses_with_503_and_closes_the_connection(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    gateway.service.draining = True
    answer = await embed(http, {"input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["connection"]) == (
        503,
        "draining",
        "close",
    )


async def test_a_compressed_body_is_not_mistaken_for_json(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/embeddings",
        content=gzip.compress(b'{"input": "a"}'),
        headers={"content-type": "application/json", "content-encoding": "gzip"},
    )
    assert answer.status_code == 400
