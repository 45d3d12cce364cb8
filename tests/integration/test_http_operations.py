from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import msgspec
import pytest
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from websockets.asyncio.client import connect

from domain.errors import CODES
from gateway.wire.sessions import WireSettings
from tests.unit.wire.fake_service import INSTALLATION_KEY, KEY, OPERATOR_KEY, FakeService
from tests.unit.wire.harness import QUICK, SUBPROTOCOL, Client, Gateway
from tests.unit.wire.raw_peer import RawPeer


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(FakeService(), QUICK).running() as running:
        yield running


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False) as client:
        yield client


async def test_models_come_in_openais_list_shape_to_whoever_has_a_key(http: httpx.AsyncClient) -> None:
    key = {"authorization": f"Bearer {KEY}"}
    listed = (await http.get("/v1/models", headers=key)).json()
    assert listed["object"] == "list"
    assert {k: listed["data"][0][k] for k in ("id", "object", "created", "owned_by")} == {
        "id": "tiny",
        "object": "model",
        "created": 1,
        "owned_by": "fake",
    }
    assert (await http.get("/v1/models/small", headers=key)).json()["id"] == "tiny"
    missing = await http.get("/v1/models/a/b", headers=key)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
    assert (await http.get("/v1/models")).status_code == 401


async def test_liveness_and_readiness_say_what_they_know(gateway: Gateway, http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "checks": {"log": "ok"}})
    gateway.service.ready = False
    assert (await http.get("/readyz")).status_code == 503
    gateway.service.ready = True
    gateway.service.draining = True
    draining = await http.get("/readyz")
    assert (draining.status_code, draining.json()["status"]) == (503, "draining")
    assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "via"])
async def test_metrics_are_open_over_loopback_but_not_through_a_proxy_on_it(
    gateway: Gateway, http: httpx.AsyncClient, header: str
) -> None:
    Counter("things_done", "Things.", registry=gateway.metrics).inc(3)
    plain = await http.get("/metrics")
    assert "things_done_total 3.0" in plain.text
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert (await http.get("/metrics", headers={header: "127.0.0.1"})).status_code == 401
    keyed = {header: "1.2.3.4", "authorization": f"Bearer {OPERATOR_KEY}"}
    assert (await http.get("/metrics", headers=keyed)).status_code == 200
    weak = {header: "1.2.3.4", "authorization": f"Bearer {INSTALLATION_KEY}"}
    assert (await http.get("/metrics", headers=weak)).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/embeddings", 405, "invalid_request"),
        ("POST", "/v1/models", 405, "invalid_request"),
        ("GET", "/v1/agent", 426, "invalid_request"),
        ("GET", "/v1/models/", 404, "model_not_found"),
    ],
)
async def test_a_wrong_route_or_method_has_the_same_error_shape(
    http: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await http.request(method, path, headers={"authorization": f"Bearer {KEY}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()["error"]) == {"message", "type", "code", "param", "details"}
    assert "traceparent" in answer.headers
    if status == 405:
        assert answer.headers["allow"]


async def test_an_upgrade_elsewhere_or_malformed_is_refused_in_the_same_shape(gateway: Gateway) -> None:
    for line, status in ((b"GET /v2/agent", b" 404 "), (b"GET /v1/agent", b" 400 ")):
        peer = await RawPeer.connect(gateway.port)
        key = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" if b"404" in status else b""
        await peer.write(
            line
            + b" HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            + key
            + b"\r\n"
        )
        assert status in await peer.status_line()
        await peer.ended()
        assert b'{"error":{"message":' in peer._read
        await peer.close()


async def test_a_client_that_does_not_read_its_answer_is_dropped(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http.protocol.READ_SECONDS", 0.2)
    gateway.service.dimensions = 2000
    peer = await RawPeer.connect(gateway.port, receive_buffer=4096)
    body = json.dumps({"input": ["a"] * 2000}).encode()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    await peer.write(head.encode() + body)
    async with asyncio.timeout(5):
        while not gateway.server.server_state.tasks:
            await asyncio.sleep(0)
        while gateway.server.server_state.connections or gateway.server.server_state.tasks:
            await asyncio.sleep(0)
    await peer.close()


async def test_what_is_not_http_is_answered_with_a_400_in_json(gateway: Gateway) -> None:
    peer = await RawPeer.connect(gateway.port)
    await peer.write(b"\x16\x03\x01 not http\r\n\r\n")
    assert b" 400 " in await peer.status_line()
    await peer.ended()
    assert b'"code":"invalid_request"' in peer._read
    await peer.close()


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for value in node.values() for r in references(value)]
    return [r for item in node for r in references(item)] if isinstance(node, list) else []


async def test_the_openapi_document_covers_every_route_and_is_sound(gateway: Gateway, http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1.")
    routes = {r.path.replace(":path}", "}") for r in gateway.app.routes if isinstance(r, Route)}
    assert set(document["paths"]) == routes
    for reference in references(document):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    operations = [(path, operation) for path, item in document["paths"].items() for operation in item.values()]
    names = [operation["operationId"] for _, operation in operations]
    assert len(names) == len(set(names))
    for path, operation in operations:
        assert operation["responses"]
        assert all(answer["description"] for answer in operation["responses"].values())
        declared = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        assert all(p["required"] for p in operation.get("parameters", ()) if p["in"] == "path")
    errors = document["components"]["schemas"]["ErrorInfo"]["properties"]["code"]["enum"]
    assert errors == sorted(CODES)
    statuses = set(document["paths"]["/v1/embeddings"]["post"]["responses"])
    assert {str(status) for status, _ in CODES.values()} <= statuses


async def test_every_header_that_an_answer_has_is_documented(gateway: Gateway, http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    operation = document["paths"]["/v1/embeddings"]["post"]
    common = {"date", "content-type", "content-length", "transfer-encoding", "connection"}
    good = await http.post("/v1/embeddings", json={"input": "a"}, headers={"authorization": f"Bearer {KEY}"})
    assert set(good.headers) - common <= set(operation["responses"]["200"]["headers"])
    bad = await http.post("/v1/embeddings", json={"input": "a"})
    assert set(bad.headers) - common <= set(operation["responses"]["401"]["headers"])


async def test_only_trusted_proxies_are_believed() -> None:
    seen: list[Any] = []

    async def whoami(request: Request) -> PlainTextResponse:
        seen.append((request.client.host if request.client else None, request.url.scheme))
        return PlainTextResponse("")

    forwarded = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
    for trusted in ([], ["127.0.0.1"], ["10.0.0.0/8"]):
        gateway = Gateway(FakeService(), QUICK, trusted_proxies=trusted)
        gateway.app.router.routes.append(Route("/whoami", whoami))
        async with gateway.running(), httpx.AsyncClient(trust_env=False) as http:
            await http.get(f"http://127.0.0.1:{gateway.port}/whoami", headers=forwarded)
    assert seen == [("127.0.0.1", "http"), ("203.0.113.9", "https"), ("127.0.0.1", "http")]


async def test_sessions_and_http_work_over_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run(
        [*make, "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(cafile=str(cert))
    async with Gateway(FakeService(), WireSettings(), tls_cert=cert, tls_key=key).running() as gateway:
        async with httpx.AsyncClient(verify=context, trust_env=False) as http:
            assert (await http.get(f"https://localhost:{gateway.port}/healthz")).status_code == 200
        async with connect(
            f"wss://localhost:{gateway.port}/v1/agent",
            ssl=context,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]  # a NewType of str
            additional_headers={"authorization": f"Bearer {KEY}"},
            compression=None,
            max_size=None,
            proxy=None,
        ) as connection:
            client = Client(connection)
            await client.open()
            answer = await client.embed("r1", ["x"] * 2000, dimensions=512)
            assert len(answer["vectors"]) == 2000 * 512 * 4


def test_an_error_body_is_plain_json_of_one_shape() -> None:
    from gateway.http.answers import error_answer
    from gateway.wire.checks import internal

    status, headers, body = error_answer(internal())
    assert (status, json.loads(body)["error"]["code"]) == (500, "internal")
    assert dict(headers)[b"content-length"] == str(len(body)).encode()
    assert msgspec.json.decode(body)["error"]["details"] is None
