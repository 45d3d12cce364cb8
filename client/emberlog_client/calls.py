"""Carries out one call: its requests through the window, over whatever connection there is, until each has an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from . import backoff
from .connector import Connector
from .errors import ConnectionFailed, DeadlineExceeded, RequestRefused, SpaceChanged, from_message
from .link import Exchange
from .parts import Gathered, Part, Rows, Scales
from .request import Request, part_id, split
from .results import Reason, Result, combine_cost, combine_timings, combine_usage, read_failover, read_usage
from .types import Limits
from .vectors import Array
from .window import Window
from .wire import pack

DEFAULT_DEADLINE = 60.0
"""Seconds; the contract's default, counted here from when the request has its place in the window."""

Progress = Callable[[int, int], None]


class Caller:
    """What the calls of one client share: connection, window, limits, and the ids that callers chose and are in use."""

    def __init__(self, connector: Connector, max_attempts: int) -> None:
        self.connector = connector
        self.limits = Limits()
        self.window = Window(self.limits.max_in_flight, self.limits.max_in_flight_inputs)
        self._max_attempts = max_attempts
        self._ids: dict[str, asyncio.Future[None]] = {}

    def adopt(self, limits: Limits) -> None:
        """Follow the limits that the gateway named."""
        self.limits = limits
        self.window.resize(limits.max_in_flight, limits.max_in_flight_inputs)

    async def carry(
        self, name: str, message: Callable[[], dict[str, Any]], inputs: int, deadline: float | None, part: Part | None
    ) -> dict[str, Any]:
        """One request until its outcome. `message` is built when its turn has come; `deadline` is by the loop's clock.

        Two requests of one id wait for each other, as they would at the gateway.
        """
        loop = asyncio.get_running_loop()
        while (other := self._ids.get(name)) is not None:
            await asyncio.shield(other)
        done = self._ids[name] = loop.create_future()
        exchange: Exchange | None = None
        try:
            async with asyncio.timeout_at(deadline) as limit:
                await self.window.acquire(inputs)
                try:
                    if deadline is None:
                        limit.reschedule(loop.time() + DEFAULT_DEADLINE)
                    exchange = Exchange(name, pack(message()), part)
                    return await self._persist(exchange, limit)
                finally:
                    self.window.release(inputs)
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._late(name) from None
        finally:
            if exchange is not None and exchange.link is not None:
                exchange.link.forget(exchange)
            del self._ids[name]
            done.set_result(None)

    async def _persist(self, exchange: Exchange, limit: asyncio.Timeout) -> dict[str, Any]:
        """Ask until there is an answer that asking again would not change."""
        loop = asyncio.get_running_loop()
        refusals = losses = 0
        while True:
            link = await self.connector.current()
            if exchange.receiver is not None:
                exchange.receiver.restart()
            reply = await link.ask(exchange)
            if reply is None:
                losses += 1
                if (
                    losses > 1
                ):  # the first resend goes at once; a request that kills each gateway must not do so in a loop
                    await asyncio.sleep(backoff.delay(losses - 1))
                continue
            if reply["type"] != "error":
                return reply
            if reply.get("code") == "draining":
                link.drain(0.0)
                continue
            error = from_message(reply)
            if not isinstance(error, RequestRefused) or not error.retryable or error.code == "deadline_exceeded":
                raise error
            refusals += 1
            wait = backoff.delay(refusals) if error.retry_after is None else backoff.stretched(error.retry_after)
            ends = limit.when()
            if refusals >= self._max_attempts or (ends is not None and loop.time() + wait >= ends):
                raise error
            await asyncio.sleep(wait)

    def _late(self, name: str) -> ConnectionFailed | DeadlineExceeded:
        if not self.connector.connected:
            return ConnectionFailed(f"no connection within the deadline; last: {self.connector.last_failure}")
        return DeadlineExceeded("the deadline passed before an answer came; ask again with the same id", id=name)


class Call:
    """One call of the caller's, as one request or several."""

    def __init__(self, caller: Caller, request: Request, name: str, *, stream: bool, progress: Progress | None) -> None:
        self._caller = caller
        self._request = request
        self._name = name
        self._stream = stream or progress is not None
        self._progress = progress
        self._reported = 0
        self._runs = split(request.texts, caller.limits)
        self._parts: list[Part] = []

    async def gather(self) -> Result:
        """All vectors in one array."""
        rows = Gathered(len(self._request.texts), len(self._runs), self._request.encoding)
        answers = await self.run(rows)
        rows.freeze()
        return self.result(answers, rows.vectors, rows.scales)

    async def run(self, rows: Rows) -> list[dict[str, Any]]:
        """The answers of the requests in order; their vectors went to `rows`.

        Raises what the first failing request raised, after cancelling the others.
        """
        loop = asyncio.get_running_loop()
        request = self._request
        deadline = None if request.deadline is None else loop.time() + request.deadline
        self._parts = [Part(rows, low, high - low, request.encoding, self._moved) for low, high in self._runs]
        if len(self._parts) == 1:
            return [await self._one(request, 0, deadline)]
        answers: list[dict[str, Any]] = []
        if not request.one_space:  # the first answer decides the space of the rest
            answers.append(await self._one(request, 0, deadline))
            request = request.pinned(answers[0])
        tasks = [
            loop.create_task(self._one(request, number, deadline)) for number in range(len(answers), len(self._parts))
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            answers += [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if len({answer.get("space") for answer in answers}) > 1:
            raise SpaceChanged(
                "parts of the call were answered in different vector spaces; name a model and call again"
            )
        return answers

    async def _one(self, request: Request, number: int, deadline: float | None) -> dict[str, Any]:
        part = self._parts[number]
        name = part_id(self._name, number, len(self._parts))
        low, high = self._runs[number]
        stream = (self._stream and len(request.texts) > 1) or request.streams(part.count, self._caller.limits)
        try:
            answer = await self._caller.carry(
                name, lambda: request.message(name, low, high, stream=stream), part.count, deadline, part
            )
        except RequestRefused as error:
            if low:
                _shift(error, low)
            raise
        if not request.dry_run:
            part.result(answer)
        return answer

    def _moved(self) -> None:
        if self._progress is not None:
            arrived = sum(part.arrived for part in self._parts)
            if arrived > self._reported:  # a resend starts over, progress does not
                self._reported = arrived
                self._progress(arrived, len(self._request.texts))

    def result(self, answers: list[dict[str, Any]], vectors: Array, scales: Scales | None) -> Result:
        """What the caller gets for `answers`."""
        first = answers[0]
        return Result(
            vectors=vectors,
            scales=scales,
            encoding=self._request.encoding,
            count=len(self._request.texts),
            dimensions=int(first.get("dimensions") or 0),
            model=str(first.get("model")),
            space=str(first.get("space")),
            provider=first.get("provider"),
            endpoint=first.get("endpoint"),
            ids=tuple(part_id(self._name, number, len(answers)) for number in range(len(answers))),
            events=tuple(str(answer["event"]) for answer in answers if answer.get("event") is not None),
            usage=combine_usage([read_usage(a, low) for a, (low, _) in zip(answers, self._runs, strict=True)]),
            cost=combine_cost(list(answers)),
            timings=combine_timings(list(answers)),
            replayed=all(answer.get("replayed") is True for answer in answers),
            failover=next((found for answer in answers if (found := read_failover(answer))), None),
            notices=tuple(dict.fromkeys(str(note) for answer in answers for note in answer.get("notices") or ())),
            reasons=tuple(Reason(str(r.get("model")), str(r.get("reason"))) for r in first.get("reasons") or ()),
            quota_remaining=answers[-1].get("quota_remaining"),
        )


def _shift(error: RequestRefused, by: int) -> None:
    """Let the error name the text by its index in the call, not in the request that was made of it."""
    index = error.details.get("index")
    if isinstance(index, int):
        error.details["index"] = index + by
        error.message = f"{error.message} (counted from text {by} of this call)"
