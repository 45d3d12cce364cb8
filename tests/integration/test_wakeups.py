"""Wake-ups: coalesced, heard by every process, and listening again after the line was cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from adapters.postgres.wakeups import CHANNEL, Wakeups
from tests.support.databases import with_user
from tests.support.proxy import CuttingProxy


class Ears:
    """Counts calls, and lets a test wait for the next."""

    def __init__(self) -> None:
        self.calls = 0
        self._called = asyncio.Event()

    def __call__(self) -> None:
        self.calls += 1
        self._called.set()

    async def next(self) -> None:
        self._called.clear()
        await asyncio.wait_for(self._called.wait(), 10)


async def started(dsn: str) -> tuple[Wakeups, Ears]:
    wakeups, ears = Wakeups(dsn), Ears()
    wakeups.on_wake(ears)
    await wakeups.start()
    await asyncio.wait_for(wakeups.listening(), 10)
    return wakeups, ears


@pytest.fixture
async def dsn(migrated_dsn: str) -> str:
    return with_user(migrated_dsn, "emberlog_gateway")


@pytest.fixture
async def pair(dsn: str) -> AsyncIterator[tuple[Wakeups, Ears]]:
    made = await started(dsn)
    yield made
    await made[0].close()


async def test_a_poke_wakes_every_process(dsn: str, pair: tuple[Wakeups, Ears]) -> None:
    wakeups, ears = pair
    other, other_ears = await started(dsn)
    heard = asyncio.gather(ears.next(), other_ears.next())
    await asyncio.sleep(0)
    wakeups.poke()
    await heard
    await other.close()


async def test_many_pokes_at_once_are_one_notification(migrated_dsn: str, pair: tuple[Wakeups, Ears]) -> None:
    listener = await asyncpg.connect(migrated_dsn)
    heard = 0
    last = asyncio.Event()

    def count(connection: object, pid: object, channel: object, payload: object) -> None:
        nonlocal heard
        heard += payload == ""
        if payload == "last":
            last.set()

    await listener.add_listener(CHANNEL, count)
    for _ in range(1000):
        pair[0].poke()
    await pair[1].next()
    await listener.execute(f"NOTIFY {CHANNEL}, 'last'")  # notifications come in the order of their commits
    await asyncio.wait_for(last.wait(), 10)
    await listener.close()
    assert heard == 1


async def test_after_the_line_is_cut_it_listens_again_and_wakes_once_for_what_was_missed(dsn: str) -> None:
    async with CuttingProxy.before_postgres(dsn) as proxy:
        wakeups, ears = await started(proxy.postgres_dsn(dsn))
        woken = asyncio.create_task(ears.next())
        await asyncio.sleep(0)
        proxy.cut()
        await woken
        heard = asyncio.create_task(ears.next())
        await asyncio.sleep(0)
        await wakeups.listening()
        wakeups.poke()
        await heard
        await wakeups.close()


async def test_starting_without_a_server_waits_for_one(dsn: str) -> None:
    async with CuttingProxy.before_postgres(dsn) as proxy:
        proxy.refuse()
        wakeups, ears = Wakeups(proxy.postgres_dsn(dsn)), Ears()
        wakeups.on_wake(ears)
        await wakeups.start()
        assert ears.calls == 0
        proxy.refuse(False)
        await ears.next()
        await wakeups.close()
        await wakeups.close()


async def test_a_callback_that_fails_keeps_no_other_from_being_called(dsn: str) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    def broken() -> None:
        raise ValueError("broken")

    wakeups, ears = Wakeups(dsn), Ears()
    wakeups.on_wake(broken)
    wakeups.on_wake(ears)
    await wakeups.start()
    await ears.next()
    await wakeups.close()
    assert [str(error) for error in reported] == ["broken"]
