"""The shapes that a client may rely on: every field of an opened session and of an answer, and which model answers whom."""

from __future__ import annotations

import re
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.peer import Peer, session
from tests.acceptance.provider import DIMENSIONS, MODEL, Simulator

LOCAL = "all-MiniLM-L6-v2"
EVENT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
RESULT_FIELDS = {
    "type", "id", "event", "model", "provider", "endpoint", "space", "dimensions", "encoding", "count", "vectors", "usage",
    "cost", "failover", "timings", "replayed",
}  # fmt: skip


async def test_an_opened_session_names_itself_the_server_and_every_limit(shared: Running) -> None:
    connection = await connect(
        f"ws{shared.url.removeprefix('http')}/v1/agent",
        subprotocols=[Subprotocol("emberlog.v1.msgpack")],
        additional_headers={"X-API-Key": shared.key},
        compression=None, proxy=None,
    )  # fmt: skip
    peer = Peer(connection)
    await peer.send({"type": "session.open", "id": "o", "agent": {"id": "a", "name": "An agent", "version": "1"}})
    opened = await peer.take(lambda m: m["type"] == "session.opened")
    await peer.leave()
    assert set(opened) == {"type", "id", "session", "tenant", "agent", "server", "limits"}
    assert (opened["id"], opened["tenant"], opened["agent"]) == ("o", "default", "a")
    assert opened["session"]
    assert set(opened["server"]) == {"name", "version"}
    assert opened["limits"] == {
        "max_message_bytes": 16 * 1024 * 1024,
        "max_inputs": 10_000,
        "max_input_chars": 200_000,
        "max_in_flight": 256,
        "max_in_flight_inputs": 20_000,
        "idempotency_seconds": 86_400,
    }


async def test_a_result_has_every_field_of_the_contract_and_no_other(shared: Running, provider: Simulator) -> None:
    async with session(shared.url, shared.key) as peer:
        result = await peer.embed("shape", ["one", "two"])
        assert set(result) == RESULT_FIELDS
        assert EVENT.fullmatch(result["event"])
        assert (result["model"], result["provider"], result["endpoint"]) == (MODEL, "openai", "sim")
        assert result["space"] == f"{MODEL}@1/{DIMENSIONS}/unit"
        assert (result["dimensions"], result["encoding"], result["count"]) == (DIMENSIONS, "float32", 2)
        assert len(result["vectors"]) == 2 * DIMENSIONS * 4
        assert result["usage"] == {
            "tokens": 2,
            "billed_tokens": 2,
            "cached_inputs": 0,
            "truncated": [],
            "estimated": False,
        }
        assert set(result["cost"]) == {"nano_usd", "price"}
        assert (result["cost"]["nano_usd"], result["failover"], result["replayed"]) == (40, None, False)
        assert set(result["timings"]) == {"queue_ms", "provider_ms", "total_ms"}
        assert 0 < result["timings"]["provider_ms"] <= result["timings"]["total_ms"]

        narrow = await peer.embed("shape-int8", "one", encoding="int8")
        assert set(narrow) == RESULT_FIELDS | {"scales"}
        assert (len(narrow["vectors"]), len(narrow["scales"])) == (DIMENSIONS, 4)
        again = await peer.embed("shape", ["one", "two"])
        same = RESULT_FIELDS - {"timings", "replayed"}
        assert again["replayed"] is True
        assert {k: again[k] for k in same} == {k: result[k] for k in same}


async def test_a_stream_ends_with_a_result_that_has_no_vectors(shared: Running, provider: Simulator) -> None:
    async with session(shared.url, shared.key) as peer:
        await peer.begin("shape-stream", ["three", "four"], stream=True, encoding="int8")
        rows = 0
        while rows < 2:
            chunk = await peer.take(lambda m: m["type"] == "embedding.chunk")
            assert set(chunk) == {"type", "id", "offset", "count", "vectors", "scales"}
            assert (chunk["id"], chunk["offset"]) == ("shape-stream", rows)
            rows += chunk["count"]
        assert set(await peer.answer("shape-stream")) == RESULT_FIELDS - {"vectors"}


@pytest.mark.parametrize(("input_type", "ending"), [("query", ""), ("document", ""), ("classification", "/classification"), ("clustering", "/clustering")])  # fmt: skip
async def test_only_classification_and_clustering_have_spaces_of_their_own(
    shared: Running, provider: Simulator, input_type: str, ending: str
) -> None:
    async with session(shared.url, shared.key) as peer:
        result = await peer.embed(f"space-{input_type}", "a text", input_type=input_type)
    assert result["space"] == f"{MODEL}@1/{DIMENSIONS}/unit{ending}"


@pytest.mark.parametrize("failover", ["same_space", "any", "none"])
async def test_each_way_to_fail_over_is_taken_and_another_is_refused(
    shared: Running, provider: Simulator, failover: str
) -> None:
    async with session(shared.url, shared.key) as peer:
        assert (await peer.embed(f"failover-{failover}", "a text", failover=failover))["failover"] is None
        refused = await peer.embed("failover-else", "a text", failover="elsewhere")
    assert (refused["code"], refused["details"]["field"]) == ("invalid_request", "failover")


async def test_an_error_has_its_code_a_message_and_whether_to_retry(shared: Running, provider: Simulator) -> None:
    async with session(shared.url, shared.key) as peer:
        refused = await peer.embed("error-shape", "a text", dimensions=7777)
    assert set(refused) == {"type", "id", "code", "message", "retryable", "details"}
    assert (refused["retryable"], refused["details"]["field"]) == (False, "dimensions")


async def test_a_provider_that_refuses_is_listed_among_the_attempts(shared: Running, provider: Simulator) -> None:
    provider.fault("status", status=400, marker="attempts-listed", count=-1)
    async with session(shared.url, shared.key) as peer:
        refused = await peer.embed("attempts-listed", "attempts-listed")
    assert refused["code"] == "provider_error"
    [attempt] = refused["details"]["attempts"]
    assert set(attempt) <= {"endpoint", "reason", "status", "ms"}
    assert (attempt["endpoint"], attempt["status"]) == ("sim", 400)
    assert isinstance(attempt["ms"], int | float)


async def test_the_task_then_the_ranked_models_then_the_strategy_choose_and_an_estimate_says_why(
    shared: Running, provider: Simulator
) -> None:
    ranked = {
        "strategy": "quality",
        "models": ["no-such-model", "text-embedding-ada-002", LOCAL],
        "task_models": {"code": MODEL},
    }

    async def chosen(peer: Peer, name: str, **fields: Any) -> dict[str, Any]:
        return await peer.embed(name, "which model?", model=None, dimensions=None, dry_run=True, **fields)

    async with session(shared.url, shared.key, "chooses") as peer:
        await peer.send({"type": "agent.register", "id": "r1", "preferences": ranked})
        assert (await peer.take(lambda m: m.get("id") == "r1"))["version"] == 1
        by_rank = await chosen(peer, "by-rank")
        assert by_rank["model"] == LOCAL
        assert [r["model"] for r in by_rank["reasons"]] == ["no-such-model", "text-embedding-ada-002", LOCAL]
        assert all(set(r) == {"model", "reason"} and r["reason"] for r in by_rank["reasons"])
        assert (await chosen(peer, "by-task", task="code"))["model"] == MODEL
        assert (await chosen(peer, "by-another-task", task="prose"))["model"] == LOCAL
        named = await peer.embed("by-name", "which model?", model=MODEL, dimensions=None, task="prose", dry_run=True)
        assert named["model"] == MODEL

        for number, (strategy, model) in enumerate((("quality", MODEL), ("cost", LOCAL)), start=2):
            await peer.send({"type": "agent.register", "id": f"r{number}", "preferences": {"strategy": strategy}})
            assert (await peer.take(lambda m: m.get("id") == f"r{number}"))["version"] == number  # noqa: B023 (awaited at once)
            assert (await chosen(peer, f"by-{strategy}"))["model"] == model
        # The agent's strategy is cost: the request's own wish goes before it.
        assert (await chosen(peer, "by-optimize", optimize="quality"))["model"] == MODEL

        await peer.send({"type": "agent.register", "id": "r4", "preferences": {"strategy": "cost", "required_dimensions": 512}})  # fmt: skip
        await peer.take(lambda m: m.get("id") == "r4")
        needed = await chosen(peer, "by-dimensions")
        assert (needed["model"], needed["dimensions"]) == (MODEL, 512)
        assert needed["reasons"][0]["model"] == LOCAL


async def test_metadata_may_hold_two_kib_of_strings_and_not_a_byte_more(shared: Running, provider: Simulator) -> None:
    async with session(shared.url, shared.key) as peer:
        full = {"first": "x" * 1000, "second": "é" * 518 + "x"}
        assert sum(len(k.encode()) + len(v.encode()) for k, v in full.items()) == 2048
        assert (await peer.embed("metadata-full", "a text", metadata=full))["type"] == "embedding.result"
        over = await peer.embed("metadata-over", "a text", metadata={**full, "second": full["second"] + "x"})
        assert (over["code"], over["details"]["field"]) == ("invalid_request", "metadata")


async def test_an_answer_over_http_says_in_its_headers_what_a_session_says_in_its_result(
    shared: Running, provider: Simulator
) -> None:
    body = {"input": ["over http"], "model": MODEL, "dimensions": DIMENSIONS}
    headers = {"idempotency-key": "http-headers", "x-emberlog-agent": "by-http", "x-emberlog-thread": "thread-7"}
    url = f"{shared.url}/v1/embeddings"
    first = await request(url, body, key=shared.key, headers=headers)
    again = await request(url, body, key=shared.key, headers=headers)
    assert first.json() == again.json()
    assert first.json()["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    shown = {k.removeprefix("x-emberlog-"): v for k, v in first.headers.items() if k.startswith("x-emberlog-")}
    assert EVENT.fullmatch(shown.pop("event"))
    assert shown == {
        "space": f"{MODEL}@1/{DIMENSIONS}/unit", "provider": "openai", "endpoint": "sim", "replayed": "false", "nano-usd": "40",
    }  # fmt: skip
    assert again.headers["x-emberlog-replayed"] == "true"
    assert again.headers["x-emberlog-event"] == first.headers["x-emberlog-event"]
    requested, generated = await shared.site.request_events("http-headers")
    for event in (requested, generated):
        assert (event.data["agent"], event.data["thread"]) == ("by-http", "thread-7")
    unnamed = await request(url, body, key=shared.key, headers={"idempotency-key": "http-unnamed"})
    assert unnamed.status == 200
    [event, _] = await shared.site.request_events("http-unnamed")
    assert event.data["agent"] == shared.key.split("_")[1], "without a header the agent is the key's id"


async def test_readiness_speaks_of_log_migrations_and_projections(shared: Running) -> None:
    ready = await request(f"{shared.url}/readyz")
    assert (ready.status, ready.json()["status"]) == (200, "ready")
    checks = ready.json()["checks"]
    assert (checks["log"], checks["migrations"]) == ("ok", "current")
    assert {"usage", "requests"} <= set(checks["projections"])
    for lag in checks["projections"].values():
        assert set(lag) == {"state", "events", "seconds"}


async def test_the_commands_print_the_shapes_that_scripts_rely_on(shared: Running, provider: Simulator) -> None:
    async with session(shared.url, shared.key, "scripted") as peer:
        answer = await peer.embed("scripted", "a text for the bill")
    usage = await shared.site.ask("usage", "--tenant", "default")
    assert set(usage) == {"usage", "complete_to"}
    [row] = [r for r in usage["usage"] if r["agent"] == "scripted"]
    assert (row["tenant"], row["model"], row["provider"], row["requests"]) == ("default", MODEL, "openai", 1)
    assert (row["billed_tokens"], row["nano_usd"]) == (answer["usage"]["billed_tokens"], answer["cost"]["nano_usd"])
    tail = await shared.site.ask("events", "tail", "--from", "start", "--types", "embedding.generated")
    [event] = [e for e in tail["events"] if e["data"].get("request_id") == "scripted"]
    assert event["stream"] == "request/default/scripted"
    assert usage["complete_to"]["position"] >= event["position"]
    ahead = await shared.site.ask("events", "tail", "--from", tail["cursor"], "--types", "embedding.generated")
    assert ahead["events"] == []


async def test_token_arrays_are_refused_where_an_endpoint_takes_texts_only(
    shared: Running, provider: Simulator
) -> None:
    for tokens in ([101, 102], [[101], [102]]):
        refused = await request(f"{shared.url}/v1/embeddings", {"input": tokens, "model": LOCAL}, key=shared.key)
        assert (refused.status, refused.json()["error"]["code"]) == (400, "invalid_request")
        assert refused.json()["error"]["param"] == "input"
