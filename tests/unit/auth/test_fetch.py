"""One document over HTTP: what is taken for an answer, and that no server can hold or fill us."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.auth.fetch import FetchFailed, fetch
from tests.support.certificates import certificate
from tests.support.key_server import KeyServer, answer, endless_headers, flood, key_server, raw, silence
from tests.support.ports import free_port


@pytest_asyncio.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with key_server() as server:
        yield server


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_body_of_a_good_answer_is_the_document(server: KeyServer, chunked: bool) -> None:
    server.respond = answer(b'{"keys": []}', chunked=chunked)
    assert await fetch(server.url, 12) == b'{"keys": []}'
    [request] = server.requests
    assert request.startswith(b"GET /keys?v=1 HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % server.port)
    assert b"authorization" not in request.lower()


async def test_an_answer_that_ends_with_its_connection_is_whole(server: KeyServer) -> None:
    server.respond = raw(b"HTTP/1.0 200 OK\r\nserver: old\r\n\r\n{}")
    assert await fetch(server.url, 12) == b"{}"


@pytest.mark.parametrize(
    ("respond", "why"),
    [
        (answer(b"", status="302 Found", headers="location: http://127.0.0.1:9/\r\n"), "status 302, expected 200"),
        (answer(b"{}", status="500 Oh"), "status 500"),
        (answer(b"", status="304 Not Modified"), "status 304"),
        (answer(b"x" * 101), "more than 100 bytes"),
        (answer(b"x" * 101, chunked=True), "more than 100 bytes"),
        (flood, "more than 100 bytes"),
        (endless_headers, "more than 100 bytes"),
        (raw(b"SSH-2.0-OpenSSH\r\n"), "no HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{}"), "cut off"),
        (raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"), "cut off"),
        (raw(b"HTTP/1.1 200"), "cut off"),
        (raw(b""), "cut off"),
    ],
)
async def test_whatever_else_comes_back_is_refused(server: KeyServer, respond: object, why: str) -> None:
    server.respond = respond  # type: ignore[assignment]
    with pytest.raises(FetchFailed, match=why):
        await fetch(server.url, 100)
    assert len(server.requests) == 1


async def test_a_server_that_says_nothing_is_given_up(server: KeyServer) -> None:
    server.respond = silence
    with pytest.raises(FetchFailed, match=r"within 0\.05 seconds"):
        await fetch(server.url, 100, seconds=0.05)


async def test_a_server_that_is_not_there_is_said_so() -> None:
    with pytest.raises(FetchFailed, match="no connection"):
        await fetch(f"http://127.0.0.1:{free_port()}/", 100)
    with pytest.raises(FetchFailed, match="no connection"):
        await fetch(f"http://{'a' * 70}.localhost/", 100)


async def test_a_server_of_https_needs_a_certificate_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, private = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    async with key_server(context) as server:
        server.respond = answer(b"{}")
        with pytest.raises(FetchFailed, match="no secure connection: CERTIFICATE_VERIFY_FAILED"):
            await fetch(server.url, 100)
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
        assert await fetch(server.url, 100) == b"{}"
        with pytest.raises(FetchFailed, match="no secure connection"):
            await fetch(server.url.replace("127.0.0.1", "localhost"), 100)
