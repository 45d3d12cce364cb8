"""What operators can follow: one line per error, one trace in the answer, the line and the spans, and never a text or a key."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.peer import Peer, session
from tests.acceptance.provider import DIMENSIONS, MODEL, Simulator
from tests.acceptance.site import Site
from tests.support.waiting import until

PARENT = "b7ad6b7169203331"


def _traceparent(trace: str) -> str:
    return f"00-{trace}-{PARENT}-01"


async def _lines(log: Path, trace: str) -> list[dict[str, Any]]:
    """The log's lines that name this trace, once there is one; every line of the log must be JSON."""

    async def found() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("trace") == trace]

    return await until(found, what="the error has its line in the log")


async def test_an_error_on_a_session_is_one_line_with_the_trace_that_its_sender_is_told(
    shared: Running, provider: Simulator
) -> None:
    trace = "11111111111111111111111111111111"
    connection = await connect(
        f"ws{shared.url.removeprefix('http')}/v1/agent",
        subprotocols=[Subprotocol("emberlog.v1.msgpack")],
        additional_headers={"Authorization": f"Bearer {shared.key}", "traceparent": _traceparent(trace)},
        compression=None, proxy=None,
    )  # fmt: skip
    peer = Peer(connection)
    await peer.send({"type": "session.open", "id": "open", "agent": {"id": "traced"}})
    refused = await peer.embed("traced", "a text nobody may read", dimensions=7777)
    assert refused["details"]["trace"] == trace
    [line] = await _lines(shared.site.log, trace)
    assert (line["code"], line["tenant"], line["source"]) == ("invalid_request", "default", "websocket")
    assert "nobody may read" not in json.dumps(line)
    provider.fault("status", status=400, marker="refused later", count=-1)
    assert (await peer.embed("traced-later", "refused later"))["details"]["trace"] == trace
    assert [line["code"] for line in await _lines(shared.site.log, trace)] == ["invalid_request", "provider_error"]
    await peer.leave()


async def test_without_a_trace_of_its_own_a_session_is_given_one_for_each_error(
    shared: Running, provider: Simulator
) -> None:
    async with session(shared.url, shared.key) as peer:
        refused = await peer.embed("untraced", "a text", dimensions=7777)
    [line] = await _lines(shared.site.log, refused["details"]["trace"])
    assert line["code"] == "invalid_request"


async def test_an_error_over_http_is_one_line_with_the_trace_of_its_answer(
    shared: Running, provider: Simulator
) -> None:
    trace = "22222222222222222222222222222222"
    url = f"{shared.url}/v1/embeddings"
    given = {"traceparent": _traceparent(trace)}
    refused = await request(url, {"input": "a text nobody may read", "model": "none"}, key=shared.key, headers=given)
    assert refused.headers["traceparent"].split("-")[1] == trace
    assert refused.headers["traceparent"].split("-")[2] != PARENT
    [line] = await _lines(shared.site.log, trace)
    assert (line["code"], line["tenant"], line["source"]) == ("model_not_found", "default", "http")
    assert "nobody may read" not in json.dumps(line)
    unasked = await request(url, {"input": "", "model": MODEL}, key=shared.key)
    assert [line["code"] for line in await _lines(shared.site.log, unasked.headers["traceparent"].split("-")[1])] == [
        "invalid_request"
    ]
    secret = "em_0123456789abcdef_nosuchkeynosuchkeynosuchkeynosuchkeynosuchke"
    trace = "33333333333333333333333333333333"
    for path in ("/v1/embeddings", "/v1/models"):
        body = {"input": "a", "model": MODEL} if path == "/v1/embeddings" else None
        foreign = await request(f"{shared.url}{path}", body, key=secret, headers={"traceparent": _traceparent(trace)})
        assert foreign.status == 401
    assert [line["code"] for line in await _lines(shared.site.log, trace)] == ["unauthorized"] * 2
    assert secret.split("_", 2)[2] not in shared.site.log.read_text()


class Receiver:
    """A server that takes spans as OpenTelemetry collectors do."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sent = ExportTraceServiceRequest.FromString(body)
                for resource in sent.resource_spans:
                    for name in resource.resource.attributes:
                        if name.key == "service.name":
                            receiver.services.add(name.value.string_value)
                    for scope in resource.scope_spans:
                        receiver.spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.close()


def _attributes(span: Span) -> dict[str, Any]:
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


async def test_spans_reach_the_configured_exporter_and_the_most_talkative_log_holds_no_text_and_no_key(
    migrated: Site, provider: Simulator, receiver: Receiver
) -> None:
    await migrated.ask("tenants", "create", "acme")
    key = await migrated.create_key("acme")
    gateway = migrated.gateway(
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_COMPRESSION="none", EMBERLOG_LOG_LEVEL="debug"
    )
    await gateway.start()
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    try:
        body = {"input": "zanzibar-quartz", "model": MODEL, "dimensions": DIMENSIONS, "user": "user-quartz"}
        given = {"traceparent": _traceparent(trace)}
        assert (await request(f"{gateway.url}/v1/embeddings", body, key=key.token, headers=given)).status == 200
        provider.fault("status", status=400, marker="refused-quartz", count=-1)
        async with session(gateway.url, key.token) as peer:
            await peer.embed("spoken", "session-quartz")
            await peer.embed("refused", "refused-quartz")
            await peer.send(b"\xc1 broken-quartz")
    finally:
        assert await gateway.stop() == 0
    assert receiver.services == {"emberlog"}
    served = [s for s in receiver.spans if s.kind == Span.SPAN_KIND_SERVER]
    assert len(served) == 3
    [first] = [s for s in served if s.trace_id.hex() == trace]
    assert first.name == f"embeddings {MODEL}"
    assert first.parent_span_id.hex() == PARENT, "the span hangs below one that nobody sent"
    attributes = _attributes(first)
    assert attributes["gen_ai.operation.name"] == "embeddings"
    assert attributes["gen_ai.request.model"] == MODEL
    assert attributes["gen_ai.provider.name"] == "openai"
    assert attributes["gen_ai.usage.input_tokens"] > 0
    [call] = [s for s in receiver.spans if s.parent_span_id == first.span_id]
    assert call.kind == Span.SPAN_KIND_CLIENT
    [failed] = [s for s in served if _attributes(s).get("error.type")]
    assert _attributes(failed)["error.type"] == "provider_error"

    log = migrated.log.read_text()
    for secret in ("quartz", key.token.split("_", 2)[2], "Bearer", "simulated"):
        assert secret not in log, f"{secret} stands in the log"
        assert secret not in str(receiver.spans)
