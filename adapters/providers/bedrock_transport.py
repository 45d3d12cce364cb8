"""HTTP under boto3, so that a call can be ended from outside: botocore's own session blocks until its read timeout and cannot be told.

botocore builds and signs the request and reads the answer; what goes between is sent here, from its public `before-send` event, over
urllib3 as botocore itself does it: the same proxies, the same certificates.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from botocore.awsrequest import AWSResponse
from botocore.httpsession import get_cert_path
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse

from adapters.providers.sizes import most_bytes, too_much

_PART = 65_536


class GivenUp(Exception):
    """The call was given up before it was sent."""


class Flight:
    """One call on its way. `deadline` by `time.monotonic()`. The thread that makes the call is in it (`flying`); any other may `give_up`."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.given_up = False
        self._connection: _Cuttable | None = None

    def give_up(self) -> None:
        """End the call: what waits on its connection wakes with an error. Does nothing to a call that is over."""
        self.given_up = True
        connection = self._connection
        if connection is not None:
            connection.cut(self)

    def board(self, connection: _Cuttable) -> None:
        """Go on over this connection; `give_up` finds it from here on. Raises `GivenUp` where that came first."""
        self._connection = connection
        self.go_on()

    def go_on(self) -> None:
        """Raises `GivenUp` for a call that nobody waits for."""
        if self.given_up:
            raise GivenUp

    def left(self) -> float:
        """Seconds until the deadline, more than none."""
        return max(0.001, self.deadline - time.monotonic())

    def land(self) -> None:
        """The call is over: its connection may carry another."""
        self._connection = None


class _Current(threading.local):
    flight: Flight | None = None


_current = _Current()


@contextlib.contextmanager
def flying(flight: Flight) -> Iterator[None]:
    """What this thread sends meanwhile belongs to `flight`."""
    _current.flight = flight
    try:
        yield
    finally:
        _current.flight = None
        flight.land()


def _flight() -> Flight:
    assert _current.flight is not None, "every request of this client is sent by a thread that is in a flight"
    return _current.flight


class _Cuttable(HTTPConnection):
    """A connection whose socket another thread can shut down while a call waits on it."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._guard = threading.RLock()
        self._carries: Flight | None = None
        super().__init__(*args, **settings)

    def connect(self) -> None:
        super().connect()
        _flight().go_on()  # given up meanwhile: `cut` had no socket to shut down

    def request(self, *args: Any, **settings: Any) -> None:
        flight = _flight()
        with self._guard:
            self._carries = flight
        flight.board(self)
        super().request(*args, **settings)

    def close(self) -> None:
        with self._guard:  # a socket is not shut down by number while that number passes to another
            super().close()

    def cut(self, flight: Flight) -> None:
        """Shut the socket down if it still carries this flight."""
        with self._guard:
            if self._carries is flight and self.sock is not None:
                # The plain socket's method: SSLSocket's would take the TLS state from under the thread that reads.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class _CuttableTLS(_Cuttable, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Cuttable


class _PoolTLS(HTTPSConnectionPool):
    ConnectionCls = _CuttableTLS


def _through(proxy: str, settings: dict[str, Any]) -> urllib3.ProxyManager:
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    headers = None
    if parts.username is not None:
        headers = urllib3.make_headers(proxy_basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    return urllib3.ProxyManager(parts.geturl(), proxy_headers=headers, **settings)


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


class _Answer(HTTPResponse):
    """What botocore reads whole by itself, an error or a list, is no larger than that can be. The answer to a call is read by whoever made it."""

    def stream(self, *_: Any, **__: Any) -> Generator[bytes, None, None]:
        most = left = most_bytes(0)
        while part := self.read(_PART):
            left -= len(part)
            if left < 0:
                self.close()
                raise too_much(most)
            yield part


class Transport:
    """Sends what botocore has signed, over at most `connections` kept connections. To be used inside `flying` only.

    `ca_bundle` is a file of certificates to trust, None for botocore's choice.
    """

    def __init__(self, url: str, connections: int, ca_bundle: str | None) -> None:
        parts = urlsplit(url)
        settings: dict[str, Any] = {"maxsize": connections}
        if parts.scheme == "https":
            settings["ssl_context"] = ssl.create_default_context(cafile=get_cert_path(ca_bundle or True))
        proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
        self._pools = _through(proxy, settings) if proxy else urllib3.PoolManager(**settings)
        self._pools.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTLS}
        # A proxy forwards what is not encrypted, and must be told where to; to what is, it only opens a way.
        self._whole_urls = bool(proxy) and parts.scheme == "http"

    def send(self, request: Any, **_: Any) -> AWSResponse:
        """Send one request; the body of the answer is left to be read. A handler of botocore's `before-send`."""
        left = _flight().left()
        answer = self._pools.connection_from_url(request.url).urlopen(
            request.method,
            request.url if self._whole_urls else _target(request.url),
            body=request.body,
            headers=request.headers,
            retries=False,
            redirect=False,
            assert_same_host=False,  # a proxy's is another
            timeout=urllib3.Timeout(connect=left, read=left),
            preload_content=False,
            decode_content=False,
        )
        answer.__class__ = _Answer
        return AWSResponse(request.url, answer.status, answer.headers, answer)

    def close(self) -> None:
        """Close the connections that carry nothing; the others close when their calls end."""
        self._pools.clear()
