"""One connection to the gateway: opened, read by one task, lost once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, ProxyError
from websockets.typing import Subprotocol

from .errors import ConnectionFailed, EmberlogError, Forbidden, ProtocolViolation, Unauthorized, from_message
from .types import Limits, Session
from .wire import SUBPROTOCOL, pack, unpack

log = logging.getLogger("emberlog_client")

SESSION_ID = "emberlog-client/session.open"
"""The id of `session.open`, which no request shares."""

_ANSWERS = frozenset({"embedding.result", "agent.registered", "error"})
_FATAL_CLOSE = frozenset({1002, 1003, 1007, 1009, 4400, 4409})


@dataclass(frozen=True, slots=True)
class Address:
    """Where and as whom to connect."""

    url: str
    key: str = field(repr=False)
    open_message: dict[str, Any] = field(repr=False)
    max_message_bytes: int
    attempt_timeout: float
    ssl: ssl.SSLContext | None
    proxy: str | Literal[True] | None


class NotNow(Exception):
    """A connection could not be opened, but the next attempt may succeed; `retry_after` seconds if the gateway named some."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Receiver(Protocol):
    """Takes what arrives before a request's outcome."""

    def restart(self) -> None:
        """The request is about to be sent (again)."""
        ...

    def chunk(self, message: dict[str, Any]) -> None:
        """Some of its vectors."""
        ...


class Owner(Protocol):
    """Whoever keeps the connections hears what becomes of each."""

    def opened(self, link: Link, session: Session) -> None:
        """`session.opened` arrived."""
        ...

    def draining(self, link: Link) -> None:
        """No new requests here; those in flight are still answered."""
        ...

    def lost(self, link: Link) -> None:
        """The connection is gone; `link.fatal` says whether for good."""
        ...


class Exchange:
    """One request on the wire and whoever waits for it. The body never changes: a resend is the same bytes."""

    __slots__ = ("body", "future", "id", "link", "receiver")

    def __init__(self, id: str, body: bytes, receiver: Receiver | None) -> None:  # noqa: A002 - the contract's name
        self.id = id
        self.body = body
        self.receiver = receiver
        self.link: Link | None = None
        self.future: asyncio.Future[dict[str, Any] | None] | None = None


class _Connect(connect):
    """Follows no redirect: the key must not travel to an address that the caller did not name."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Link:
    """A connection with its requests in flight, by id."""

    def __init__(self, socket: ClientConnection, owner: Owner) -> None:
        loop = asyncio.get_running_loop()
        self._socket = socket
        self._owner = owner
        self._exchanges: dict[str, Exchange] = {}
        self._cancelled: set[str] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self.opened: asyncio.Future[Session | None] = loop.create_future()
        self.drain_delay: float | None = None
        """Seconds to wait before connecting anew, once the gateway has said that it is draining."""
        self.closed = False
        self.fatal: EmberlogError | None = None
        """Why connecting again would not help, once `closed`."""
        self.proved = False
        """Whether an answer has come: a connection that dies before is counted against the next attempt."""
        self._reader = loop.create_task(self._read(), name="emberlog-client-reader")

    @classmethod
    async def open(cls, address: Address, owner: Owner) -> Link:
        """Connect and send `session.open`, without waiting for its answer: requests may follow right behind.

        Raises `NotNow` for what may pass, `Unauthorized`, `Forbidden`, `ProtocolViolation`, `ConnectionFailed` for what will not.
        """
        socket = await _open_socket(address)
        link = cls(socket, owner)
        try:
            await socket.send(pack(address.open_message))
        except ConnectionClosed:
            pass  # the reader reports it
        except BaseException:
            link.abort()
            raise
        return link

    @property
    def usable(self) -> bool:
        """Whether new requests may go here."""
        return not self.closed and self.drain_delay is None

    async def ask(self, exchange: Exchange) -> dict[str, Any] | None:
        """Send and wait for the outcome: an answer's map, or None when this connection was lost before one came.

        Raises what closed the connection for good. Cancelling sends `request.cancel`.
        """
        if self.closed:
            if self.fatal is not None:
                raise copy(self.fatal)
            return None
        exchange.link = self
        future: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        exchange.future = future
        self._exchanges[exchange.id] = exchange
        with contextlib.suppress(ConnectionClosed):  # the reader resolves the future
            await self._socket.send(exchange.body)
        return await future

    def forget(self, exchange: Exchange) -> None:
        """Stop waiting, and tell the gateway if it still works on the request."""
        if self._exchanges.pop(exchange.id, None) is None or self.closed:
            return
        self._cancelled.add(exchange.id)
        task = asyncio.get_running_loop().create_task(self._cancel(exchange.id))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _cancel(self, name: str) -> None:
        with contextlib.suppress(ConnectionClosed):  # there is nobody left to tell
            await self._socket.send(pack({"type": "request.cancel", "id": name}))

    async def close(self) -> None:
        """Close in order; returns once nothing of this connection is left."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=1)
        await self._socket.close()
        await asyncio.wait([self._reader])

    def drain(self, delay: float) -> None:
        """Take no new requests. `delay` is how long the gateway asks to wait before connecting anew, in seconds."""
        if self.drain_delay is None:
            self.drain_delay = delay
            self._owner.draining(self)

    def abort(self) -> None:
        """Drop the TCP connection."""
        self._socket.transport.abort()

    async def _read(self) -> None:
        try:
            while True:
                self._receive(unpack(await self._socket.recv()))
        except ConnectionClosed as closed:
            self.fatal = _judge_close(closed)
        except EmberlogError as error:
            self.fatal = error
            self.abort()
        finally:
            self.closed = True
            exchanges, self._exchanges = self._exchanges, {}
            for exchange in exchanges.values():
                assert exchange.future is not None
                if not exchange.future.done():
                    if self.fatal is None:
                        exchange.future.set_result(None)
                    else:
                        exchange.future.set_exception(copy(self.fatal))
            if not self.opened.done():
                self.opened.set_result(None)
            self._owner.lost(self)

    def _receive(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        name = message.get("id")
        if not isinstance(kind, str):
            return
        if kind == "embedding.chunk":
            self._chunk(name, message)
        elif kind in _ANSWERS and not (kind == "error" and name == SESSION_ID):
            self._answer(name, message)
        elif kind == "session.opened":
            session = _read_session(message)
            if not self.opened.done():
                self.opened.set_result(session)
                self._owner.opened(self, session)
        elif kind == "server.draining":
            after = message.get("reconnect_after_ms")
            self.drain(after / 1000 if isinstance(after, int | float) else 0.0)
        elif kind == "error":
            self._refused(message)

    def _chunk(self, name: object, message: dict[str, Any]) -> None:
        if not isinstance(name, str) or (exchange := self._exchanges.get(name)) is None:
            return  # of a request that was cancelled
        self.proved = True
        if exchange.receiver is None:
            return
        try:
            exchange.receiver.chunk(message)
        except Exception as error:  # the caller's progress callback may raise anything; it is this request's alone
            self._fail(exchange, error)

    def _answer(self, name: object, message: dict[str, Any]) -> None:
        self.proved = True
        if not isinstance(name, str):
            if len(self._exchanges) != 1:
                log.warning("the gateway reported %s without saying for which request", message.get("code"))
                return
            name = next(iter(self._exchanges))  # only one can be meant
        if name in self._cancelled:
            self._cancelled.discard(name)
            return
        exchange = self._exchanges.pop(name, None)
        if exchange is not None and exchange.future is not None and not exchange.future.done():
            exchange.future.set_result(message)

    def _fail(self, exchange: Exchange, error: Exception) -> None:
        """Fail one request; the connection goes on."""
        self.forget(exchange)
        if exchange.future is not None and not exchange.future.done():
            exchange.future.set_exception(error)

    def _refused(self, message: dict[str, Any]) -> None:
        """`session.open` was refused: for good, unless the gateway says that it may be tried again."""
        error = from_message(message)
        if message.get("retryable") is True:
            self.abort()
        else:
            raise error


async def _open_socket(address: Address) -> ClientConnection:
    extra: dict[str, Any] = {} if address.ssl is None else {"ssl": address.ssl}
    try:
        socket = await _Connect(
            address.url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            additional_headers={"Authorization": f"Bearer {address.key}"},
            proxy=address.proxy,
            open_timeout=address.attempt_timeout,
            close_timeout=2,
            max_size=address.max_message_bytes,
            write_limit=1 << 20,
            **extra,
        )
    except InvalidStatus as error:
        raise _judge_status(error) from None
    except (InvalidMessage, ProxyError, EOFError, TimeoutError) as error:
        raise NotNow(f"{address.url}: {error}") from error
    except InvalidHandshake as error:
        raise ProtocolViolation(f"{address.url} answered, but not as an Emberlog gateway: {error}") from error
    except ssl.SSLCertVerificationError as error:
        raise ConnectionFailed(f"{address.url}: the certificate was not accepted: {error.verify_message}") from error
    except OSError as error:
        raise NotNow(f"{address.url}: {error}") from error
    if socket.subprotocol != SUBPROTOCOL:
        socket.transport.abort()
        raise ProtocolViolation(f"{address.url} did not agree to the subprotocol {SUBPROTOCOL}")
    return socket


def _judge_status(error: InvalidStatus) -> EmberlogError | NotNow:
    """What an HTTP answer to the upgrade means, in the gateway's own words where it gave any."""
    response = error.response
    said: dict[str, Any] = {}
    try:
        body = json.loads(bytes(response.body or b""))
        if isinstance(body, dict) and isinstance(body.get("error"), dict):
            said = body["error"]
    except ValueError:
        pass  # not a gateway's answer, or none: the status has to do
    status = response.status_code
    message = str(said.get("message") or f"the gateway answered HTTP {status} to the connection")
    if status == 401:
        return Unauthorized(message)
    if status == 403:
        return Forbidden(message)
    if status == 429 or status >= 500:
        after = response.headers.get("retry-after", "")
        return NotNow(message, float(after) if after.isdigit() else 0.0)
    return ProtocolViolation(f"{message} (HTTP {status}; is the address right?)")


def _judge_close(closed: ConnectionClosed) -> EmberlogError | None:
    """What ended the connection for good; None when connecting again may help."""
    if closed.rcvd is None:
        if closed.sent is not None and closed.sent.code == 1009:
            return ProtocolViolation("the gateway sent a message above `max_message_bytes`; raise it in `Client(...)`")
        return None
    code, reason = closed.rcvd.code, closed.rcvd.reason
    if code == 4401:
        return Unauthorized(reason or "the gateway ended the session: the key is not valid, or no longer")
    if code == 4403:
        return Forbidden(reason or "the gateway ended the session: the key may not be used here")
    if code in _FATAL_CLOSE:
        return ProtocolViolation(f"the gateway closed the connection with {code}: {reason or 'no reason given'}")
    return None


def _read_session(message: dict[str, Any]) -> Session:
    server = message.get("server")
    server = server if isinstance(server, dict) else {}
    given = message.get("limits")
    given = given if isinstance(given, dict) else {}
    known = {name: given[name] for name in Limits.__slots__ if isinstance(given.get(name), int)}
    return Session(
        id=str(message.get("session")),
        tenant=message.get("tenant"),
        agent=str(message.get("agent")),
        server_name=str(server.get("name")),
        server_version=str(server.get("version")),
        limits=Limits(**known),
    )
