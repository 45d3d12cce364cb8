"""One try: what the other side may do, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from adapters.webhooks.guard import Forbidden, resolve_name
from adapters.webhooks.http import MAX_ANSWER_BYTES, Tried, WebhookClient, _Guarded
from tests.support.certificates import certificate
from tests.support.receiver import receiver

HEADERS = {"content-type": "application/json", "webhook-id": "m"}


async def tried(url: str, **how: Any) -> Tried:
    client = WebhookClient(**{"allow_private": True} | how)
    try:
        return await client.post(url, b"{}", HEADERS)
    finally:
        await client.close()


async def test_a_2xx_is_delivered_with_body_headers_path_and_query() -> None:
    async with receiver() as made:
        made.answer = lambda _: web.Response(status=204)
        result = await tried(made.url)
    assert (result.delivered, result.status) == (True, 204)
    [message] = made.messages
    assert (message.path, message.body, message.headers["webhook-id"]) == ("/hooks?a=1", b"{}", "m")
    assert message.headers["host"] in made.url


@pytest.mark.parametrize(("status", "gone"), [(400, False), (410, True), (500, False), (302, False)])
async def test_anything_else_is_not_delivered_and_the_answers_body_is_told_to_nobody(status: int, gone: bool) -> None:
    async with receiver() as made:
        made.answer = lambda _: web.Response(
            status=status, text="a secret", headers={"location": made.url, "retry-after": "7"}
        )
        result = await tried(made.url)
    assert (result.delivered, result.status, result.gone) == (False, status, gone)
    assert result.retry_after == 7
    assert result.reason.startswith(f"HTTP {status}")
    assert "secret" not in repr(result)
    assert len(made.messages) == 1, "no redirect is followed"


async def test_an_endless_answer_is_cut_off_and_counts_by_its_status() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 1024)
                sent += 1024
        except (ConnectionError, asyncio.CancelledError):
            return response

    application = web.Application()
    application.router.add_post("/", endless)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    result = await tried(f"http://127.0.0.1:{runner.addresses[0][1]}/")
    await runner.cleanup()
    assert result.delivered
    assert sent > MAX_ANSWER_BYTES


async def test_one_that_does_not_answer_in_time_is_given_up() -> None:
    async with receiver() as made:
        made.hold = asyncio.Event()
        result = await tried(made.url, timeout=0.1)
    assert result.reason == "no answer within 0.1 s"


async def test_where_nobody_listens_the_reason_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = await tried(f"http://127.0.0.1:{port}/")
    assert result.reason.startswith("nobody answers there")


async def test_rubbish_instead_of_http_fails_the_try_alone() -> None:
    async def rubbish(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\xffnot http\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(rubbish, "127.0.0.1", 0)
    result = await tried(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    server.close()
    await server.wait_closed()
    assert not result.delivered
    assert "rubbish" not in result.reason


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://[::1]/", "https://inner.example.com/"])
async def test_an_inner_address_is_refused_before_anything_is_sent(url: str) -> None:
    async def resolve(_: str, __: int) -> list[str]:
        return ["10.0.0.1"]

    result = await tried(url, allow_private=False, resolve=resolve)
    assert result.reason.startswith("refused: the host has an address")


async def test_http_is_refused_where_private_addresses_are_not_allowed() -> None:
    async with receiver() as made:
        result = await tried(made.url, allow_private=False)
        assert made.messages == []
    assert "https://" in result.reason


async def test_the_name_is_resolved_once_and_the_connection_goes_to_that_address() -> None:
    """A second look-up would say something else: that of an attacker who rebinds the name."""
    async with receiver() as made:
        port = int(made.url.split(":")[2].partition("/")[0])
        asked: list[str] = []

        async def resolve(host: str, _: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["192.0.2.1"]

        result = await tried(f"http://rebound.example.com:{port}/x", resolve=resolve)
        assert result.delivered
        assert asked == ["rebound.example.com"]
        assert made.messages[0].headers["host"] == f"rebound.example.com:{port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "127.1", "2130706433", "0.0.0.0", "localhost"])
async def test_no_way_into_the_http_client_leads_past_the_guard(host: str) -> None:
    """Of some hosts the client asks no resolver. The socket itself is refused, whatever was asked before."""
    arrived: list[object] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(writer)
        writer.close()

    server = await asyncio.start_server(accept, [a for a in ("127.0.0.1", "::1") if a in _local()], 0)
    port = server.sockets[0].getsockname()[1]
    client = WebhookClient()
    with pytest.raises((aiohttp.ClientError, Forbidden)):
        await client._sessions["https"].post(f"https://{host}:{port}/")
    await client.close()
    server.close()
    await server.wait_closed()
    assert arrived == []


def _local() -> set[str]:
    found = {"127.0.0.1"}
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as six:
        six.bind(("::1", 0))
        found.add("::1")
    return found


async def test_without_the_guard_of_the_socket_some_hosts_would_get_past_it() -> None:
    """The control: the same client with sockets for everybody reaches this machine."""
    async with receiver() as made:
        port = made.url.split(":")[2].partition("/")[0]
        connector = aiohttp.TCPConnector(resolver=_Guarded("http", False, resolve_name))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://127.0.0.1:{port}/") as answer,
        ):
            assert answer.status == 200
        assert len(made.messages) == 1


async def test_a_connection_is_used_again() -> None:
    async with receiver() as made:
        client = WebhookClient(allow_private=True)
        for _ in range(3):
            assert (await client.post(made.url, b"{}", HEADERS)).delivered
        await client.close()
    assert len({message.connection for message in made.messages}) == 1


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and a client's that trusts it."""
    chain, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context, ssl.create_default_context(cafile=str(chain))


async def test_a_certificate_that_nobody_vouches_for_is_refused(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with receiver(tls[0]) as made:
        result = await tried(made.url)
    assert result.reason == "the server's certificate is not valid for its name"
    assert made.messages == []


async def test_https_is_delivered_to_the_name_of_the_certificate_and_to_no_other(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", tls[1])

    async def resolve(_: str, __: int) -> list[str]:
        return ["127.0.0.1"]

    async with receiver(tls[0]) as made:
        assert (await tried(made.url)).delivered
        result = await tried(made.url.replace("127.0.0.1", "another.example.com"), resolve=resolve)
    assert result.reason == "the server's certificate is not valid for its name"
    assert len(made.messages) == 1
