"""A simulated OpenAI embeddings server: fast enough never to be what a measurement finds, and able to misbehave on demand.

Run it as its own process with `python -m gateway.bench.simulator --port 0`; it prints `listening on http://127.0.0.1:PORT`.

- `POST /v1/embeddings`: OpenAI's API, float and base64, `dimensions`, text and token arrays.
- `POST /control`: faults, latency, caps, holding answers back (`gateway.bench.faults.Control`).
- `GET /stats`: what has come in; `?calls=N` waits until the N-th call has arrived. `GET /texts`: the texts of recent calls.

Vectors depend on the text alone: `vector_of(text, dimensions)` gives what any caller must have received.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import uvloop

from gateway.bench import embeddings_api as api
from gateway.bench.connection import HttpConnection, Request
from gateway.bench.faults import Control, Fault, FaultKind, FaultPlan
from gateway.bench.tokens import TokenRule, token_counter
from gateway.bench.vectors import vector_of

__all__ = ["Simulator", "SimulatorOptions", "main", "vector_of"]


class SimulatorOptions(msgspec.Struct, kw_only=True):
    """How the simulated provider behaves. `key` None takes every credential; times as named."""

    host: str = "127.0.0.1"
    port: int = 0
    key: str | None = None
    latency_ms: float = 0.0
    latency_per_text_us: float = 0.0
    max_inputs: int = 2048
    max_input_tokens: int = 8192
    max_tokens: int = 300_000
    tokens: TokenRule = "cl100k"
    base64: bool = True
    models: dict[str, int] = msgspec.field(default_factory=lambda: dict(api.MODELS))
    rates: dict[FaultKind, float] = {}
    seed: int = 1


class Stats(msgspec.Struct):
    """What has come in since the start or the last reset. `recent`: the batch sizes of the last calls, oldest first, at least
    the last 10,000.
    """

    calls: int = 0
    inputs: int = 0
    tokens: int = 0
    largest: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    connections: int = 0
    open_connections: int = 0
    max_connections: int = 0
    abandoned: int = 0
    statuses: dict[int, int] = {}
    recent: list[int] = []


class Simulator:
    """The server. `await start()` gives its base URL; `close()` ends it with every connection."""

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self.options = options or SimulatorOptions()
        o = self.options
        self.limits = api.Limits(o.max_inputs, o.max_input_tokens, o.max_tokens)
        self.stats = Stats()
        self.texts: deque[list[str] | list[list[int]]] = deque(maxlen=1000)
        self.faults = FaultPlan(o.rates, o.seed)
        self.url = ""
        self._count = token_counter(o.tokens)
        self._key = None if o.key is None else b"Bearer " + o.key.encode()
        self._held: list[Callable[[], None]] | None = None
        self._waiting: list[tuple[int, HttpConnection]] = []
        self._connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its `base_url`."""
        return self.url + "/v1"

    async def start(self) -> str:
        """Listen; returns the URL."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._server = await loop.create_server(
            lambda: HttpConnection(self.handle, self.connected, self.disconnected), self.options.host, self.options.port
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        return self.url

    async def close(self) -> None:
        """Stop listening and drop every connection, answered or not. Idempotent."""
        if self._server is not None:
            self._server.close()
            for connection in list(self._connections):
                connection.abort()
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> Simulator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def connected(self, connection: HttpConnection) -> None:
        """Remember a connection that came; it is counted at its first call, so that control and statistics do not count."""
        self._connections.add(connection)

    def disconnected(self, connection: HttpConnection) -> None:
        """Count a connection that went, with the call that it had open."""
        self._connections.discard(connection)
        self.stats.open_connections -= connection.called
        if connection.in_call:
            self.stats.in_flight -= 1
            self.stats.abandoned += 1

    def handle(self, connection: HttpConnection, request: Request) -> None:
        """Answer one request, now or later."""
        if request.target.startswith(b"/v1/embeddings"):
            self._embeddings(connection, request)
            return
        target = urlsplit(request.target.decode("latin-1"))
        if target.path == "/stats":
            wanted = int(parse_qs(target.query).get("calls", ["0"])[0])
            self._waiting.append((wanted, connection))
            self._tell_waiting()
        elif target.path == "/control" and request.method == b"POST":
            self._control(connection, request.body)
        elif target.path == "/texts":
            connection.answer(api.Answer(200, msgspec.json.encode(list(self.texts))))
        elif target.path == "/v1/models":
            models = [
                {"id": name, "object": "model", "created": 0, "owned_by": "simulator"} for name in self.options.models
            ]
            connection.answer(api.Answer(200, msgspec.json.encode({"object": "list", "data": models})))
        else:
            connection.answer(api.error_answer(404, f"Invalid URL ({target.path})"))

    def control(self, control: Control) -> None:
        """Take up new orders; what `POST /control` does."""
        self.faults.apply(control)
        if control.latency_ms is not None:
            self.options.latency_ms = control.latency_ms
        if control.latency_per_text_us is not None:
            self.options.latency_per_text_us = control.latency_per_text_us
        if control.max_inputs is not None:
            self.limits.max_inputs = control.max_inputs
        if control.max_tokens is not None:
            self.limits.max_tokens = control.max_tokens
        if control.reset:
            self._reset()
        if control.hold is True and self._held is None:
            self._held = []
        elif control.hold is False and self._held is not None:
            held, self._held = self._held, None
            for answer in held:
                answer()

    def _reset(self) -> None:
        old = self.stats
        open_now = old.open_connections
        self.stats = Stats(in_flight=old.in_flight, max_in_flight=old.in_flight, connections=open_now)
        self.stats.open_connections = self.stats.max_connections = open_now
        self.texts.clear()

    def _control(self, connection: HttpConnection, body: bytes) -> None:
        try:
            control = msgspec.json.decode(body, type=Control)
        except msgspec.MsgspecError as error:
            connection.answer(api.error_answer(400, f"control: {error}"))
            return
        self.control(control)
        connection.answer(api.Answer(200, b"{}"))

    def _tell_waiting(self) -> None:
        if self._waiting:
            due = [c for wanted, c in self._waiting if self.stats.calls >= wanted]
            self._waiting = [(wanted, c) for wanted, c in self._waiting if self.stats.calls < wanted]
            for connection in due:
                connection.answer(api.Answer(200, msgspec.json.encode(self.stats)))

    def _embeddings(self, connection: HttpConnection, request: Request) -> None:
        stats = self.stats
        stats.calls += 1
        stats.bytes_in += len(request.body)
        stats.in_flight += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        connection.in_call = True
        if not connection.called:
            connection.called = True
            stats.connections += 1
            stats.open_connections += 1
            stats.max_connections = max(stats.max_connections, stats.open_connections)
        inputs = 0
        fault: Fault | None = None
        try:
            if self._key is not None and request.authorization != self._key:
                raise api.Refusal(401, "Incorrect API key provided.", code="invalid_api_key")
            parsed = api.parse(request.body)
            texts = api.texts_of(parsed, self.limits)
            inputs = len(texts)
            dimensions = api.dimensions_of(parsed, self.options.models)
            tokens = api.count_tokens(texts, self._count, self.limits)
            stats.inputs += inputs
            stats.tokens += tokens
            stats.largest = max(stats.largest, inputs)
            stats.recent.append(inputs)
            if len(stats.recent) == 20_000:
                del stats.recent[:10_000]
            self.texts.append(texts)
            fault = self.faults.take(texts)
            if fault is not None and fault.kind == "status":
                answer = api.fault_answer(fault)
            else:
                if not self.options.base64:
                    parsed.encoding_format = "float"
                answer = api.embed(parsed, texts, dimensions, tokens, fault)
        except api.Refusal as refusal:
            answer = refusal.answer
        self._tell_waiting()
        self._deliver(connection, answer, inputs, fault)

    def _deliver(self, connection: HttpConnection, answer: api.Answer, inputs: int, fault: Fault | None) -> None:
        kind = fault.kind if fault is not None else None
        if kind == "hang":
            return
        delay = self.options.latency_ms / 1e3 + inputs * self.options.latency_per_text_us / 1e6
        if fault is not None:
            delay += fault.delay_ms / 1e3

        def send() -> None:
            if self._held is not None:
                self._held.append(send)
            elif not connection.closed:
                self._finish(connection, answer, kind)

        if delay > 0:
            self._loop.call_later(delay, send)
        else:
            send()

    def _finish(self, connection: HttpConnection, answer: api.Answer, kind: FaultKind | None) -> None:
        connection.in_call = False
        self.stats.in_flight -= 1
        if kind == "drop":
            connection.abort()
        elif kind == "reset":
            connection.answer_half(answer)
        else:
            self.stats.statuses[answer.status] = self.stats.statuses.get(answer.status, 0) + 1
            self.stats.bytes_out += len(answer.body)
            connection.answer(answer)


async def serve(options: SimulatorOptions) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Simulator(options) as simulator:
        print(f"listening on {simulator.url}", flush=True)
        await stop.wait()


def _pairs(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


def options_of(arguments: list[str] | None = None) -> SimulatorOptions:
    """The options in a command line."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bench.simulator", description=__doc__)
    defaults = SimulatorOptions()
    parser.add_argument("--host", default=defaults.host)
    parser.add_argument("--port", type=int, default=defaults.port, help="0 takes a free one")
    parser.add_argument("--key", help="the only bearer token accepted")
    parser.add_argument("--latency-ms", type=float, default=defaults.latency_ms)
    parser.add_argument("--latency-per-text-us", type=float, default=defaults.latency_per_text_us)
    parser.add_argument("--max-inputs", type=int, default=defaults.max_inputs)
    parser.add_argument("--max-input-tokens", type=int, default=defaults.max_input_tokens)
    parser.add_argument("--max-tokens", type=int, default=defaults.max_tokens)
    parser.add_argument("--tokens", choices=["cl100k", "words"], default=defaults.tokens, help="how usage is counted")
    parser.add_argument("--no-base64", action="store_true", help="answer floats whatever was asked")
    parser.add_argument(
        "--model", action="append", type=_pairs, default=[], metavar="NAME=DIMENSIONS", help="one more model"
    )
    parser.add_argument(
        "--rate", action="append", type=_pairs, default=[], metavar="FAULT=P", help="a fault with probability P"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed)
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    given["base64"] = not given.pop("no_base64")
    given["models"] = api.MODELS | {name: int(size) for name, size in given.pop("model")}
    given["rates"] = dict(given.pop("rate"))
    return msgspec.convert(given, SimulatorOptions)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    uvloop.run(serve(options_of(arguments)))


if __name__ == "__main__":
    main()
