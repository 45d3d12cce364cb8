"""One GET of a small document, within a time and a size: no redirects, no proxies, no cookies, nothing kept open."""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

import httptools

SECONDS = 5.0
"""For the whole of it, from the lookup of the name to the last byte."""
_CHUNK = 16 * 1024
_HEADER_BYTES = 32 * 1024


class FetchFailed(Exception):
    """The document could not be had; the message says why, without its address."""


async def fetch(url: str, max_bytes: int, seconds: float = SECONDS) -> bytes:
    """The body of a 200 answer. Raises `FetchFailed`. An address of https needs a certificate that this machine trusts."""
    try:
        async with asyncio.timeout(seconds):
            return await _get(url, max_bytes)
    except TimeoutError:
        raise FetchFailed(f"no whole answer within {seconds:g} seconds") from None
    except ssl.SSLError as error:
        raise FetchFailed(f"no secure connection: {error.reason or type(error).__name__}") from None
    except OSError as error:
        raise FetchFailed(f"no connection: {error.strerror or type(error).__name__}") from None
    except UnicodeError:
        raise FetchFailed("no connection: there can be no host of that name") from None


async def _get(url: str, max_bytes: int) -> bytes:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    assert parts.hostname is not None
    # Reading this machine's trusted certificates takes tens of milliseconds, which nobody else should wait for.
    tls = await asyncio.to_thread(ssl.create_default_context) if secure else None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or (443 if secure else 80), ssl=tls)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        writer.write(
            f"GET {target} HTTP/1.1\r\nhost: {parts.netloc}\r\nuser-agent: emberlog\r\n"
            "accept: application/jwk-set+json, application/json\r\nconnection: close\r\n\r\n".encode("ascii")
        )
        return await _answer(reader, max_bytes)
    finally:
        writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    received = 0
    while not answer.complete:
        data = await reader.read(_CHUNK)
        if not data:
            if answer.to_the_end and parser.get_status_code() == 200:
                break
            raise FetchFailed("the answer was cut off")
        received += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            raise FetchFailed("the answer is no HTTP") from None
        if len(answer.body) > max_bytes or received > max_bytes + _HEADER_BYTES:
            raise FetchFailed(f"the answer has more than {max_bytes} bytes")
    if (status := parser.get_status_code()) != 200:
        raise FetchFailed(f"the answer has status {status}, expected 200")
    return bytes(answer.body)


class _Answer:
    """What the parser says."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False
        self.to_the_end = False
        self._measured = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._measured = self._measured or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self.to_the_end = not self._measured

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True
