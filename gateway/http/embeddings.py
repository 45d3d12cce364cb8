"""`POST /v1/embeddings`: OpenAI's embeddings API, field for field, on the same service as the sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from os import urandom
from typing import Annotated, Literal, TypeVar, get_args

import msgspec
import numpy as np
import pybase64
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from domain.errors import GatewayError, invalid_request
from domain.ports.provider import Text
from domain.tenancy import Principal
from gateway.errorlog import ErrorLog
from gateway.http.answers import Headers, error_answer, http_status
from gateway.http.body import not_json, read_json_body
from gateway.http.credentials import authenticate
from gateway.http.headers import header
from gateway.limits.standing import rate_headers
from gateway.trace import context_of, new_trace_id, traceparent
from gateway.wire import checks
from gateway.wire.codec import field_error, nul_error
from gateway.wire.messages import EmbeddingGenerate, EmbeddingResult, Int64, Name
from gateway.wire.service import EmbeddingService, Ticket
from gateway.wire.sessions import SessionRegistry

_T = TypeVar("_T")
Failover = Literal["same_space", "any", "none"]
Token = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
_ROWS_AT_ONCE = 64
"""Rows encoded between two turns of the loop, and per chunk of a long answer."""


class EmbeddingsRequest(msgspec.Struct):
    """The body of `POST /v1/embeddings`. `input`: a text, texts, tokens, or lists of tokens; `user` goes to the usage event."""

    input: msgspec.Raw
    model: Name | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Int64 | None = None
    user: str | None = None


class HttpReply:
    """A `Reply` that an HTTP request awaits."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[EmbeddingResult, NDArray[np.float32] | None]] = (
            asyncio.get_running_loop().create_future()
        )

    def chunk(self, offset: int, rows: NDArray[np.float32]) -> None:
        """Never asked for over HTTP."""

    def result(self, result: EmbeddingResult, rows: NDArray[np.float32] | None) -> None:
        """The answer."""
        if not self.answer.done():
            self.answer.set_result((result, rows))

    def error(self, error: GatewayError) -> None:
        """The request failed."""
        if not self.answer.done():
            self.answer.set_exception(error)


class EmbeddingsEndpoint:
    """The ASGI application of the route."""

    def __init__(self, service: EmbeddingService, registry: SessionRegistry) -> None:
        self._service = service
        self._registry = registry
        self._errors = ErrorLog("http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        caller = context_of(header(scope["headers"], b"traceparent")) or new_trace_id()
        trace = caller[:32]
        extra: Headers = [(b"traceparent", traceparent(trace).encode())]
        tenant: str | None = None
        cause: BaseException | None = None
        try:
            principal = await self._principal(scope)
            tenant = principal.tenant
            outcome = await self._embed(scope, receive, principal, caller, extra)
            if outcome is None:
                return
            result, rows, base64 = outcome
        except GatewayError as refusal:
            error = refusal
        except Exception as failure:
            error, cause = checks.internal(), failure
        else:
            await _send_result(send, result, rows, [*extra, *_result_headers(result)], base64=base64)
            return
        details = self._errors.note(error, tenant=tenant, trace=trace, cause=cause, route="/v1/embeddings")
        if error.code != "internal":
            # The header carries the trace; OpenAI's clients print the details.
            details.pop("trace", None)
        status, headers, body = error_answer(error, details, status=http_status(error))
        closing = [(b"connection", b"close")] if status == 413 or error.code == "draining" else []
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *closing, *extra]})
        await send({"type": "http.response.body", "body": body})

    async def _principal(self, scope: Scope) -> Principal:
        principal = await authenticate(scope, self._service)
        checks.may_open(principal)
        if self._registry.draining or self._service.draining:
            raise self._registry.draining_error()
        return principal

    async def _embed(
        self, scope: Scope, receive: Receive, principal: Principal, caller: str, extra: Headers
    ) -> tuple[EmbeddingResult, NDArray[np.float32] | None, bool] | None:
        """The result, its rows and whether base64 was asked for; None when the client has gone.

        What the answer says of rate limits, good or bad, is added to `extra`.
        """
        body = await read_json_body(scope, receive, self._service.limits.max_message_bytes)
        if body is None:
            return None
        request = parse(body)
        texts = parse_input(bytes(request.input))
        message = _message(scope, request, texts)
        agent = _bounded(scope, b"x-emberlog-agent", 128) or principal.default_agent
        checks.may_speak_for(principal, agent, "x-emberlog-agent")
        reply = HttpReply()
        ticket = self._service.generate(principal, agent, message, texts, reply, trace=caller)
        if not reply.answer.done() and not await _answered(reply, receive):
            _give_up(ticket, reply, known_id=header(scope["headers"], b"idempotency-key") is not None)
            return None
        extra += rate_headers(ticket.rates)
        result, rows = reply.answer.result()
        return result, rows, request.encoding_format == "base64"


def parse(body: bytes) -> EmbeddingsRequest:
    """The request of a body. Raises `invalid_message` or `invalid_request` naming the field."""
    try:
        request = msgspec.json.decode(body, type=EmbeddingsRequest)
    except msgspec.ValidationError as failure:
        raise field_error(failure, EmbeddingsRequest) from None
    except (ValueError, RecursionError) as failure:
        raise not_json(failure) from None
    error = nul_error(request)
    if error is not None:
        raise error
    return request


def parse_input(raw: bytes) -> Sequence[Text]:
    """The texts or token lists of `input`, in order. Raises `invalid_message` naming the index of what is neither."""
    start = raw[:1]
    if start == b"[":
        second = raw[1:64].lstrip()[:1]
        if second == b"[":
            return _decode_input(raw, list[list[Token]])
        if second.isdigit() or second == b"-":
            return [_decode_input(raw, list[Token])]
        texts: list[str] = _decode_input(raw, list[str])
    else:
        texts = [_decode_input(raw, str)]
    for index, text in enumerate(texts):
        if "\0" in text:
            raise GatewayError(
                "invalid_message",
                "`input` holds a NUL character, which no string may",
                details={"field": "input", "index": index},
            )
    return texts


def _decode_input(raw: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as failure:
        raise field_error(failure, EmbeddingsRequest, "input") from None
    except (ValueError, RecursionError) as failure:
        raise not_json(failure) from None


async def _answered(reply: HttpReply, receive: Receive) -> bool:
    """Wait for the answer; False when the client went away first."""
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((reply.answer, gone), return_when=asyncio.FIRST_COMPLETED)
        return reply.answer.done()
    finally:
        gone.cancel()


def _give_up(ticket: Ticket, reply: HttpReply, *, known_id: bool) -> None:
    """The client went away. Under an id of its own it may ask again; nobody knows an id that was made here."""
    reply.answer.cancel()
    if known_id:
        ticket.vanish()
    else:
        ticket.cancel()


def _message(scope: Scope, request: EmbeddingsRequest, texts: Sequence[Text]) -> EmbeddingGenerate:
    failover = _bounded(scope, b"x-emberlog-failover", 16)
    if failover is not None and failover not in get_args(Failover):
        raise invalid_request(
            f"`x-emberlog-failover`: expected one of {', '.join(get_args(Failover))}", "x-emberlog-failover"
        )
    deadline = _bounded(scope, b"x-emberlog-deadline-ms", 12)
    if deadline is not None and not (deadline.isascii() and deadline.isdigit()):
        raise invalid_request(
            "`x-emberlog-deadline-ms`: expected a whole number of milliseconds", "x-emberlog-deadline-ms"
        )
    message = EmbeddingGenerate(
        id=_bounded(scope, b"idempotency-key", 64) or "http-" + urandom(16).hex(),
        input=[t for t in texts if isinstance(t, str)],
        model=request.model,
        dimensions=request.dimensions,
        failover=failover,  # type: ignore[arg-type]  # checked above
        deadline_ms=int(deadline) if deadline is not None else None,
        thread=_bounded(scope, b"x-emberlog-thread", 128),
        metadata={"user": request.user} if request.user else None,
    )
    checks.generate(message)
    return message


def _bounded(scope: Scope, name: bytes, longest: int) -> str | None:
    """A header of 1 to `longest` characters, or None where it is absent."""
    value = header(scope["headers"], name)
    if value is None:
        return None
    if not 1 <= len(value) <= longest:
        shown = name.decode()
        raise invalid_request(f"`{shown}`: expected 1 to {longest} characters", shown)
    return value


def _result_headers(result: EmbeddingResult) -> Headers:
    failover, notices = result.failover, result.notices
    values = {
        "x-emberlog-space": result.space,
        "x-emberlog-provider": result.provider,
        "x-emberlog-endpoint": result.endpoint,
        "x-emberlog-event": result.event,
        "x-emberlog-replayed": "true" if result.replayed else "false",
        "x-emberlog-nano-usd": None if result.cost.nano_usd is None else str(result.cost.nano_usd),
        "x-emberlog-failover": None if failover is None else msgspec.json.encode(failover).decode("ascii", "ignore"),
        "x-emberlog-notices": msgspec.json.encode(notices).decode("ascii", "replace") if notices else None,
    }
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in values.items() if value is not None]


async def _send_result(
    send: Send, result: EmbeddingResult, rows: NDArray[np.float32] | None, headers: Headers, *, base64: bool
) -> None:
    start: Headers = [(b"content-type", b"application/json"), *headers]
    count = 0 if rows is None else len(rows)
    if count <= _ROWS_AT_ONCE:
        body = b"".join([part async for part in _parts(result, rows, base64=base64)])
        start.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": start})
        await send({"type": "http.response.body", "body": body})
        return
    await send({"type": "http.response.start", "status": 200, "headers": start})
    async for part in _parts(result, rows, base64=base64):
        await send({"type": "http.response.body", "body": part, "more_body": True})
        # A long answer takes as long as many short ones: let those through between its parts.
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


async def _parts(result: EmbeddingResult, rows: NDArray[np.float32] | None, *, base64: bool) -> AsyncIterator[bytes]:
    """The JSON body in parts of at most `_ROWS_AT_ONCE` vectors."""
    yield b'{"object":"list","data":['
    for start in range(0, 0 if rows is None else len(rows), _ROWS_AT_ONCE):
        assert rows is not None
        block = np.ascontiguousarray(rows[start : start + _ROWS_AT_ONCE], dtype="<f4")
        parts = []
        for index, row in enumerate(block, start):
            vector = b'"' + pybase64.b64encode(row) + b'"' if base64 else msgspec.json.encode(row.tolist())
            parts.append(b'{"object":"embedding","index":%d,"embedding":%b}' % (index, vector))
        yield (b"," if start else b"") + b",".join(parts)
    tail = {
        "model": result.model,
        "usage": {"prompt_tokens": result.usage.tokens, "total_tokens": result.usage.tokens},
    }
    yield b"]," + msgspec.json.encode(tail)[1:]
