from __future__ import annotations

import asyncio

import pytest

from emberlog_client import Client, ConnectionFailed, Forbidden, ProtocolViolation, Unauthorized
from tests.support.fake_gateway import KEY, FakeGateway, Message, Peer


async def test_a_refused_key_raises_at_once_in_the_gateways_words(gateway: FakeGateway) -> None:
    with pytest.raises(Unauthorized, match="this key is not known; create another") as caught:
        async with Client(gateway.url, "wrong", proxy=None):
            pass
    assert "wrong" not in str(caught.value)


async def test_a_key_without_the_scope_raises_forbidden(gateway: FakeGateway) -> None:
    gateway.refusals = [(403, {"code": "forbidden", "message": "scope agent is missing"}, {})]
    with pytest.raises(Forbidden, match="scope agent"):
        async with Client(gateway.url, KEY, proxy=None):
            pass


async def test_a_gateway_not_ready_yet_is_asked_again(gateway: FakeGateway) -> None:
    gateway.refusals = [
        (503, {"code": "unavailable", "message": "starting"}, {}),
        (429, {"code": "rate_limited", "message": "slowly"}, {"retry-after": "0"}),
    ]
    async with Client(gateway.url, KEY, proxy=None) as client:
        assert (await client.generate("x")).count == 1
    assert not gateway.refusals


async def test_a_wrong_address_is_named_at_once(gateway: FakeGateway) -> None:
    with pytest.raises(ProtocolViolation, match="404"):
        async with Client(f"{gateway.url}/elsewhere", KEY, proxy=None):
            pass


async def test_a_redirect_is_not_followed_so_that_the_key_stays_where_the_caller_sent_it(gateway: FakeGateway) -> None:
    async with FakeGateway() as other:
        gateway.refusals = [(307, {"message": "over there"}, {"Location": f"ws://127.0.0.1:{other.port}/v1/agent"})]
        with pytest.raises(ProtocolViolation, match="307"):
            async with Client(gateway.url, KEY, proxy=None):
                pass
        assert not other.received


async def test_nobody_listening_is_connection_failed_after_the_connect_timeout(gateway: FakeGateway) -> None:
    await gateway.kill()
    with pytest.raises(ConnectionFailed, match=r"within 0\.05 s"):
        async with Client(gateway.url, KEY, connect_timeout=0.05, proxy=None):
            pass


async def test_a_server_that_is_no_gateway_is_connection_failed() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-hello\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionFailed):
            async with Client(f"http://127.0.0.1:{port}", KEY, connect_timeout=0.2, proxy=None):
                pass


@pytest.mark.parametrize(("code", "error"), [(4401, Unauthorized), (4403, Forbidden), (4400, ProtocolViolation)])
async def test_a_session_ended_for_good_fails_its_requests_at_once(
    gateway: FakeGateway, client: Client, code: int, error: type[Exception]
) -> None:
    async def revoke(peer: Peer, request: Message) -> None:
        await peer.socket.close(code, "the gateway's reason")

    gateway.behaviour = revoke
    with pytest.raises(error, match="the gateway's reason"):
        await client.generate("x")
    assert len(gateway.messages("session.open")) == 1
    connecting = [task for task in asyncio.all_tasks() if task.get_name() == "emberlog-client-connect"]
    assert not [task for task in connecting if not task.done()]  # nobody knocks again with a refused key


async def test_a_revoked_key_is_asked_for_again_only_by_the_next_call(gateway: FakeGateway, client: Client) -> None:
    gateway.keys.clear()
    await gateway.peers[0].socket.close(4401)
    with pytest.raises(Unauthorized):
        await client.generate("x")
    gateway.keys.add(KEY)
    assert (await client.generate("x")).count == 1


async def test_a_session_refused_in_band_raises_or_is_tried_again_as_the_gateway_says(gateway: FakeGateway) -> None:
    async def refuse(peer: Peer, message: Message) -> None:
        if len(gateway.messages("session.open")) == 1:
            await peer.refuse(message, "draining", retryable=True)
        else:
            await peer.refuse(message, "forbidden")

    gateway.open_with = refuse
    with pytest.raises(Forbidden):
        async with Client(gateway.url, KEY, proxy=None):
            pass
    assert len(gateway.messages("session.open")) == 2


async def test_frames_that_are_no_maps_end_in_a_protocol_violation(gateway: FakeGateway, client: Client) -> None:
    bad: list[bytes | str] = [b"\xc1", b"\x01", "text"]
    frames = iter(bad)

    async def garbage(peer: Peer, request: Message) -> None:
        await peer.socket.send(next(frames))

    gateway.behaviour = garbage
    for _ in range(3):
        with pytest.raises(ProtocolViolation):
            await client.generate("x")
    gateway.behaviour = gateway.answer
    assert (await client.generate("x")).count == 1


async def test_messages_it_does_not_know_are_ignored(gateway: FakeGateway, client: Client) -> None:
    async def chatty(peer: Peer, request: Message) -> None:
        await peer.send({"type": "news", "id": request["id"]})
        await peer.send({"type": ["odd"], "id": request["id"]})
        await peer.send({"type": "embedding.result", "id": "nobody's"})
        await peer.send({"no": "type"})
        await gateway.answer(peer, request)

    gateway.behaviour = chatty
    assert (await client.generate("x")).count == 1


async def test_a_message_above_its_own_limit_is_refused_by_the_client(gateway: FakeGateway) -> None:
    async with Client(gateway.url, KEY, max_message_bytes=10_000, proxy=None) as client:
        with pytest.raises(ProtocolViolation, match="max_message_bytes"):
            await client.generate(["x"] * 500, dimensions=12)
