"""One agent's session: the state machine between a connection's messages and the request service.

WAITING (nothing opened yet) -> OPENING (preferences of `session.open` are being stored, or keys
looked up that its token was signed with; what follows is held) -> OPEN -> CLOSED.
Everything happens on the loop; a request costs no task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from enum import Enum, auto
from secrets import token_hex

import msgspec

from domain.errors import GatewayError
from domain.tenancy import Principal
from gateway.auth.authenticator import UnknownSigner
from gateway.auth.issuer import Issuer
from gateway.collections.searching import SearchRequest, vector_of_bytes
from gateway.errorlog import ErrorLog
from gateway.wire import checks
from gateway.wire.codec import Refused, decode, encode
from gateway.wire.flight import Flight
from gateway.wire.link import Link
from gateway.wire.messages import (
    AgentInfo,
    AgentRegister,
    AgentRegistered,
    ClientMessage,
    EmbeddingGenerate,
    Error,
    RequestCancel,
    SearchQuery,
    SearchResult,
    ServerDraining,
    SessionOpen,
    SessionOpened,
)
from gateway.wire.service import EmbeddingService
from gateway.wire.sessions import SessionRegistry

_MALFORMED_IN_A_ROW = 3
_HELD_BYTES = 16 * 1024 * 1024


class State(Enum):
    """Where a session stands."""

    WAITING = auto()
    OPENING = auto()
    OPEN = auto()
    CLOSED = auto()


class Session:
    """A `LinkHandler`. `principal` is known from the start where the upgrade carried a credential, `caller` (see `context_of`) where it carried a trace.

    `address` is the client's, as `address_of` tells it.
    """

    def __init__(
        self,
        link: Link,
        service: EmbeddingService,
        registry: SessionRegistry,
        principal: Principal | None,
        caller: str | None = None,
        address: str = "",
    ) -> None:
        self.id = token_hex(8)
        self.link = link
        self.service = service
        self.registry = registry
        self.principal = principal
        self.caller = caller
        self.address = address
        self.trace = caller[:32] if caller else None
        self.state = State.WAITING
        self.agent: AgentInfo | None = None
        self.open_by = asyncio.get_running_loop().time() + registry.settings.open_seconds
        self.max_message_bytes = service.limits.max_message_bytes
        self.in_flight = 0
        self.in_flight_inputs = 0
        self._flights: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._malformed = 0
        self._refused_open = False
        self._draining = False
        self._errors = ErrorLog("websocket")
        registry.add(self)

    # What the connection calls.

    def on_message(self, data: bytes) -> None:
        """A binary message."""
        if self.state is State.OPENING:
            self._hold(data)
            return
        try:
            message = decode(data)
        except Refused as refused:
            self._refuse(refused)
            return
        self._malformed = 0
        if type(message) is EmbeddingGenerate and self.state is State.OPEN:
            self._generate(message)
        elif self.state is not State.CLOSED:
            self._other(message)

    def on_lost(self) -> None:
        """The connection is gone."""
        self._end()
        self.registry.remove(self)

    # What the registry calls.

    def tick(self, now: float, *, valid: bool) -> None:
        """A few times a second. `valid`: whether the principal's credential still is."""
        if self.state is State.WAITING and not self._refused_open and now >= self.open_by:
            self.shut(4408, "no session.open in time")
        elif not valid:
            self.shut(4401, "the credential was revoked or has expired")
        self.link.tick(now)

    def drain(self, reconnect_after_ms: int) -> None:
        """Say that the server restarts; close as soon as nothing is in flight."""
        self._draining = True
        if self.state is not State.CLOSED:
            self.link.write(encode(ServerDraining(reconnect_after_ms)))
        self._close_if_drained()

    def shut(self, code: int, reason: str) -> None:
        """Close the connection and give up what is in flight."""
        self.link.close(code, reason)
        self._end()

    # What flights call.

    def finish(self, flight: Flight) -> None:
        """A request has its answer."""
        flight.done = True
        self.in_flight -= 1
        self.in_flight_inputs -= flight.inputs
        flights = self._flights
        head = flights.get(flight.id)
        if head is flight:
            if flight.twin is None:
                del flights[flight.id]
            else:
                flights[flight.id] = flight.twin
        else:
            while head is not None and head.twin is not flight:
                head = head.twin
            if head is not None:
                head.twin = flight.twin
        if self._draining:
            self._close_if_drained()

    def send_error(self, error: GatewayError, message_id: str | None, cause: BaseException | None = None) -> None:
        """Tell the client, and the log."""
        tenant = self.principal.tenant if self.principal is not None else None
        details = self._errors.note(error, tenant=tenant, trace=self.trace, cause=cause, session=self.id)
        answer = Error(error.code, error.message, error.retryable, details=details)
        if message_id is not None:
            answer.id = message_id
        if error.retry_after_ms is not None:
            answer.retry_after_ms = error.retry_after_ms
        self.link.write(encode(answer))

    # Messages.

    def _generate(self, message: EmbeddingGenerate) -> None:
        source = message.input
        texts = [source] if isinstance(source, str) else source
        count = len(texts)
        limits = self.service.limits
        try:
            if self.registry.draining or self.service.draining:
                raise self.registry.draining_error()
            checks.generate(message)
            if self.in_flight >= limits.max_in_flight or (
                self.in_flight_inputs and self.in_flight_inputs + count > limits.max_in_flight_inputs
            ):
                raise checks.too_many_in_flight(limits)
            assert self.principal is not None
            assert self.agent is not None
            flight = Flight(self, message.id, count, message.encoding)
            flight.twin = self._flights.get(message.id)
            self._flights[message.id] = flight
            self.in_flight += 1
            self.in_flight_inputs += count
            try:
                flight.ticket = self.service.generate(
                    self.principal, self.agent.id, message, texts, flight, trace=self.caller
                )
            except BaseException:
                if not flight.done:
                    self.finish(flight)
                raise
        except GatewayError as error:
            self.send_error(error, message.id)
        except Exception as failure:
            self.send_error(checks.internal(), message.id, cause=failure)

    def _other(self, message: ClientMessage) -> None:
        if isinstance(message, SessionOpen):
            if self.state is State.WAITING:
                self._open(message)
            else:
                self.shut(4409, "second session.open")
        elif self.state is not State.OPEN:
            self._not_open(message.id)
        elif isinstance(message, AgentRegister):
            self._register(message)
        elif isinstance(message, SearchQuery):
            self._search(message)
        elif isinstance(message, RequestCancel):
            flight = self._flights.get(message.id)
            while flight is not None:
                twin = flight.twin
                flight.cancel()
                flight = twin

    def _not_open(self, message_id: str | None) -> None:
        """A request without an open session: fatal, unless it was sent right behind a `session.open` that was refused."""
        if self._refused_open:
            error = GatewayError(
                "invalid_message", "the session is not open: session.open was refused, send it again first"
            )
            self.send_error(error, message_id)
        else:
            self.shut(4401, "a request before session.open")

    def _open(self, message: SessionOpen, *, asked: bool = False) -> None:
        """`asked`: the issuer of its token was asked for fresher keys."""
        if self.principal is None:
            if message.token is None:
                self.shut(4401, "no credential: send `token` in session.open, or a header on the upgrade")
                return
            try:
                self.principal = self.service.authenticate(message.token)
            except GatewayError as error:
                if isinstance(error, UnknownSigner) and not asked:
                    self.state = State.OPENING
                    self._spawn(self._open_with_fresher_keys(message, error.issuer))
                    return
                self.send_error(self.service.failed_logins.judged(error, self.address), message.id)
                self.shut(4401, "no valid credential")
                return
            try:
                checks.may_open(self.principal)
            except GatewayError as error:
                self.send_error(error, message.id)
                self.shut(4403, "the credential is valid but not allowed here")
                return
            if self.registry.tenant_full(self.principal.tenant, but=self):
                self.shut(4429, "connection limit")
                return
            self.link.limit(self.max_message_bytes)
        try:
            if self.registry.draining or self.service.draining:
                raise self.registry.draining_error()
            checks.may_speak_for(self.principal, message.agent.id, "agent.id")
            if message.preferences is not None:
                checks.preferences(message.preferences)
        except GatewayError as error:
            self._refused_open = True
            self.send_error(error, message.id)
            return
        self.agent = message.agent
        if message.preferences is None:
            self._opened(message)
        else:
            self.state = State.OPENING
            self._spawn(self._open_with_preferences(message))

    async def _open_with_preferences(self, message: SessionOpen) -> None:
        assert self.principal is not None
        assert message.preferences is not None
        try:
            await self.service.register_agent(self.principal, message.agent, message.preferences, [], None)
        except GatewayError as error:
            self._open_failed(error, message.id)
        except Exception as failure:
            self._open_failed(checks.internal(), message.id, cause=failure)
        else:
            if self.state is State.OPENING:
                self._opened(message)
        self._go_on()

    async def _open_with_fresher_keys(self, message: SessionOpen, issuer: Issuer) -> None:
        await issuer.look_again()
        if self.state is State.OPENING:
            self.state = State.WAITING
            self._open(message, asked=True)
        self._go_on()

    def _go_on(self) -> None:
        """Take what was sent while the session was being opened."""
        while self._held and self.state is not State.OPENING:
            data = self._held.popleft()
            self._held_bytes -= len(data)
            self.on_message(data)

    def _open_failed(self, error: GatewayError, message_id: str, cause: BaseException | None = None) -> None:
        if self.state is State.OPENING:
            self.state = State.WAITING
            self._refused_open = True
            self.send_error(error, message_id, cause=cause)

    def _opened(self, message: SessionOpen) -> None:
        assert self.principal is not None
        self.state = State.OPEN
        self._refused_open = False
        self.link.write(
            encode(
                SessionOpened(
                    id=message.id,
                    session=self.id,
                    tenant=self.principal.tenant,
                    agent=message.agent.id,
                    server=self.registry.server,
                    limits=self.service.limits,
                )
            )
        )

    def _register(self, message: AgentRegister) -> None:
        try:
            if self.registry.draining or self.service.draining:
                raise self.registry.draining_error()
            checks.preferences(message.preferences)
            checks.metadata(message.metadata)
            if self.in_flight >= self.service.limits.max_in_flight:
                raise checks.too_many_in_flight(self.service.limits)
        except GatewayError as error:
            self.send_error(error, message.id)
            return
        self.in_flight += 1
        self._spawn(self._store_registration(message))

    def _search(self, message: SearchQuery) -> None:
        try:
            if self.registry.draining or self.service.draining:
                raise self.registry.draining_error()
            if self.in_flight >= self.service.limits.max_in_flight:
                raise checks.too_many_in_flight(self.service.limits)
            request = SearchRequest(
                message.collection,
                message.text,
                None if message.vector is None else vector_of_bytes(message.vector),
                message.k,
                message.filter,
                message.threshold,
            )
        except GatewayError as error:
            self.send_error(error, message.id)
            return
        self.in_flight += 1
        self._spawn(self._answer_search(message.id, request))

    async def _answer_search(self, message_id: str, request: SearchRequest) -> None:
        assert self.principal is not None
        assert self.agent is not None
        try:
            found = await self.service.searches.search(self.principal, self.agent.id, request, trace=self.caller)
        except GatewayError as error:
            self.send_error(error, message_id)
        except Exception as failure:
            self.send_error(checks.internal(), message_id, cause=failure)
        else:
            matches = [msgspec.to_builtins(match) for match in found.matches]
            self.link.write(encode(SearchResult(id=message_id, space=found.space, matches=matches)))
        finally:
            self.in_flight -= 1
            if self._draining:
                self._close_if_drained()

    async def _store_registration(self, message: AgentRegister) -> None:
        assert self.principal is not None
        assert self.agent is not None
        try:
            version = await self.service.register_agent(
                self.principal, self.agent, message.preferences, message.capabilities, message.metadata
            )
        except GatewayError as error:
            self.send_error(error, message.id)
        except Exception as failure:
            self.send_error(checks.internal(), message.id, cause=failure)
        else:
            self.link.write(encode(AgentRegistered(id=message.id, agent=self.agent.id, version=version)))
        finally:
            self.in_flight -= 1
            if self._draining:
                self._close_if_drained()

    def _refuse(self, refused: Refused) -> None:
        if self.state is State.CLOSED:
            return
        if refused.malformed:
            self._malformed += 1
        else:
            self._malformed = 0
        if self._malformed >= _MALFORMED_IN_A_ROW:
            self.shut(4400, "three messages in a row were not MessagePack maps")
            return
        if self.state is State.WAITING and refused.kind is not None and refused.error.code != "unknown_type":
            if refused.kind == "session.open":
                self._refused_open = True
            elif not self._refused_open:
                self._not_open(refused.message_id)
                return
        self.send_error(refused.error, refused.message_id)

    def _hold(self, data: bytes) -> None:
        """Keep a message until the session is open. A peer that sends more than this behind its `session.open` has to wait for it."""
        most = _HELD_BYTES if self.principal is not None else self.registry.settings.unauthenticated_bytes
        if len(self._held) >= self.service.limits.max_in_flight or self._held_bytes + len(data) > most:
            self._refuse_held(data)
            return
        self._held.append(data)
        self._held_bytes += len(data)

    def _refuse_held(self, data: bytes) -> None:
        try:
            message = decode(data)
        except Refused as refused:
            self._refuse(refused)
        else:
            self.send_error(checks.too_many_in_flight(self.service.limits), message.id)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _close_if_drained(self) -> None:
        if self.in_flight <= 0 and self.state is not State.OPENING:
            self.shut(1012, "the server restarts")

    def _end(self) -> None:
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self._held.clear()
        flights, self._flights = self._flights, {}
        self.in_flight = self.in_flight_inputs = 0
        for head in flights.values():
            flight: Flight | None = head
            while flight is not None:
                flight.vanish()
                flight = flight.twin
