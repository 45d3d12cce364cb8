"""The load generator: many agents in one process, closed loop or at an offered rate, checking what they receive.

Run it as its own process: `python -m gateway.bench.load --url http://127.0.0.1:8080 --key ... --agents 64 --seconds 10`. It writes JSON
lines: `{"phase": "ready"}` once every session is open (with `--wait` it then waits for a line on stdin), `measuring` when the warm-up
is over, `measured` when the time is, and `result` with a `LoadResult` at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import uvloop

from gateway.bench.agent import Agent, Message, Timings
from gateway.bench.latency import Latency
from gateway.bench.texts import TextSource
from gateway.bench.vectors import vector_of

DRAIN_SECONDS = 30.0


class LoadOptions(msgspec.Struct, kw_only=True):
    """What to offer. `rate` None is the closed loop: every agent keeps `pipeline` requests open; else requests a second in all.

    `repeat` is the share of texts taken from a small pool, so that caches have something to find. `verify_every`: every so many
    answers all vectors are compared with what the simulator must have given (0: never).
    """

    url: str
    key: str
    agents: int = 64
    pipeline: int = 1
    rate: float | None = None
    texts: int = 1
    chars: int = 130
    repeat: float = 0.0
    model: str | None = "text-embedding-3-small"
    dimensions: int = 1536
    warmup: float = 2.0
    seconds: float = 10.0
    verify_every: int = 64
    seed: int = 1


class LoadResult(msgspec.Struct):
    """What came of it: `requests` were answered within the measured time, `answered` in all, warm-up and end included.

    `timings` are the means of what the gateway said of them. `wrong` counts answers that were not what was asked; `verified` those whose vectors were compared number by number.

    In an open loop latency runs from the moment a request was due, so that a gateway that falls behind cannot hide it.
    """

    requests: int
    answered: int
    texts: int
    seconds: float
    errors: dict[str, int]
    wrong: int
    verified: int
    unanswered: int
    cpu_seconds: float
    latency: Latency
    timings: Timings

    @property
    def rate(self) -> float:
        """Requests answered a second."""
        return self.requests / self.seconds


class _Generate(msgspec.Struct, tag="embedding.generate", omit_defaults=True, gc=False):
    id: str
    input: str | list[str]
    model: str | None = None
    dimensions: int | None = None


_encode = msgspec.msgpack.Encoder().encode


class Load:
    """One run. `notify` is told the phases: ready, measuring, measured."""

    def __init__(self, options: LoadOptions, notify: Callable[[str], None] = lambda phase: None) -> None:
        self.options = options
        self._notify = notify
        self._texts = TextSource(options.chars, options.repeat, options.seed)
        self._run = os.urandom(4).hex()
        self._serial = itertools.count()
        self._turn = itertools.count()
        self._due = 0.0
        self._agents: list[Agent] = []
        self._open: dict[str, tuple[float, list[str] | None]] = {}
        self._times = array("d")
        self._said = Timings()
        self._errors: dict[str, int] = {}
        self._row_bytes = options.texts * options.dimensions * 4
        self._answered = self._wrong = self._verified = 0
        self._sending = self._measuring = False
        self._drained = asyncio.Event()
        self._ready = asyncio.Event()
        self._refused: str | None = None

    async def run(self, wait: Callable[[], Any] | None = None) -> LoadResult:
        """Connect, warm up, measure, drain. `wait` (a coroutine function) is awaited between being ready and the first request.

        Raises `ConnectionError` when not one agent could open a session.
        """
        loop = asyncio.get_running_loop()
        self._loop = loop
        await self._connect()
        self._notify("ready")
        if wait is not None:
            await wait()
        self._sending = True
        if self.options.rate is None:
            for agent in list(self._agents):
                for _ in range(self.options.pipeline):
                    self._send(agent, time.perf_counter())
        else:
            self._due = time.perf_counter()
            self._tick()
        await asyncio.sleep(self.options.warmup)
        self._measuring = True
        self._notify("measuring")
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(self.options.seconds)
        self._measuring = self._sending = False
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        self._notify("measured")
        await self._drain()
        requests = len(self._times)
        latency = Latency.of(np.frombuffer(self._times, dtype=np.float64))
        return LoadResult(
            requests=requests,
            answered=self._answered,
            texts=requests * self.options.texts,
            seconds=seconds,
            errors=self._errors,
            wrong=self._wrong,
            verified=self._verified,
            unanswered=len(self._open),
            cpu_seconds=cpu,
            latency=latency,
            timings=Timings(*(total / max(requests, 1) for total in msgspec.structs.astuple(self._said))),
        )

    def opened(self, agent: Agent) -> None:
        """Part of `Handler`."""
        self._agents.append(agent)
        if len(self._agents) == self.options.agents:
            self._ready.set()

    def received(self, agent: Agent, message: Message) -> None:
        """Part of `Handler`."""
        now = time.perf_counter()
        asked = self._open.pop(message.id, None)
        if asked is None:
            # Also an error without an id, which names no request of ours.
            self._count(f"unasked {message.type} {message.code}".rstrip())
            return
        due, texts = asked
        if message.type != "embedding.result":
            self._count(message.code or message.type)
            self._loop.call_later(0.01, self._again, agent)
            return
        if self._right(message, texts):
            self._answered += 1
            if self._measuring:
                self._times.append(now - due)
                if (told := message.timings) is not None:
                    said = self._said
                    said.queue_ms += told.queue_ms
                    said.provider_ms += told.provider_ms
                    said.total_ms += told.total_ms
        else:
            self._wrong += 1
        self._again(agent)

    def lost(self, agent: Agent, reason: str) -> None:
        """Part of `Handler`."""
        self._refused = reason
        if agent in self._agents:
            self._agents.remove(agent)
        self._count(reason)
        if not self._agents:
            self._ready.set()

    async def _connect(self) -> None:
        target = urlsplit(self.options.url)
        host, port = target.hostname or "127.0.0.1", target.port or 80
        for number in range(self.options.agents):
            await self._loop.create_connection(
                lambda n=number: Agent(self, f"{host}:{port}", self.options.key, f"bench-{n}"),  # type: ignore[misc]  # mypy cannot type a lambda's default
                host,
                port,
            )
        async with asyncio.timeout(30):
            await self._ready.wait()
        if not self._agents:
            raise ConnectionError(f"no session could be opened at {self.options.url}: {self._refused}")

    async def _drain(self) -> None:
        if self._open and self._agents:
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._drained.wait()
            except TimeoutError:
                pass
        for agent in self._agents:
            agent.close()

    def _again(self, agent: Agent) -> None:
        if self._sending:
            if self.options.rate is None and agent in self._agents:
                self._send(agent, time.perf_counter())
        elif not self._open:
            self._drained.set()

    def _tick(self) -> None:
        """Send what is due by now at the offered rate, spread over the agents."""
        assert self.options.rate is not None
        if not self._sending or not self._agents:
            return
        step, now = 1.0 / self.options.rate, time.perf_counter()
        while self._due <= now:
            self._send(self._agents[next(self._turn) % len(self._agents)], self._due)
            self._due += step
        self._loop.call_later(0.001, self._tick)

    def _send(self, agent: Agent, due: float) -> None:
        options = self.options
        number = next(self._serial)
        request_id = f"{self._run}-{number}"
        texts = self._texts.take(options.texts)
        keep = texts if options.verify_every and number % options.verify_every == 0 else None
        self._open[request_id] = (due, keep)
        given = texts[0] if options.texts == 1 else texts
        asked = options.dimensions if options.dimensions != 1536 else None
        agent.send(_encode(_Generate(request_id, given, options.model, asked)))

    def _right(self, message: Message, texts: list[str] | None) -> bool:
        options, vectors = self.options, message.vectors
        if vectors is None or len(vectors) != self._row_bytes or message.count != options.texts:
            return False
        if texts is None:
            return True
        self._verified += 1
        rows = np.frombuffer(vectors, dtype="<f4").reshape(options.texts, options.dimensions)
        return all(
            np.array_equal(row, vector_of(text, options.dimensions)) for row, text in zip(rows, texts, strict=True)
        )

    def _count(self, what: str) -> None:
        self._errors[what] = self._errors.get(what, 0) + 1


def _tell(phase: str, **more: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode({"phase": phase, **more}) + b"\n")
    sys.stdout.buffer.flush()


async def _main(options: LoadOptions, wait: bool) -> None:
    async def line() -> None:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

    result = await Load(options, _tell).run(line if wait else None)
    _tell("result", result=result)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bench.load", description=__doc__)
    parser.add_argument("--wait", action="store_true", help="wait for a line on stdin before the first request")
    parser.add_argument("--options", help="all options as one JSON object, instead of the others")
    for field in msgspec.structs.fields(LoadOptions):
        given = {int: int, float: float}.get(field.type) or (float if field.name == "rate" else str)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=given, default=argparse.SUPPRESS)
    given_options: dict[str, Any] = vars(parser.parse_args(arguments))
    wait, blob = given_options.pop("wait"), given_options.pop("options")
    decoded = msgspec.json.decode(blob, type=LoadOptions) if blob else msgspec.convert(given_options, LoadOptions)
    uvloop.run(_main(decoded, wait))


if __name__ == "__main__":
    main()
