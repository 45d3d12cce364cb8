"""A simulated OpenAI embeddings server: fast enough never to be what a measurement finds, and able to misbehave on demand.

Run it as its own process with `python -m gateway.bench.simulator --port 0`; it prints `listening on http://127.0.0.1:PORT`.

- `POST /v1/embeddings`: OpenAI's API, float and base64, `dimensions`, text and token arrays. Within a process any other
  provider's API can be served instead (`gateway.bench.wire_api.WireApi`).
- `POST /control`: faults, latency, caps, holding answers back (`gateway.bench.faults.Control`).
- `GET /stats`: what has come in; `?calls=N` waits until the N-th call has arrived. `GET /texts`: the texts of recent calls.

Vectors depend on the text alone: `vector_of(text, dimensions)` gives what any caller must have received.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import uvloop

from gateway.bench.connection import Answer, HttpConnection, Request
from gateway.bench.embeddings_api import MODELS, OpenAIApi, error_answer
from gateway.bench.faults import Control, Fault, FaultKind, FaultPlan
from gateway.bench.tokens import TokenRule, token_counter
from gateway.bench.vectors import vector_of
from gateway.bench.wire_api import Asked, Limits, Refused, WireApi

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
    models: dict[str, int] = msgspec.field(default_factory=lambda: dict(MODELS))
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
    """The server. `await start()` gives its base URL; `close()` ends it with every connection. `asked` is the last call it took."""

    def __init__(self, options: SimulatorOptions | None = None, api: WireApi | None = None) -> None:
        self.options = options or SimulatorOptions()
        o = self.options
        self.api = api or OpenAIApi(o.models, base64=o.base64)
        self.limits = Limits(o.max_inputs, o.max_input_tokens, o.max_tokens)
        self.stats = Stats()
        self.asked: Asked | None = None
        self.texts: deque[Sequence[str] | Sequence[list[int]]] = deque(maxlen=1000)
        self.faults = FaultPlan(o.rates, o.seed)
        self.url = ""
        self.count = token_counter(o.tokens)
        self._key = None if o.key is None else o.key.encode()
        self._held: list[Callable[[], None]] | None = None
        self._waiting: list[tuple[int, HttpConnection]] = []
        self._watching: list[tuple[Callable[[Stats], bool], asyncio.Future[None]]] = []
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
            self._tell_waiting()

    async def until(self, holds: Callable[[Stats], bool]) -> None:
        """Returns when this holds of the statistics; for a test in the same process."""
        if not holds(self.stats):
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watching.append((holds, told))
            await told

    def handle(self, connection: HttpConnection, request: Request) -> None:
        """Answer one request, now or later."""
        if self.api.embeds(request.target):
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
            connection.answer(Answer(200, msgspec.json.encode(list(self.texts))))
        elif self._wrong_key(request):
            connection.answer(self.api.unauthorised())
        else:
            connection.answer(self.api.other(request))

    def _wrong_key(self, request: Request) -> bool:
        return self._key is not None and self.api.credential(request) != self._key

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
            connection.answer(error_answer(400, f"control: {error}"))
            return
        self.control(control)
        connection.answer(Answer(200, b"{}"))

    def _tell_waiting(self) -> None:
        if self._waiting:
            due = [c for wanted, c in self._waiting if self.stats.calls >= wanted]
            self._waiting = [(wanted, c) for wanted, c in self._waiting if self.stats.calls < wanted]
            for connection in due:
                connection.answer(Answer(200, msgspec.json.encode(self.stats)))
        for holds, told in self._watching:
            if not told.done() and holds(self.stats):
                told.set_result(None)
        self._watching = [(holds, told) for holds, told in self._watching if not told.done()]

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
            if self._wrong_key(request):
                raise Refused(self.api.unauthorised())
            asked = self.asked = self.api.read(request, self.limits, self.count)
            inputs = len(asked.texts)
            stats.inputs += inputs
            stats.tokens += sum(asked.counts)
            stats.largest = max(stats.largest, inputs)
            stats.recent.append(inputs)
            if len(stats.recent) == 20_000:
                del stats.recent[:10_000]
            self.texts.append(asked.texts)
            fault = self.faults.take(asked.texts)
            answer = self._answer(asked, fault)
        except Refused as refusal:
            answer = refusal.answer
        self._tell_waiting()
        self._deliver(connection, answer, inputs, fault)

    def _answer(self, asked: Asked, fault: Fault | None) -> Answer:
        kind = fault.kind if fault is not None else None
        if fault is not None and kind == "status":
            return self.api.fault_answer(fault)
        if kind == "html":
            return Answer(200, b"<!DOCTYPE html><html><body>Sign in to continue</body></html>", b"", b"text/html")
        answer = self.api.answer(asked, fault)
        return answer._replace(body=answer.body[: len(answer.body) // 2]) if kind == "truncated" else answer

    def _deliver(self, connection: HttpConnection, answer: Answer, inputs: int, fault: Fault | None) -> None:
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

    def _finish(self, connection: HttpConnection, answer: Answer, kind: FaultKind | None) -> None:
        if kind == "stall":
            connection.answer_half(answer)
            return
        connection.in_call = False
        self.stats.in_flight -= 1
        if kind == "drop":
            connection.abort()
        elif kind == "reset":
            connection.answer_half(answer)
            connection.reset()
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
    given["models"] = MODELS | {name: int(size) for name, size in given.pop("model")}
    given["rates"] = dict(given.pop("rate"))
    return msgspec.convert(given, SimulatorOptions)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    uvloop.run(serve(options_of(arguments)))


if __name__ == "__main__":
    main()
