from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from domain.errors import GatewayError
from gateway.encoding import decode
from gateway.wire.messages import Limits
from gateway.wire.sessions import WireSettings
from tests.unit.wire.fake_service import BILLING_KEY, INSTALLATION_KEY, KEY, OTHER_KEY, FakeService, result_of, rows_of
from tests.unit.wire.harness import QUICK, Client, Gateway

OPEN = {"type": "session.open", "id": "open", "agent": {"id": "a1"}}


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(FakeService(), QUICK).running() as running:
        yield running


def generate(request_id: str = "r1", text: Any = "hello", **fields: Any) -> dict[str, Any]:
    return {"type": "embedding.generate", "id": request_id, "input": text, **fields}


async def test_a_session_opens_and_embeds_over_a_real_socket(gateway: Gateway) -> None:
    async with gateway.client() as client:
        opened = await client.open("worker-7")
        assert opened["agent"] == "worker-7"
        assert opened["tenant"] == "acme"
        assert opened["server"]["name"] == "emberlog"
        assert opened["limits"]["max_message_bytes"] == 16 * 1024 * 1024
        answer = await client.embed("r1", ["one", "two"])
        assert answer["type"] == "embedding.result"
        assert (answer["id"], answer["count"], answer["dimensions"]) == ("r1", 2, 4)
        assert (decode(answer["vectors"], "float32", 4) == rows_of(["one", "two"], 4)).all()


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "ubinary"])
async def test_vectors_come_in_the_encoding_asked_for_streamed_or_not(gateway: Gateway, encoding: str) -> None:
    expected = rows_of(["one", "two", "three"], 9)
    async with gateway.session() as client:
        whole = await client.embed("r1", ["one", "two", "three"], encoding=encoding, dimensions=9)
        vectors = decode(whole["vectors"], encoding, 9, whole.get("scales"))
        assert ("scales" in whole) == (encoding == "int8")
        await client.send(generate("r2", ["one", "two", "three"], encoding=encoding, dimensions=9, stream=True))
        pieces = [await client.receive(), await client.receive()]
        last = await client.receive()
        assert [p["type"] for p in pieces] == ["embedding.chunk"] * 2
        assert last["type"] == "embedding.result"
        assert "vectors" not in last
        streamed = np.concatenate(
            [decode(p["vectors"], encoding, 9, p.get("scales")) for p in sorted(pieces, key=lambda p: p["offset"])]
        )
        assert (streamed == vectors).all()
    if encoding == "float32":
        assert (vectors == expected).all()


async def test_requests_may_be_pipelined_right_behind_session_open(gateway: Gateway) -> None:
    async with gateway.client() as client:
        await client.send(OPEN)
        for i in range(20):
            await client.send(generate(f"r{i}", f"text {i}"))
        assert (await client.receive())["type"] == "session.opened"
        answers = [await client.receive() for _ in range(20)]
        assert {a["id"] for a in answers} == {f"r{i}" for i in range(20)}


async def test_requests_pipelined_behind_preferences_wait_until_those_are_stored(gateway: Gateway) -> None:
    gateway.service.registration_gate.clear()
    async with gateway.client() as client:
        await client.send({**OPEN, "preferences": {"strategy": "cost", "models": ["tiny"]}})
        await client.send(generate("r1"))
        async with gateway.session("em_other") as other:
            await other.embed()
        assert len(gateway.service.tickets) == 1
        gateway.service.registration_gate.set()
        assert (await client.receive())["type"] == "session.opened"
        assert (await client.receive())["type"] == "embedding.result"
        assert gateway.service.registered[0][1].strategy == "cost"


async def test_a_refused_session_open_may_be_sent_again_and_what_followed_it_is_answered_not_fatal(
    gateway: Gateway,
) -> None:
    async with gateway.client() as client:
        await client.send({**OPEN, "preferences": {"strategy": "magic"}})
        await client.send(generate("r1"))
        refused = await client.receive()
        assert (refused["code"], refused["id"], refused["details"]["field"]) == (
            "invalid_request",
            "open",
            "preferences.strategy",
        )
        assert (await client.receive())["id"] == "r1"
        await client.open()
        assert (await client.embed())["type"] == "embedding.result"


async def test_preferences_that_cannot_be_stored_refuse_the_session_open(gateway: Gateway) -> None:
    gateway.service.fail = GatewayError("unavailable", "the log cannot be reached")
    async with gateway.client() as client:
        answer = await client.ask({**OPEN, "preferences": {"strategy": "cost"}})
        assert (answer["type"], answer["code"], answer["retryable"], answer["id"]) == (
            "error",
            "unavailable",
            True,
            "open",
        )
        gateway.service.fail = None
        await client.open()


async def test_an_agent_registers_and_a_bad_strategy_is_refused(gateway: Gateway) -> None:
    async with gateway.session() as client:
        answer = await client.ask({"type": "agent.register", "id": "p", "preferences": {"strategy": "quality"}})
        assert answer == {"type": "agent.registered", "id": "p", "agent": "a1", "version": 1}
        refused = await client.ask({"type": "agent.register", "id": "p", "preferences": {"max_latency_ms": 0}})
        assert (refused["code"], refused["details"]["field"]) == ("invalid_request", "preferences.max_latency_ms")


async def test_a_browser_sends_its_token_inside_session_open_and_is_held_to_64_kib_until_then(gateway: Gateway) -> None:
    async with gateway.client(None) as client:
        await client.open(token=KEY)
        assert (await client.embed("r1", ["x" * 100_000]))["type"] == "embedding.result"
    async with gateway.client(None) as client:
        await client.send(b"x" * (64 * 1024 + 1))
        assert await client.closed() == 1009


@pytest.mark.parametrize("token", ["em_wrong", "", "a.b.c"])
async def test_a_bad_token_in_session_open_closes_with_4401(gateway: Gateway, token: str) -> None:
    async with gateway.client(None) as client:
        answer = await client.ask({**OPEN, "token": token})
        assert answer["code"] == "unauthorized"
        assert await client.closed() == 4401


async def test_no_token_anywhere_closes_with_4401(gateway: Gateway) -> None:
    async with gateway.client(None) as client:
        await client.send(OPEN)
        assert await client.closed() == 4401


@pytest.mark.parametrize("token", [INSTALLATION_KEY, BILLING_KEY])
async def test_a_valid_key_that_may_not_embed_closes_with_4403(gateway: Gateway, token: str) -> None:
    async with gateway.client(None) as client:
        await client.send({**OPEN, "token": token})
        assert await client.closed() == 4403


@pytest.mark.parametrize(("key", "status"), [("em_wrong", 401), (INSTALLATION_KEY, 403), (BILLING_KEY, 403)])
async def test_a_bad_header_credential_is_refused_before_the_upgrade_with_a_json_error(
    gateway: Gateway, key: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with gateway.client(key):
            pass
    assert [r for r in caplog.records if r.name.startswith("uvicorn")] == [], "strangers must not fill the log"
    assert refused.value.response.status_code == status
    assert b'"code":"unauthorized"' in (refused.value.response.body or b"") or status == 403


@pytest.mark.parametrize("offered", [None, ["emberlog.v2.msgpack"], ["graphql-transport-ws", "EMBERLOG.v1.msgpack"]])
async def test_an_upgrade_without_our_subprotocol_is_refused_with_400(gateway: Gateway, offered: Any) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with gateway.client(subprotocols=offered):
            pass
    assert refused.value.response.status_code == 400
    assert b"emberlog.v1.msgpack" in (refused.value.response.body or b"")


async def test_the_subprotocol_is_echoed_exactly_and_nothing_is_compressed(gateway: Gateway) -> None:
    async with gateway.client(subprotocols=["other", "emberlog.v1.msgpack"]) as client:
        assert client.connection.subprotocol == "emberlog.v1.msgpack"
        assert client.connection.response is not None
        assert "Sec-WebSocket-Extensions" not in client.connection.response.headers


async def test_no_session_open_in_time_closes_with_4408() -> None:
    async with Gateway(FakeService(), WireSettings(open_seconds=0.1, sweep_seconds=0.02)).running() as gateway:
        async with gateway.client() as client:
            assert await client.closed() == 4408
        async with gateway.session() as opened:
            await opened.connection.ping()
            assert (await opened.embed())["type"] == "embedding.result"


async def test_a_second_session_open_closes_with_4409(gateway: Gateway) -> None:
    async with gateway.session() as client:
        await client.send(OPEN)
        assert await client.closed() == 4409


@pytest.mark.parametrize(
    "first", [generate(), {"type": "request.cancel", "id": "r"}, {"type": "embedding.generate", "id": 3}]
)
async def test_a_request_before_session_open_closes_with_4401(gateway: Gateway, first: dict[str, Any]) -> None:
    async with gateway.client() as client:
        await client.send(first)
        assert await client.closed() == 4401


async def test_a_revoked_key_closes_its_open_sessions_with_4401_within_a_second_and_no_other() -> None:
    service = FakeService()
    service.hold = True
    async with (
        Gateway(service, WireSettings()).running() as gateway,
        gateway.session() as mine,
        gateway.session(OTHER_KEY) as other,
    ):
        await mine.send(generate())
        await service.arrived.wait()
        service.revoked.add("k1")
        assert await mine.closed(within=1) == 4401
        assert service.tickets[0].vanished.is_set()
        service.hold = False
        assert (await other.embed())["type"] == "embedding.result"


async def test_cancel_answers_with_cancelled_and_an_unknown_id_is_ignored(gateway: Gateway) -> None:
    gateway.service.hold = True
    async with gateway.session() as client:
        await client.send({"type": "request.cancel", "id": "never"})
        await client.send(generate("r1"))
        await client.send({"type": "request.cancel", "id": "r1"})
        answer = await client.receive()
        assert (answer["type"], answer["id"], answer["code"]) == ("error", "r1", "cancelled")
        assert gateway.registry.counts()["in_flight"] == 0


async def test_the_same_id_twice_in_flight_gets_two_answers(gateway: Gateway) -> None:
    gateway.service.hold = True
    async with gateway.session() as client:
        for _ in range(3):
            await client.send(generate("same"))
        await client.send({"type": "agent.register", "id": "mark", "preferences": {}})
        assert (await client.receive())["id"] == "mark"
        for ticket in (gateway.service.tickets[1], gateway.service.tickets[2], gateway.service.tickets[0]):
            ticket.answer()
        assert [(await client.receive())["id"] for _ in range(3)] == ["same"] * 3
        assert gateway.registry.counts()["in_flight"] == 0


async def test_too_many_requests_or_inputs_in_flight_are_refused_and_room_comes_back() -> None:
    service = FakeService()
    service.limits = Limits(max_in_flight=2, max_in_flight_inputs=5)
    service.hold = True
    async with Gateway(service, QUICK).running() as gateway, gateway.session() as client:
        await client.send(generate("r1", ["a", "b", "c"]))
        refused = await client.ask(generate("r2", ["a", "b", "c"]))
        assert (refused["code"], refused["id"], refused["retryable"]) == ("too_many_in_flight", "r2", True)
        assert refused["retry_after_ms"] > 0
        await client.send(generate("r3", "a"))
        assert (await client.ask(generate("r4", "a")))["code"] == "too_many_in_flight"
        for ticket in service.tickets:
            ticket.answer()
        assert {(await client.receive())["id"] for _ in range(2)} == {"r1", "r3"}
        service.hold = False
        assert (await client.embed("r5", "a"))["type"] == "embedding.result"


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"store": {"collection": "c", "ids": [1]}}, "invalid_message", "store.ids"),
        ({"store": {"collection": "c"}}, "invalid_message", "store.ids"),
        ({"store": {"collection": "c", "ids": ["a\0"]}}, "invalid_message", "store.ids"),
        ({"store": {"collection": "c", "ids": ["a"], "metadata": [{"a": [1]}]}}, "invalid_message", "store.metadata"),
        ({"deadline_ms": 0}, "invalid_request", "deadline_ms"),
        ({"metadata": {"a": "x" * 2100}}, "invalid_request", "metadata"),
    ],
)
async def test_what_the_wire_itself_refuses_never_reaches_the_service(
    gateway: Gateway, fields: dict[str, Any], code: str, field: str
) -> None:
    async with gateway.session() as client:
        answer = await client.embed("r1", "a", **fields)
        assert (answer["code"], answer["details"]["field"], answer["id"]) == (code, field, "r1")
        assert not gateway.service.tickets
        assert (await client.embed("r1", "a", store=None))["type"] == "embedding.result"


async def test_an_error_of_ours_is_internal_with_a_trace_id_and_the_session_goes_on(gateway: Gateway) -> None:
    async with gateway.session() as client:
        gateway.service.fail = RuntimeError("a secret detail")
        answer = await client.embed("r1")
        assert (answer["code"], answer["retryable"], answer["id"]) == ("internal", True, "r1")
        assert len(answer["details"]["trace"]) == 32
        assert "secret" not in str(answer)
        gateway.service.fail = None
        assert (await client.embed("r2"))["type"] == "embedding.result"


async def test_an_answer_that_cannot_be_encoded_is_internal_and_does_not_raise_into_whoever_answers(
    gateway: Gateway,
) -> None:
    gateway.service.hold = True
    async with gateway.session() as client:
        await client.send(generate("r1", encoding="int8"))
        await gateway.service.arrived.wait()
        reply = gateway.service.tickets[0].reply
        reply.result(result_of(gateway.service.tickets[0].message, 1, 4), np.zeros(4, np.float32))
        answer = await client.receive()
        assert (answer["code"], answer["id"]) == ("internal", "r1")
        assert gateway.registry.counts()["in_flight"] == 0


async def test_a_refusal_of_the_service_reaches_the_client_with_its_details(gateway: Gateway) -> None:
    async with gateway.session() as client:
        answer = await client.embed("r1", ["a", "", "b"])
        assert (answer["code"], answer["details"]["field"], answer["details"]["index"]) == (
            "invalid_request",
            "input",
            1,
        )


async def test_an_answer_over_one_message_says_to_stream(gateway: Gateway) -> None:
    async with gateway.session() as client:
        gateway.service.limits = Limits()
        answer = await client.embed("r1", ["x"] * 3000, dimensions=1536)
        assert (answer["code"], answer["details"]["field"]) == ("invalid_request", "stream")


async def test_draining_tells_sessions_refuses_new_requests_finishes_old_ones_and_closes_with_1012(
    gateway: Gateway,
) -> None:
    gateway.service.hold = True
    async with gateway.session() as busy, gateway.session() as idle:
        await busy.send(generate("r1"))
        await gateway.service.arrived.wait()
        drained = asyncio.create_task(gateway.registry.drain(5))
        assert (await busy.receive()) == {"type": "server.draining", "reconnect_after_ms": 1000}
        assert (await idle.receive())["type"] == "server.draining"
        assert await idle.closed() == 1012
        refused = await busy.ask(generate("r2"))
        assert (refused["code"], refused["retryable"]) == ("draining", True)
        with pytest.raises(InvalidStatus) as upgrade:
            async with gateway.client():
                pass
        assert upgrade.value.response.status_code == 503
        gateway.service.tickets[0].answer()
        assert (await busy.receive())["type"] == "embedding.result"
        assert await busy.closed() == 1012
        assert await drained is True


async def test_work_that_outlasts_the_drain_is_cut_off(gateway: Gateway) -> None:
    gateway.service.hold = True
    async with gateway.session() as client:
        await client.send(generate("r1"))
        await gateway.service.arrived.wait()
        assert await gateway.registry.drain(0.05) is False
        assert await client.closed() == 1012
        assert gateway.service.tickets[0].vanished.is_set()


async def test_connection_limits_refuse_upgrades_with_429_and_late_tokens_with_4429() -> None:
    limits = WireSettings(max_connections=3, max_connections_per_tenant=1, sweep_seconds=0.02)
    async with Gateway(FakeService(), limits).running() as gateway, gateway.session() as first:
        with pytest.raises(InvalidStatus) as full:
            async with gateway.client():
                pass
        assert full.value.response.status_code == 429
        async with gateway.client(None) as late:
            await late.send({**OPEN, "token": KEY})
            assert await late.closed() == 4429
        async with gateway.session(OTHER_KEY) as other:
            assert (await other.embed())["type"] == "embedding.result"
        assert (await first.embed())["type"] == "embedding.result"


async def test_a_clients_ping_is_answered_and_its_clean_close_is_echoed(gateway: Gateway) -> None:
    async with gateway.session() as client:
        async with asyncio.timeout(2):
            await (await client.connection.ping(b"are you there"))
        await client.connection.close(4000)
        assert client.connection.close_code == 4000


async def test_answers_of_one_turn_leave_in_one_write(gateway: Gateway) -> None:
    gateway.service.hold = True
    async with gateway.session() as client:
        for i in range(5):
            await client.send(generate(f"r{i}"))
        await client.send({"type": "agent.register", "id": "mark", "preferences": {}})
        assert (await client.receive())["id"] == "mark"
        link = next(iter(gateway.registry.sessions)).link
        writes: list[int] = []
        transport: Any = link.transport  # type: ignore[attr-defined]  # the transport under the link
        link.transport = _Counting(transport, writes)  # type: ignore[attr-defined]  # as above
        for ticket in gateway.service.tickets:
            ticket.answer()
        assert [(await client.receive())["id"] for i in range(5)] == [f"r{i}" for i in range(5)]
        assert writes == [5]
        link.transport = transport  # type: ignore[attr-defined]  # as above


class _Counting:
    """Counts how many buffers each write of a transport takes."""

    def __init__(self, transport: Any, writes: list[int]) -> None:
        self._transport, self._writes = transport, writes

    def write(self, data: bytes) -> None:
        self._writes.append(1)
        self._transport.write(data)

    def writelines(self, parts: list[bytes]) -> None:
        self._writes.append(len(parts))
        self._transport.writelines(parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_the_client_helper_reports_a_close_that_never_came() -> None:
    """Negative control of `Client.closed`: it cannot pass on a connection that stays open."""
    async with Gateway(FakeService(), QUICK).running() as gateway, gateway.session() as client:
        assert isinstance(client, Client)
        with pytest.raises(TimeoutError):
            await client.closed(within=0.1)
