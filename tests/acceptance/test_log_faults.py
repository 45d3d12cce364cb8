"""A real gateway whose database is shut down, has a full disk, or whose own clock is wrong: clear answers, and a log that adds up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.demo.process import GatewayProcess
from tests.acceptance.http import request
from tests.acceptance.ledger import audit
from tests.acceptance.load import Load
from tests.acceptance.peer import Message, Peer, session
from tests.acceptance.provider import Simulator
from tests.acceptance.site import Site, endpoints_toml
from tests.acceptance.test_crash import _billed, _postmaster, _settled
from tests.support.folders import temporary_data_dir
from tests.support.small_disk import small_disk
from tests.support.waiting import until


@contextlib.asynccontextmanager
async def _serving(gateway: GatewayProcess) -> AsyncIterator[str]:
    """The gateway at work; gives its development key. At the end it must still be the same process, and end well."""
    await gateway.start()
    try:
        assert gateway.key is not None
        yield gateway.key
    finally:
        assert await gateway.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
async def test_a_database_that_is_shut_down_under_load_is_started_again_and_no_caller_notices(
    folder: Path, provider: Simulator, number: signal.Signals
) -> None:
    site = Site(folder, endpoints_toml(provider))
    gateway = site.gateway()
    async with _serving(gateway) as key:
        load = Load(gateway.url, key, "restarts")
        async with load.running():
            for _ in range(2):
                await load.more(60)
                before = _postmaster(site)
                os.kill(before, number)
                await load.more(60)
                assert _postmaster(site) != before
        found = await _settled(site)
        assert found.generated.keys() == {("default", name) for name in load.answered}
        assert not found.abandoned, "a request was given up although its gateway lived on"
        assert await _billed(site) == found.nano_usd
        assert await load.resend(every=5) >= 30


async def _ready(gateway: GatewayProcess) -> int:
    return (await request(f"{gateway.url}/readyz")).status


async def _embed_until_refused(peer: Peer) -> tuple[int, Message]:
    """Requests one after another until one is not answered with vectors; how many were."""
    for n in range(5000):
        answer = await peer.embed(f"filling-{n}", f"text {n}", deadline_ms=2000)
        if answer["type"] == "error":
            return n, answer
    raise AssertionError("the disk is full and 5000 requests were answered all the same")


async def test_with_a_full_disk_askers_are_told_to_come_again_and_with_space_everything_goes_on(
    folder: Path, provider: Simulator
) -> None:
    with small_disk(folder, 320) as disk, temporary_data_dir(disk.folder) as data_dir:
        site = Site(folder, endpoints_toml(provider), EMBERLOG_DATA_DIR=str(data_dir))
        site.data_dir = data_dir
        gateway = site.gateway(log=str(disk.folder / "gateway.log"))  # what it says finds no space either
        async with _serving(gateway) as key, session(gateway.url, key) as peer:
            assert (await peer.embed("before", "with space"))["type"] == "embedding.result"
            disk.fill()
            answered, refused = await _embed_until_refused(peer)
            assert (refused["code"], refused["retryable"]) in {("deadline_exceeded", True), ("unavailable", True)}, (
                refused
            )
            new = await peer.embed("new", "asked while nothing can be logged", deadline_ms=2000)
            assert (new["code"], new["retryable"]) == ("unavailable", True)
            assert await _ready(gateway) == 503
            again = await peer.embed("before", "with space")
            assert again["type"] == "embedding.result" or again["retryable"], again

            disk.free()

            async def goes_on() -> bool:
                answer = await peer.embed("new", "asked while nothing can be logged")
                assert answer["type"] == "embedding.result" or answer["retryable"], answer
                return bool(answer["type"] == "embedding.result")

            await until(goes_on, what="the gateway takes requests again", timeout=60)
            await until(lambda: _is_ready(gateway), what="it says so", timeout=30)
            found = await _settled(site)
            assert len(found.generated) >= answered + 2
            assert await _billed(site) == found.nano_usd
            replayed = await peer.embed("before", "with space")
            assert replayed["replayed"] is True


async def _is_ready(gateway: GatewayProcess) -> bool:
    return await _ready(gateway) == 200


# What a process takes for the time of day, and how fast it believes it passes. Its own timers go by another clock.
_WRONG_CLOCK = """
import os, time
_ahead = float(os.environ["TEST_CLOCK_AHEAD_SECONDS"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _ahead
time.time_ns = lambda: _time_ns() + int(_ahead * 1e9)
"""


async def test_gateways_whose_clocks_are_days_apart_write_one_log_in_order_and_bill_each_request_once(
    migrated: Site, provider: Simulator
) -> None:
    (migrated.folder / "sitecustomize.py").write_text(_WRONG_CLOCK)
    await migrated.ask("tenants", "create", "acme")
    key = await migrated.create_key("acme")
    wrong = {
        days: migrated.gateway(
            log=f"{days}.log", PYTHONPATH=str(migrated.folder), TEST_CLOCK_AHEAD_SECONDS=str(days * 86400)
        )
        for days in (-3, 3)
    }
    behind, ahead = wrong.values()
    await behind.start()
    await ahead.start()
    try:
        async with session(behind.url, key.token) as one, session(ahead.url, key.token) as two:
            for n in range(10):
                first, second = (one, two) if n % 2 else (two, one)
                result = await first.embed(f"r{n}", f"text {n}")
                assert result["type"] == "embedding.result", result
                again = await second.embed(f"r{n}", f"text {n}")
                assert (again["event"], again["cost"], again["replayed"]) == (result["event"], result["cost"], True)
                reused = await second.embed(f"r{n}", "another body")
                assert reused["code"] == "id_reused", reused
        found = audit(await migrated.events())
        assert len(found.generated) == 10
        times = [event["recorded_at"] for event in (await migrated.ask("events", "tail"))["events"]]
        assert times == sorted(times)
        stated = [event.data["at"] for event in await migrated.events() if event.type == "embedding.requested"]
        assert max(stated) - min(stated) > 5 * 86400 * 1_000_000, "the clocks were not wrong"
        usage = await migrated.ask("usage", "--tenant", "acme", "--grain", "day")
        assert sum(row["requests"] for row in usage["usage"]) == 10
        assert len({row["bucket"] for row in usage["usage"]}) <= 2, "usage is counted by the gateways' clocks"
    finally:
        await asyncio.gather(behind.stop(), ahead.stop())
