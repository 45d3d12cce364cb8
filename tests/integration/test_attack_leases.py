"""When an instance is held for dead: not because the log was away, and never twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import pytest

from adapters.memory.event_log import MemoryEventLog
from domain.ports.event_log import InstanceFenced, LogUnavailable
from gateway.instance import Reconciler
from tests.support.waiting import until


class Log(MemoryEventLog):
    """A log of which only fencing is asked; `away` makes it unreachable."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.rounds = 0

    async def fence_expired(self) -> list[UUID]:
        if self.away:
            raise LogUnavailable("away")
        self.rounds += 1
        return []


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def _nothing() -> int:
    return 0


def _make(log: Log, clock: Callable[[], float]) -> Reconciler:
    return Reconciler(log, _nothing, lease_seconds=10.0, seconds=2.0, clock=clock)


async def test_the_first_round_of_a_new_process_fences_whose_lease_ran_out() -> None:
    log = Log()
    await _make(log, Clock()).once()
    assert log.rounds == 1


async def test_after_an_outage_of_the_log_nobody_is_fenced_for_one_lease() -> None:
    log, clock = Log(), Clock()
    reconciler = _make(log, clock)
    log.away = True
    with pytest.raises(LogUnavailable):
        await reconciler.once()
    log.away = False
    for clock.now in (2.0, 6.0, 9.9):
        await reconciler.once()
        assert log.rounds == 0, f"an instance may be fenced {clock.now} s after the log came back"
    clock.now = 10.0
    await reconciler.once()
    assert log.rounds == 1


async def test_after_a_pause_of_this_process_nobody_is_fenced_for_one_lease() -> None:
    log, clock = Log(), Clock()
    reconciler = _make(log, clock)
    await reconciler.once()
    clock.now = 60.0
    await reconciler.once()
    assert log.rounds == 1
    clock.now = 70.0
    await reconciler.once()
    assert log.rounds == 2


async def test_a_reconciler_whose_own_instance_was_fenced_goes_on() -> None:
    rounds = 0

    async def fenced_at_first() -> int:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise InstanceFenced("fenced")
        return 0

    running = asyncio.create_task(Reconciler(Log(), fenced_at_first, seconds=0.01).run())
    try:
        await until(lambda: rounds > 1, what="the round after")
        assert not running.done()
    finally:
        running.cancel()
