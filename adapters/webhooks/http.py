"""One try to deliver a message to a webhook: over HTTP/1.1, to addresses that the guard lets pass, whatever the answer bounded and unread.

`aiohttp` does it: it takes a resolver of ours, so that what was judged is what is connected to, and it is among the dependencies of the
OpenAI endpoint already. No proxy, no cookie, no redirect; certificates are checked against the name.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Mapping
from functools import partial
from ipaddress import ip_address

import aiohttp
import msgspec
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from adapters.webhooks.guard import Forbidden, Resolve, allowed, reachable, resolve_name
from adapters.webhooks.retry_after import retry_after
from domain.webhook_url import Address, BadAddress, parse_address

TIMEOUT_SECONDS = 15.0
MAX_ANSWER_BYTES = 16 * 1024
"""Of an answer this much is taken off the line, so that the connection can be used again; a longer one ends it."""
_KEEPALIVE_SECONDS = 4.0
"""Shorter than servers keep an idle connection: one that is closed just as it is used again costs a retry."""


class Tried(msgspec.Struct, frozen=True):
    """What became of a try. `reason` says why it failed and holds nothing of the answer but its status."""

    delivered: bool
    reason: str = ""
    status: int | None = None
    gone: bool = False
    retry_after: float | None = None
    ms: int = 0


class WebhookClient:
    """Made inside a running loop; `close` it. `resolve` is for tests."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        timeout: float = TIMEOUT_SECONDS,
        connections: int = 256,
        resolve: Resolve = resolve_name,
    ) -> None:
        self._allow_private = allow_private
        self._timeout = timeout
        self._resolve = resolve
        self._sessions = {
            scheme: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=_Guarded(scheme, allow_private, resolve),
                    socket_factory=partial(_socket, scheme, allow_private),
                    use_dns_cache=False,
                    limit=connections,
                    keepalive_timeout=_KEEPALIVE_SECONDS,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),  # `post` bounds everything, name and answer included
                auto_decompress=False,
                skip_auto_headers=("Accept-Encoding",),
                trust_env=False,
            )
            for scheme in (("https", "http") if allow_private else ("https",))
        }

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        for session in self._sessions.values():
            await session.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Tried:
        """Send once; never raises for what the other side does."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                tried = await self._post(parse_address(url, allow_private=self._allow_private), body, headers)
        except TimeoutError:
            tried = Tried(False, f"no answer within {self._timeout:g} s")
        except (BadAddress, Forbidden) as error:
            tried = Tried(
                False, f"refused: the address {error}" if isinstance(error, BadAddress) else f"refused: {error}"
            )
        except aiohttp.ClientConnectorCertificateError:
            tried = Tried(False, "the server's certificate is not valid for its name")
        except aiohttp.ClientConnectorError as error:
            tried = Tried(False, _refused(error))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            tried = Tried(False, f"the connection failed: {type(error).__name__}")
        return msgspec.structs.replace(tried, ms=round((time.perf_counter() - started) * 1000))

    async def _post(self, address: Address, body: bytes, headers: Mapping[str, str]) -> Tried:
        if _literal(address.host):  # aiohttp asks no resolver about these
            await reachable(address, allow_private=self._allow_private, resolve=self._resolve)
        url = URL(f"{address.scheme}://{address.authority}{address.target}", encoded=True)
        async with self._sessions[address.scheme].post(
            url, data=body, headers=headers, allow_redirects=False
        ) as response:  # fmt: skip
            try:
                left = MAX_ANSWER_BYTES
                while left > 0 and (chunk := await response.content.read(left)):
                    left -= len(chunk)
                if left <= 0:
                    response.close()
            except (aiohttp.ClientError, OSError):
                response.close()  # its status has come, which is all that counts
            status = response.status
            if 200 <= status < 300:
                return Tried(True, status=status)
            return Tried(
                False,
                f"HTTP {status}" + (": redirects are not followed" if 300 <= status < 400 else ""),
                status,
                gone=status == 410,
                retry_after=retry_after(response.headers.get("retry-after"), time.time()),
            )


def _socket(scheme: str, allow_private: bool, info: AddrInfoType) -> socket.socket:
    """The socket of a connection. Asked with the very address that is connected to, however it was come by. Raises OSError."""
    family, kind, protocol, _, address = info
    try:
        passes = allowed(str(address[0]), scheme=scheme, allow_private=allow_private)
    except ValueError:
        passes = False
    if not passes:
        raise PermissionError(errno.EACCES, "webhooks may not connect there")
    return socket.socket(family, kind, protocol)


class _Guarded(AbstractResolver):
    """Resolves a name when a connection is made, and only to addresses that all may be connected to."""

    def __init__(self, scheme: str, allow_private: bool, resolve: Resolve) -> None:
        self._scheme = scheme
        self._allow_private = allow_private
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises `Forbidden`, OSError."""
        address = Address(self._scheme, host, port, "/")
        found = await reachable(address, allow_private=self._allow_private, resolve=self._resolve)
        return [
            ResolveResult(
                hostname=host,
                host=a,
                port=port,
                family=socket.AF_INET6 if ":" in a else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for a in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _refused(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host's name has no address"
    return f"nobody answers there: {error.os_error.strerror or type(error).__name__}"
