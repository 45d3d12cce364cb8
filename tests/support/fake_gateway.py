"""A gateway for tests of the client: the wire contract over real sockets, vectors from a hash, faults on request.

Its answers are computed with `struct` and plain Python, so that they check the client's numpy. It keeps the idempotency
rules: the same id again is the same outcome, `replayed`, and one bill.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Self

import msgpack
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

SUBPROTOCOL = "emberlog.v1.msgpack"
KEY = "fake-key"
LIMITS = {
    "max_message_bytes": 16 * 1024 * 1024,
    "max_inputs": 10_000,
    "max_input_chars": 200_000,
    "max_in_flight": 256,
    "max_in_flight_inputs": 20_000,
    "idempotency_seconds": 86_400,
}

Message = dict[str, Any]


def vector(text: str, dimensions: int, model: str = "fake-model") -> list[float]:
    """The vector of a text: numbers in [-1, 1) that a float16 holds exactly."""
    digest = hashlib.shake_128(f"{model}\0{text}".encode()).digest(dimensions)
    return [(byte - 128) / 128 for byte in digest]


def encode(vectors: list[list[float]], encoding: str) -> tuple[bytes, bytes | None]:
    """Rows as the contract lays them out, and the scales of int8."""
    if encoding == "float32":
        return b"".join(struct.pack(f"<{len(row)}f", *row) for row in vectors), None
    if encoding == "float16":
        return b"".join(struct.pack(f"<{len(row)}e", *row) for row in vectors), None
    if encoding == "int8":
        scales = [max(abs(value) for value in row) / 127 or 1.0 for row in vectors]
        rows = [
            struct.pack(f"<{len(row)}b", *(round(value / scale) for value in row))
            for row, scale in zip(vectors, scales, strict=True)
        ]
        return b"".join(rows), struct.pack(f"<{len(scales)}f", *scales)
    rows = []
    for row in vectors:
        bits = "".join("1" if value > 0 else "0" for value in row)
        rows.append(int(bits.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big"))
    return b"".join(rows), None


class Peer:
    """One connected client."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.draining = False
        self.in_flight: dict[str, asyncio.Task[None]] = {}
        self.inputs = 0

    async def send(self, message: Message) -> None:
        """One message; nothing if the client is gone."""
        with contextlib.suppress(ConnectionClosed):  # the client left, as in the tests that make it leave
            await self.socket.send(msgpack.packb(message))

    async def refuse(self, request: Message, code: str, *, retryable: bool = False, **more: Any) -> None:
        """An `error` for a request."""
        message = {"type": "error", "id": request["id"], "code": code, "message": f"refused with {code}"}
        await self.send({**message, "retryable": retryable, **more})

    def cut(self) -> None:
        """Drop the TCP connection without a close frame."""
        self.socket.transport.abort()


Behaviour = Callable[[Peer, Message], Awaitable[None]]


class FakeGateway:
    """Starts on a free port of the loopback. Replace `behaviour` to answer `embedding.generate` otherwise than well."""

    def __init__(self, *, dimensions: int = 12, chunk_texts: int = 4, limits: dict[str, int] | None = None) -> None:
        self.dimensions = dimensions
        self.chunk_texts = chunk_texts
        self.limits = {**LIMITS, **(limits or {})}
        self.keys = {KEY}
        self.model = "fake-model"
        self.behaviour: Behaviour = self.answer
        self.refusals: list[tuple[int, Message, dict[str, str]]] = []
        """Answers to the next upgrades: status, the body's `error`, headers."""
        self.open_with: Behaviour = self.open
        self.received: list[tuple[Peer, Message]] = []
        self.peers: list[Peer] = []
        self.outcomes: dict[str, Message] = {}
        self.bills: Counter[str] = Counter()
        self.most_in_flight = 0
        self.most_inputs = 0
        self.port = 0
        self._server: Server | None = None
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Listen, on the port of before if there was one."""
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            process_request=self._admit,
            compression=None,
            max_size=self.limits["max_message_bytes"],
            close_timeout=1,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def kill(self) -> None:
        """Vanish as with SIGKILL: no close frames, no listener."""
        if self._server is None:
            return
        for peer in self.peers:
            peer.cut()
        self._server.close(close_connections=True)
        await self._server.wait_closed()
        self._server = None

    async def drain(self, reconnect_after_ms: int = 1) -> list[Peer]:
        """Tell everyone connected that this process ends; who connects from now on meets the next one."""
        leaving = [peer for peer in self.peers if not peer.draining]
        for peer in leaving:
            peer.draining = True
            await peer.send({"type": "server.draining", "reconnect_after_ms": reconnect_after_ms})
        return leaving

    def messages(self, kind: str) -> list[Message]:
        """What was received of one type, in order."""
        return [message for _, message in self.received if message.get("type") == kind]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something received makes the condition true."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def open(self, peer: Peer, message: Message) -> None:
        """Answer `session.open` well."""
        agent = message["agent"]["id"]
        server = {"name": "fake", "version": "1"}
        opened = {"type": "session.opened", "id": message["id"], "session": f"s{len(self.peers)}", "tenant": "acme"}
        await peer.send({**opened, "agent": agent, "server": server, "limits": self.limits})

    async def answer(self, peer: Peer, request: Message) -> None:
        """Answer `embedding.generate` well: a result, streamed if asked, replayed if the id is known."""
        outcome = self.outcomes.get(request["id"])
        texts: list[str] = request["input"]
        dimensions = request.get("dimensions") or self.dimensions
        model = request.get("model") or self.model
        vectors = [vector(text, dimensions, model) for text in texts]
        encoding = request.get("encoding", "float32")
        if request.get("stream"):
            for offset in range(0, len(texts), self.chunk_texts):
                await self.chunk(peer, request, offset, vectors[offset : offset + self.chunk_texts])
        if outcome is None:
            outcome = self.outcome(request, model, dimensions)
            if not request.get("dry_run"):
                self.outcomes[request["id"]] = {**outcome, "replayed": True}
                self.bills[request["id"]] += 1
        message = dict(outcome)
        if not request.get("stream") and not request.get("dry_run"):
            data, scales = encode(vectors, encoding)
            message["vectors"] = data
            if scales is not None:
                message["scales"] = scales
        await peer.send(message)

    def outcome(self, request: Message, model: str, dimensions: int) -> Message:
        """The `embedding.result` of a request, without vectors."""
        texts: list[str] = request["input"]
        tokens = sum(len(text) for text in texts)
        message: Message = {
            "type": "embedding.result",
            "id": request["id"],
            "event": f"event-{request['id']}",
            "model": model,
            "provider": "fake",
            "endpoint": "fake-main",
            "space": f"{model}@1/{dimensions}/unit",
            "dimensions": dimensions,
            "encoding": request.get("encoding", "float32"),
            "count": len(texts),
            "usage": {
                "tokens": tokens,
                "billed_tokens": tokens,
                "cached_inputs": 0,
                "truncated": [i for i, t in enumerate(texts) if t.startswith("long")],
                "estimated": False,
            },
            "cost": {"nano_usd": 2 * tokens, "price": "price-1"},
            "failover": None,
            "timings": {"queue_ms": 1.0, "provider_ms": 2.0, "total_ms": 3.5},
            "replayed": False,
        }
        if request.get("dry_run"):
            message.update(event=None, reasons=[{"model": "other", "reason": "too dear"}])
        return message

    async def chunk(self, peer: Peer, request: Message, offset: int, vectors: list[list[float]]) -> None:
        """Send an `embedding.chunk`."""
        data, scales = encode(vectors, request.get("encoding", "float32"))
        message = {"type": "embedding.chunk", "id": request["id"], "offset": offset, "count": len(vectors)}
        await peer.send({**message, "vectors": data} | ({} if scales is None else {"scales": scales}))

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.refusals:
            status, error, headers = self.refusals.pop(0)
            return _refusal(status, error, headers)
        if request.path != "/v1/agent":
            return _refusal(404, {"code": "not_found", "message": "no such path"}, {})
        if request.headers.get("Sec-WebSocket-Protocol") != SUBPROTOCOL:
            return _refusal(400, {"code": "invalid_request", "message": "subprotocol missing"}, {})
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.keys:
            return _refusal(401, {"code": "unauthorized", "message": "this key is not known; create another"}, {})
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        peer = Peer(socket)
        self.peers.append(peer)
        try:
            async for frame in socket:
                message: Message = msgpack.unpackb(frame)
                self.received.append((peer, message))
                await self._dispatch(peer, message)
                async with self._changed:
                    self._changed.notify_all()
        except ConnectionClosed:
            pass  # cut, or the client went without a close frame
        finally:
            for task in peer.in_flight.values():
                task.cancel()
            self.peers.remove(peer)
            async with self._changed:
                self._changed.notify_all()

    async def _dispatch(self, peer: Peer, message: Message) -> None:
        kind, name = message["type"], message["id"]
        if kind == "session.open":
            await self.open_with(peer, message)
        elif kind == "request.cancel":
            task = peer.in_flight.pop(name, None)
            if task is not None:
                task.cancel()
                await peer.refuse(message, "cancelled")
        elif kind == "agent.register":
            answer = {"type": "agent.registered", "id": name, "agent": "me", "version": 3}
            await peer.send(answer)
        elif peer.draining:
            await peer.refuse(message, "draining", retryable=True)
        else:
            peer.in_flight[name] = asyncio.create_task(self._work(peer, message))
            peer.inputs += len(message["input"])
            self.most_in_flight = max(self.most_in_flight, len(peer.in_flight))
            self.most_inputs = max(self.most_inputs, peer.inputs)

    async def _work(self, peer: Peer, message: Message) -> None:
        name = message["id"]
        try:
            await self.behaviour(peer, message)
        finally:
            peer.inputs -= len(message["input"])
            if peer.in_flight.get(name) is asyncio.current_task():
                del peer.in_flight[name]


def _refusal(status: int, error: Message, headers: dict[str, str]) -> Response:
    body = json.dumps({"error": error}).encode()
    fields = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), **headers})
    return Response(status, "Refused", fields, body)
