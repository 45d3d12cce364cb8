"""The HTTP of providers whose SDK is not used (docs/decisions/0022-http-providers.md): one request, one deadline, one pool an endpoint.

What the client raises holds the request, and with it texts and key: none of it leaves here, only sentences of our own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
import msgspec
from aiohttp.http_exceptions import ContentEncodingError

from adapters.providers.sizes import most_bytes, too_much
from domain.catalogue import Endpoint
from domain.ports.provider import ProviderError, ProviderFault

# Providers' fronts close idle connections after minutes; ours go first, so that a call seldom meets a connection just closed.
_KEEPALIVE_SECONDS = 30.0
_READ_BUFFER_BYTES = 1024 * 1024
"""An answer of 64 vectors is some 350 KB: read in one go rather than paused and resumed."""


class Reply(NamedTuple):
    """An HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpApi:
    """One provider endpoint over HTTP. The key goes as a bearer token, or by itself in `key_header`. At most `endpoint.max_concurrency`
    connections are open at once, kept alive between calls. No retries, redirects, cookies or proxies of the environment.

    Raises `ValueError` for a key that no header can carry.
    """

    def __init__(self, endpoint: Endpoint, key: str | None, base_url: str, key_header: str | None = None) -> None:
        self._base = (endpoint.base_url or base_url).rstrip("/")
        self._most = endpoint.max_concurrency
        self._headers = {
            "Accept": "application/json",
            # Vectors hardly get smaller: unpacking base64 takes 18 µs a text, four times all else that is done here with it.
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "emberlog",
        }
        if key is not None:
            if not (key.isascii() and key.isprintable()):
                raise ValueError("the key holds characters that no HTTP header can carry; expected printable ASCII")
            self._headers[key_header or "Authorization"] = key if key_header else f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def post(self, path: str, body: msgspec.Struct, timeout: float, texts: int) -> Reply:
        """Send `body` as JSON, a call of so many texts. The deadline is `timeout` seconds for everything. Raises `ProviderError` where no
        whole answer comes, or one that is larger than theirs can be.
        """
        try:
            content = _encode(body)
        except UnicodeEncodeError:
            content = None
        if content is None:
            raise ProviderError(
                ProviderFault.REFUSED, "a text holds a lone surrogate and cannot be sent as UTF-8: nothing was sent"
            )
        return await self._request("POST", path, content, timeout, most_bytes(texts))

    async def get(self, path: str, timeout: float) -> Reply:
        """As `post`, without a body."""
        return await self._request("GET", path, None, timeout, most_bytes(0))

    async def close(self) -> None:
        """Close every connection; calls in flight fail. Idempotent."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _request(self, method: str, path: str, content: bytes | None, timeout: float, most: int) -> Reply:
        session = self._live()
        # The error is raised outside the except blocks: what the client raises holds the request, and with it texts and key.
        error: ProviderError
        try:
            async with (
                asyncio.timeout(timeout),
                session.request(method, self._base + path, data=content, allow_redirects=False) as response,
            ):
                body = await _read(response, most)
                if body is not None:
                    return Reply(response.status, response.headers, body)
                error = too_much(most)
        except TimeoutError:
            error = ProviderError(ProviderFault.TIMEOUT, f"no answer within {timeout:g} s")
        except asyncio.CancelledError:
            # A connector that is closed cancels who waits for a connection: that is no cancellation of ours.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            error = _closed_meanwhile()
        except aiohttp.ClientPayloadError as caught:
            error = _broken(caught)
            if isinstance(caught.__cause__, ContentEncodingError):
                error = ProviderError(ProviderFault.BAD_ANSWER, "the body cannot be decompressed")
        except (aiohttp.ClientError, OSError) as caught:
            error = _broken(caught)
        except RuntimeError:
            if not self._closed:
                raise
            error = _closed_meanwhile()
        raise error

    def _live(self) -> aiohttp.ClientSession:
        """The session, made at the first call: it belongs to the loop that is running then."""
        if self._closed:
            raise ProviderError(ProviderFault.CONNECTION, "this provider was closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._most, keepalive_timeout=_KEEPALIVE_SECONDS),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None),  # the whole call has one deadline, set in `_request`
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_READ_BUFFER_BYTES,
            )
        return self._session


_encode = msgspec.json.Encoder().encode


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    """The body; None where it is larger than `most`, and the connection is closed."""
    parts, size = [], 0
    while part := await response.content.readany():
        parts.append(part)
        size += len(part)
        if size > most:
            response.close()
            return None
    return b"".join(parts)


def _closed_meanwhile() -> ProviderError:
    return ProviderError(ProviderFault.CONNECTION, "this provider was closed during the call")


def _broken(caught: BaseException) -> ProviderError:
    return ProviderError(
        ProviderFault.CONNECTION, f"no connection, or it broke before the answer was whole ({type(caught).__name__})"
    )
