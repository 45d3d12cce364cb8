"""The group-commit appender: whatever is queued goes to the log in one batch, one batch at a time, without lingering.

Nothing accepted is dropped while the process lives: when the log is out of reach the batch is kept and sent again with the same
ids until the log is back. Callbacks run on the event loop, in order, a batch in one run, while the next batch is on its way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import random
from time import perf_counter
from uuid import UUID

from domain.ports.event_log import Appended, EventLog, InstanceFenced, LogUnavailable, NewEvent

Done = Callable[[Appended | Exception], None]
"""Takes an event's outcome, or the exception (`InstanceFenced`, `AppenderClosed`) that keeps it from having one."""


class QueueFull(Exception):
    """The appender's queue is at its bound; the event was not taken. Refuse the request, or try again later."""


class AppenderClosed(Exception):
    """The appender was closed before the event's outcome was known; it may or may not be in the log."""


class Appender:
    """Appends for one instance. Made inside a running event loop.

    `max_batch` events go in one append. Refusable events are taken up to `soft_bound` queued, others up to `hard_bound`. A batch
    unanswered for `slow_seconds` counts as ill health. `on_fenced` is called once, after everything queued was failed; `on_batch`
    with the outcomes of each batch, before its callbacks.
    """

    def __init__(
        self,
        log: EventLog,
        instance: UUID,
        *,
        on_fenced: Callable[[], None] | None = None,
        on_batch: Callable[[Sequence[Appended]], None] | None = None,
        max_batch: int = 256,
        soft_bound: int = 8_192,
        hard_bound: int = 131_072,
        first_backoff: float = 0.05,
        max_backoff: float = 1.0,
        slow_seconds: float = 3.0,
    ) -> None:
        self.events = 0
        """Events answered by the log."""
        self.batches = 0
        """Batches answered by the log."""
        self.last_batch_seconds = 0.0
        """From sending the last answered batch to its answer."""
        self._log = log
        self._instance = instance
        self._on_fenced = on_fenced
        self._on_batch = on_batch
        self._max_batch = max_batch
        self._soft_bound = soft_bound
        self._hard_bound = hard_bound
        self._first_backoff = first_backoff
        self._max_backoff = max_backoff
        self._slow_seconds = slow_seconds
        self._queue: deque[tuple[NewEvent, Done]] = deque()
        self._batch: list[tuple[NewEvent, Done]] = []
        self._undelivered = 0
        self._healthy = True
        self._health_callbacks: list[Callable[[bool], None]] = []
        self._ended: Exception | None = None
        self._drained: list[asyncio.Future[None]] = []
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.Future[None] | None = None
        self._task = self._loop.create_task(self._run())

    # -- what callers use -------------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Whether the log takes appends, as far as is known."""
        return self._healthy and self._ended is None

    @property
    def queued(self) -> int:
        """Events whose outcome is not yet known."""
        return len(self._queue) + len(self._batch)

    def on_health(self, callback: Callable[[bool], None]) -> None:
        """Call `callback` with the new value whenever `healthy` changes."""
        self._health_callbacks.append(callback)

    def submit(self, event: NewEvent, done: Done, *, refusable: bool = False) -> None:
        """Queue an event; `done` is called once with its outcome, never before this returns. Raises `QueueFull`."""
        queue = self._queue
        if len(queue) >= (self._soft_bound if refusable else self._hard_bound):
            raise QueueFull(f"{len(queue)} events wait for the log")
        queue.append((event, done))
        if (wake := self._wake) is not None:
            self._wake = None
            wake.set_result(None)
        elif self._ended is not None:
            self._loop.call_soon(self._fail_queued)

    def submit_many(
        self, events: Sequence[NewEvent], done: Callable[[list[Appended | Exception]], None], *, refusable: bool = False
    ) -> None:
        """Queue several, all or none; `done` is called once with their outcomes in order. Raises `QueueFull`."""
        if len(self._queue) + len(events) > (self._soft_bound if refusable else self._hard_bound):
            raise QueueFull(f"{len(self._queue)} events wait for the log, {len(events)} more are too many")
        outcomes: list[Appended | Exception] = []
        if not events:
            self._loop.call_soon(done, outcomes)

        def collect(outcome: Appended | Exception) -> None:
            outcomes.append(outcome)
            if len(outcomes) == len(events):
                done(outcomes)

        for event in events:
            self.submit(event, collect)

    async def append(self, event: NewEvent) -> Appended:
        """Queue an event and wait for its outcome. Raises what `Done` may be given. Cancelling does not unsend the event."""
        future: asyncio.Future[Appended] = self._loop.create_future()

        def done(outcome: Appended | Exception) -> None:
            if future.done():
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.submit(event, done)
        return await future

    async def drain(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until nothing is queued and every callback has run; whether that was reached."""
        if not self.queued and not self._undelivered:
            return True
        drained = self._loop.create_future()
        self._drained.append(drained)
        done, _ = await asyncio.wait([drained], timeout=timeout)
        return bool(done)

    async def close(self, timeout: float = 5.0) -> None:
        """Drain for at most `timeout` seconds (not at all while the log is out of reach), then fail what is left. Idempotent."""
        if self.healthy:
            await self.drain(timeout)
        self._end(AppenderClosed("the appender was closed"))
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    # -- the one task -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while self._ended is None:
            queue, batch = self._queue, self._batch
            if not queue:
                self._wake = self._loop.create_future()
                await self._wake
                continue
            batch.extend([queue.popleft() for _ in range(min(len(queue), self._max_batch))])
            try:
                outcomes = await self._send_apart([event for event, _ in batch])
            except InstanceFenced as error:
                self._end(error)
                return
            self._batch = []
            self._undelivered += len(batch)
            self._loop.call_soon(self._deliver, batch, outcomes)

    async def _send_apart(self, events: list[NewEvent]) -> Sequence[Appended | Exception]:
        """Send; what fails for a reason that no retry helps is halved until it stands alone, and only its sender is told."""
        try:
            return await self._send(events)
        except InstanceFenced:
            raise
        except Exception as error:
            if len(events) == 1:
                self._report(error)
                return [error]
        half = len(events) // 2
        return [*await self._send_apart(events[:half]), *await self._send_apart(events[half:])]

    async def _send(self, events: list[NewEvent]) -> list[Appended]:
        backoff = self._first_backoff
        while True:
            started = perf_counter()
            slow = self._loop.call_later(self._slow_seconds, self._set_healthy, False)
            try:
                outcomes = await self._log.append(self._instance, events)
            except LogUnavailable:
                self._set_healthy(False)
                await asyncio.sleep(backoff * (0.5 + random() / 2))
                backoff = min(backoff * 2, self._max_backoff)
                continue
            finally:
                slow.cancel()
            self.last_batch_seconds = perf_counter() - started
            self.batches += 1
            self.events += len(events)
            self._set_healthy(True)
            if self._on_batch is not None:
                self._guarded(self._on_batch, outcomes)
            return outcomes

    def _deliver(self, batch: list[tuple[NewEvent, Done]], outcomes: Sequence[Appended | Exception]) -> None:
        self._undelivered -= len(batch)
        for (_, done), outcome in zip(batch, outcomes, strict=True):
            try:
                done(outcome)
            except Exception as error:
                self._report(error)
        if not self.queued and not self._undelivered:
            for drained in self._drained:
                if not drained.done():
                    drained.set_result(None)
            self._drained.clear()

    def _end(self, error: Exception) -> None:
        if self._ended is not None:
            return
        was_healthy = self.healthy
        self._ended = error
        self._wake = None
        self._fail_queued()
        if was_healthy:
            self._tell_health(False)
        if isinstance(error, InstanceFenced) and self._on_fenced is not None:
            self._loop.call_soon(self._guarded_fenced)

    def _fail_queued(self) -> None:
        assert self._ended is not None
        left = self._batch + list(self._queue)
        self._batch = []
        self._queue.clear()
        self._undelivered += len(left)
        self._loop.call_soon(self._deliver, left, [self._ended] * len(left))

    def _guarded_fenced(self) -> None:
        assert self._on_fenced is not None
        try:
            self._on_fenced()
        except Exception as error:
            self._report(error)

    def _guarded(self, callback: Callable[[Sequence[Appended]], None], outcomes: Sequence[Appended]) -> None:
        try:
            callback(outcomes)
        except Exception as error:
            self._report(error)

    def _set_healthy(self, healthy: bool) -> None:
        if healthy is not self._healthy:
            self._healthy = healthy
            self._tell_health(healthy)

    def _tell_health(self, healthy: bool) -> None:
        for callback in self._health_callbacks:
            try:
                callback(healthy)
            except Exception as error:
                self._report(error)

    def _report(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "a callback of the appender failed", "exception": error})
