"""The client: `async with Client(url, key) as c: result = await c.generate(texts)`."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack
from uuid import uuid4

import numpy as np

from .calls import Call, Caller, Progress
from .connector import Connector
from .errors import ConnectionFailed, InvalidRequest, ProtocolViolation
from .link import SESSION_ID, Address
from .parts import Given
from .request import MAX_ID, Request, check_texts
from .results import Chunk, Estimate, Result
from .streams import EmbeddingStream
from .types import (
    CacheMode,
    Encoding,
    FailoverMode,
    InputType,
    Limits,
    Optimize,
    Preferences,
    Registration,
    Session,
    Store,
    Truncate,
)
from .vectors import DTYPES
from .wire import socket_url


class Options(TypedDict, total=False):
    """The keyword arguments that `generate`, `stream` and `estimate` share; `Client.generate` explains each."""

    model: str | None
    dimensions: int | None
    input_type: InputType | None
    task: str | None
    encoding: Encoding
    failover: FailoverMode | None
    optimize: Optimize | None
    truncate: Truncate | None
    deadline: float | None
    thread: str | None
    cache: CacheMode | None
    metadata: Mapping[str, str] | None
    store: Store | None


class Client:
    """A connection to an Emberlog gateway that stays: it reconnects and resends by itself.

    Any number of calls may run at once; they share one socket, and wait here rather than pass the gateway's limits.
    A client belongs to one event loop. Without `async with`, the first call connects, and `close` must be called.

    Args:
        url: `http(s)://host:port` or `ws(s)://...`, with or without `/v1/agent`.
        key: An API key or a JWT with the scope `agent`.
        agent: Who is asking, for selection, limits and usage (an identifier, not free text).
        agent_name: The agent's name for people.
        agent_version: The agent's version.
        preferences: How models are chosen for this agent; sent at every connect.
        connect_timeout: Seconds in which `async with` must have opened the session. Later reconnects are bounded by the
            deadline of each call instead.
        max_attempts: How often a request is sent before a retryable refusal is raised. Lost connections do not count.
        max_message_bytes: The largest message taken from the gateway.
        ssl: A TLS context, for a private certificate authority or client certificates.
        proxy: As in `websockets`: True takes the environment's, None none, a string that one.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        agent: str = "default",
        agent_name: str | None = None,
        agent_version: str | None = None,
        preferences: Preferences | None = None,
        connect_timeout: float = 10.0,
        max_attempts: int = 5,
        max_message_bytes: int = 64 * 1024 * 1024,
        ssl: tls.SSLContext | None = None,
        proxy: str | Literal[True] | None = True,
    ) -> None:
        who = {"id": agent, "name": agent_name, "version": agent_version}
        opening: dict[str, Any] = {
            "type": "session.open",
            "id": SESSION_ID,
            "agent": {name: value for name, value in who.items() if value is not None},
        }
        if preferences is not None:
            opening["preferences"] = preferences.to_wire()
        self._url = socket_url(url)
        self._connect_timeout = connect_timeout
        self._connector = Connector(
            Address(self._url, key, opening, max_message_bytes, connect_timeout, ssl, proxy), self._opened
        )
        self._caller = Caller(self._connector, max_attempts)
        self._session: Session | None = None

    def __repr__(self) -> str:
        return f"<Client {self._url}>"

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self) -> Session:
        """Open the session and wait for it. Raises `Unauthorized` at once, `ConnectionFailed` after `connect_timeout`."""
        try:
            async with asyncio.timeout(self._connect_timeout) as limit:
                while True:
                    link = await self._connector.current()
                    session = await asyncio.shield(link.opened)
                    if session is not None:
                        return session
                    if link.fatal is not None:
                        raise link.fatal
        except TimeoutError:
            if not limit.expired():
                raise
            raise ConnectionFailed(
                f"no session at {self._url} within {self._connect_timeout:g} s; last: {self._connector.last_failure}"
            ) from None

    async def close(self) -> None:
        """Close the connection. Calls in flight fail with `ConnectionFailed`."""
        await self._connector.close()

    @property
    def session(self) -> Session:
        """The session opened last. Raises `RuntimeError` before the first; `connect` waits for it."""
        if self._session is None:
            raise RuntimeError("no session yet; use `async with Client(...)` or await `connect()`")
        return self._session

    @property
    def limits(self) -> Limits:
        """What the gateway allows a connection; the contract's defaults until it has said so."""
        return self._caller.limits

    async def generate(
        self,
        texts: str | Sequence[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        input_type: InputType | None = None,
        task: str | None = None,
        encoding: Encoding = "float32",
        failover: FailoverMode | None = None,
        optimize: Optimize | None = None,
        truncate: Truncate | None = None,
        deadline: float | None = None,
        thread: str | None = None,
        cache: CacheMode | None = None,
        metadata: Mapping[str, str] | None = None,
        store: Store | None = None,
        dry_run: bool = False,
        id: str | None = None,  # noqa: A002 - the contract's name
        progress: Progress | None = None,
    ) -> Result:
        """The vectors of `texts`, one row each, in the order given. A None leaves the choice to the gateway.

        More texts than one request may hold are sent as several, pipelined, and answered as one. Unless the model is
        named and `failover` is `same_space` or `none`, the first request is answered before the others go, so that all
        of them are in one space.

        Args:
            texts: One text or many; none may be empty.
            model: A catalogue model id or alias. Absent, the agent's and tenant's preferences choose.
            dimensions: One that the model supports.
            input_type: What the vectors are for; providers differ in what they make of it.
            task: A task name of the agent's `task_models`.
            encoding: How vectors travel and arrive; see `Encoding` and `Result.float32`.
            failover: `same_space` (the usual default), `any` other model, or `none`.
            optimize: Overrides the agent's strategy.
            truncate: `error` (default) or `end` for texts beyond the model's length; `usage.truncated` names the cut ones.
            deadline: Seconds for the whole call, reconnects and retries included. Absent, 60 s for each request of it.
            thread: A conversation or job id, for limits and usage.
            cache: `use` (default), `refresh` or `off`.
            metadata: At most 2 KiB of strings, carried to the usage event.
            store: Keep the vectors in a collection for search.
            dry_run: Choose and estimate only; the result has no vectors and costs nothing. See `estimate`.
            id: The idempotency key, 1-64 characters. The same id and arguments again give the same outcome and one bill.
            progress: Called with (texts done, texts in all) as vectors arrive.

        Raises:
            RequestRefused: The gateway said no; its subclasses say how.
            ConnectionFailed: No connection within the deadline.
            Unauthorized: The key was refused.
        """
        request = _request(
            texts,
            model=model,
            dimensions=dimensions,
            input_type=input_type,
            task=task,
            encoding=encoding,
            failover=failover,
            optimize=optimize,
            truncate=truncate,
            deadline=deadline,
            thread=thread,
            cache=cache,
            metadata=metadata,
            store=store,
        )
        if dry_run:
            request = request.as_dry_run()
        return await Call(self._caller, request, _name(id), stream=False, progress=progress).gather()

    def stream(
        self,
        texts: str | Sequence[str],
        *,
        id: str | None = None,  # noqa: A002 - the contract's name
        progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> EmbeddingStream:
        """The vectors as they come: `async for chunk in c.stream(texts)`. Arguments and errors as in `generate`.

        A slow reader keeps the chunks in memory; the other calls on the connection do not wait for it.
        """
        request = _request(texts, **options)
        name = _name(id)

        async def run(give: Callable[[Chunk], None]) -> Result:
            call = Call(self._caller, request, name, stream=True, progress=progress)
            rows = Given(len(request.texts), request.encoding, give)
            answers = await call.run(rows)
            scales = np.empty(0, dtype=np.float32) if request.encoding == "int8" else None
            return call.result(answers, np.empty((0, rows.width), dtype=DTYPES[request.encoding]), scales)

        return EmbeddingStream(run)

    async def estimate(self, texts: str | Sequence[str], **options: Unpack[Options]) -> Estimate:
        """What `generate` would choose and cost, without calling a provider and without a bill."""
        request = _request(texts, **options).as_dry_run()
        result = await Call(self._caller, request, _name(None), stream=False, progress=None).gather()
        return Estimate(result.model, result.space, result.usage.tokens, result.cost.nano_usd, result.reasons)

    async def register(
        self,
        preferences: Preferences,
        *,
        capabilities: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        deadline: float = 60.0,
    ) -> Registration:
        """Store how models are chosen for this agent. The gateway keeps it as an event; later sessions need not repeat it."""
        name = uuid4().hex
        message: dict[str, Any] = {"type": "agent.register", "id": name, "preferences": preferences.to_wire()}
        if capabilities is not None:
            message["capabilities"] = list(capabilities)
        if metadata is not None:
            message["metadata"] = dict(metadata)
        ends = asyncio.get_running_loop().time() + deadline
        answer = await self._caller.carry(name, lambda: message, 0, ends, None)
        version = answer.get("version")
        if not isinstance(version, int):
            raise ProtocolViolation("the gateway acknowledged a registration without its version")
        return Registration(str(answer.get("agent")), version)

    def _opened(self, session: Session) -> None:
        self._session = session
        self._caller.adopt(session.limits)


def _request(texts: str | Sequence[str], **options: Unpack[Options]) -> Request:
    given = [texts] if isinstance(texts, str) else list(texts)
    check_texts(given)
    encoding = options.get("encoding", "float32")
    if encoding not in DTYPES:
        raise InvalidRequest(
            f"encoding {encoding!r} is unknown; choose one of {', '.join(DTYPES)}",
            code="invalid_request",
            details={"field": "encoding"},
        )
    store = options.get("store")
    if store is not None and (
        len(store.ids) != len(given) or (store.metadata is not None and len(store.metadata) != len(given))
    ):
        raise InvalidRequest(
            f"`store` needs one id (and one metadata map, if any) for each of {len(given)} texts",
            code="invalid_request",
            details={"field": "store.ids"},
        )
    return Request(given, **options)


def _name(given: str | None) -> str:
    if given is None:
        return uuid4().hex
    if not 1 <= len(given) <= MAX_ID or given == SESSION_ID:
        raise InvalidRequest(
            f"`id` must have 1 to {MAX_ID} characters, not {len(given)}",
            code="invalid_request",
            details={"field": "id"},
        )
    return given
