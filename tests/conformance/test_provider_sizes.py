"""Servers that answer without end, plain or packed: an adapter reads what its call may take, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from adapters.providers.cohere import CohereProvider
from adapters.providers.openai import OpenAIProvider
from adapters.providers.sizes import most_bytes
from domain.catalogue import Endpoint
from domain.ports.provider import LONGEST_PAUSE, EmbedCall, Provider, ProviderError, ProviderFault
from tests.conformance.provider_contract import KEY
from tests.conformance.test_provider_bedrock import opens as bedrock

CHUNK = b" " * 65_536


async def asked(reader: asyncio.StreamReader) -> None:
    """Read one request whole: what is left unread would break the connection over its answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"content-length: " in head:
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))


@contextlib.asynccontextmanager
async def served(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that answers so; its address. At the end none of its connections is left."""
    open_ones: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await asked(reader)
                await answer(reader, writer)
        finally:
            writer.close()
            open_ones.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    if open_ones:
        await asyncio.wait(open_ones, timeout=5)


class Endless:
    """Answers every request with spaces until its peer is gone. `sent` counts the bytes that went into the connection."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.packed = False
        self.sent = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            packing = "Content-Encoding: gzip\r\n" if self.packed else ""
            writer.write(
                f"HTTP/1.1 {self.status} X\r\nContent-Type: application/json\r\n{packing}Transfer-Encoding: chunked\r\n\r\n".encode()
            )
            packer = zlib.compressobj(wbits=31)
            while True:
                part = CHUNK
                if self.packed:
                    part = packer.compress(CHUNK * 16) + packer.flush(zlib.Z_SYNC_FLUSH)
                writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)  # what is packed never fills the connection
                self.sent += len(part)


@pytest.fixture
async def endless() -> AsyncIterator[Endless]:
    made = Endless()
    async with served(made.serve) as made.url:
        yield made


def openai(url: str) -> Provider:
    return OpenAIProvider(Endpoint("e", "openai", {"m": ""}, base_url=url), KEY)


def cohere(url: str) -> Provider:
    return CohereProvider(Endpoint("e", "cohere", {"m": ""}, base_url=url), KEY)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("opens", [openai, cohere])
async def test_an_answer_without_end_is_left_off_where_it_can_be_none(
    endless: Endless, opens: Callable[[str], Provider], status: int, packed: bool
) -> None:
    endless.status, endless.packed = status, packed
    provider = opens(endless.url)
    try:
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(texts=["one"], model="m", timeout=3))
        assert caught.value.fault is ProviderFault.BAD_ANSWER
        assert endless.sent < 2 * most_bytes(1) + 16 * 1024 * 1024, "what is read ahead of the adapter is bounded, too"
        with pytest.raises(ProviderError) as caught:
            await provider.check(3)
        assert caught.value.fault is ProviderFault.BAD_ANSWER
    finally:
        await provider.close()


@pytest.mark.parametrize("status", [200, 500])
async def test_bedrocks_answer_without_end_is_left_off(
    endless: Endless, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    endless.status = status
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    provider = bedrock(endless.url)
    try:
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(texts=["one"], model="amazon.titan-embed-text-v2:0", timeout=3))
        assert caught.value.fault is ProviderFault.BAD_ANSWER
        assert endless.sent < 2 * most_bytes(1) + 16 * 1024 * 1024
        with pytest.raises(ProviderError) as caught:
            await provider.check(3)
        assert caught.value.fault is ProviderFault.BAD_ANSWER
    finally:
        await provider.close()


class Answering:
    """Answers every request with one body."""

    def __init__(self) -> None:
        self.status = 200
        self.headers = ""
        self.body = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            f"HTTP/1.1 {self.status} X\r\nContent-Type: application/json\r\nConnection: close\r\n{self.headers}"
            f"Content-Length: {len(self.body)}\r\n\r\n".encode()
            + self.body
        )
        await writer.drain()


DEEP = b'{"unknown": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"


@pytest.mark.parametrize(("status", "fault"), [(200, ProviderFault.BAD_ANSWER), (500, ProviderFault.SERVER)])
@pytest.mark.parametrize("opens", [openai, cohere])
async def test_a_body_that_is_nested_without_end_is_no_answer(
    opens: Callable[[str], Provider], status: int, fault: ProviderFault
) -> None:
    said = Answering()
    said.status, said.body = status, DEEP
    assert (await _fails(opens, said)).fault is fault


@pytest.mark.parametrize("header", ["retry-after", "retry-after-ms"])
@pytest.mark.parametrize("value", ["1e300", "99999999999", "nan", "-5", "Fri, 31 Dec 9999 23:59:59 GMT", "inf", "\xb2"])
@pytest.mark.parametrize("opens", [openai, cohere])
async def test_no_provider_asks_for_a_pause_of_years(opens: Callable[[str], Provider], value: str, header: str) -> None:
    said = Answering()
    said.status, said.headers, said.body = 429, f"{header}: {value}\r\n", b"{}"
    error = await _fails(opens, said)
    assert error.fault is ProviderFault.RATE_LIMITED
    assert error.retry_after is None or 0 <= error.retry_after <= LONGEST_PAUSE


async def _fails(opens: Callable[[str], Provider], said: Answering) -> ProviderError:
    async with served(said.serve) as url:
        provider = opens(url)
        try:
            with pytest.raises(ProviderError) as caught:
                await provider.embed(EmbedCall(texts=["one"], model="m", timeout=3))
            return caught.value
        finally:
            await provider.close()
