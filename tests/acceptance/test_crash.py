"""`kill -9` of the gateway and of its embedded servers, under load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from tests.acceptance.ledger import ABANDONED, GENERATED, REQUESTED, Audit, audit
from tests.acceptance.load import Load
from tests.acceptance.peer import session
from tests.acceptance.provider import Simulator
from tests.acceptance.site import Site, endpoints_toml
from tests.support.folders import noted_places
from tests.support.waiting import until

KILLS = 3


async def _settled(site: Site) -> Audit:
    """The audit of the log, once every attempt in it has ended."""

    async def nothing_open() -> bool:
        return not audit(await site.events()).open

    await until(nothing_open, what="every accepted request has an outcome", timeout=20)
    return audit(await site.events())


async def _billed(site: Site) -> int:
    usage = await site.ask("usage", "--grain", "day")
    total = 0
    for row in usage["usage"]:
        assert row["nano_usd"] is not None
        total += row["nano_usd"]
    return total


async def test_a_gateway_killed_under_load_loses_nothing_and_bills_nothing_twice(
    folder: Path, provider: Simulator
) -> None:
    site = Site(folder, endpoints_toml(provider))
    gateway = site.gateway()
    provider.control(latency_ms=30)
    await gateway.start()
    key = gateway.key
    assert key is not None
    try:
        load = Load(gateway.url, key, "crash")
        async with load.running():
            for kill in range(KILLS):
                await load.more(60)
                provider.control(hold=True)
                orphan = f"orphan-{kill}"
                with contextlib.suppress(ConnectionError):
                    async with session(gateway.url, key, "orphan") as peer:
                        await peer.begin(orphan, f"nobody comes back for {orphan}")
                        await site.logged(orphan)
                        await gateway.kill()
                provider.control(hold=False)
                await gateway.start()
            await load.more(60)
        found = await _settled(site)

        answered = {("default", name) for name in load.answered}
        assert found.generated.keys() == answered, "what was billed is not what was answered"
        for name, answer in load.answered.items():
            assert answer.result.events == (found.generated["default", name].event_id,)
            assert answer.result.cost.nano_usd == found.generated["default", name].data["nano_usd"]
        for kill in range(KILLS):
            assert [e.type for e in await site.request_events(f"orphan-{kill}")] == [REQUESTED, ABANDONED]

        before = await site.events()
        assert await load.resend(every=3) >= 50
        replayed = audit(await site.events())
        assert replayed.nano_usd == found.nano_usd, "a replay was billed"
        added = {e.type for e in (await site.events())[len(before) :]}
        assert added <= {"embedding.reembedded"}
        assert await _billed(site) == replayed.nano_usd, "the usage projection and the log disagree"
    finally:
        assert await gateway.stop() == 0


def _postmaster(site: Site) -> int:
    home = Path(noted_places(site.data_dir).get("home", site.data_dir))
    return int((home / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def _valkey(site: Site) -> int:
    sockets = noted_places(site.data_dir).get("sockets") or str(
        Path(noted_places(site.data_dir).get("home", site.data_dir)) / "run"
    )
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if Path(os.fsdecode(arguments[0])).name == "valkey-server" and any(
                os.fsdecode(a).startswith(sockets) for a in arguments
            ):
                return int(process.name)
    raise AssertionError("the site has no Valkey")


async def test_embedded_servers_killed_under_load_come_back_by_themselves_and_no_caller_notices(
    folder: Path, provider: Simulator
) -> None:
    site = Site(folder, endpoints_toml(provider))
    gateway = site.gateway()
    await gateway.start()
    assert gateway.key is not None
    try:
        load = Load(gateway.url, gateway.key, "servers")
        async with load.running(), session(gateway.url, gateway.key) as peer:
            for kill in range(2):
                await load.more(60)
                provider.control(hold=True)
                sent = [f"at-the-provider-{kill}-{n}" for n in range(3)]
                for name in sent:
                    await peer.begin(name, name)
                for name in sent:
                    await site.logged(name)
                os.kill(_postmaster(site), signal.SIGKILL)
                provider.control(hold=False)
                await peer.begin(f"meanwhile-{kill}", "asked while the log was away")
                for name in sent:
                    answer = await peer.answer(name)
                    assert answer["type"] == "embedding.result", answer
                meanwhile = await peer.answer(f"meanwhile-{kill}")
                assert meanwhile["type"] == "embedding.result" or meanwhile["code"] == "unavailable", meanwhile
                await load.more(60)
            os.kill(_valkey(site), signal.SIGKILL)
            for n in range(20):
                answer = await peer.embed(f"without-valkey-{n}", [f"one {n}", "shared 1"])
                assert answer["type"] == "embedding.result", answer
            await load.more(60)
            await until(lambda: _valkey(site), what="Valkey is back")
        found = await _settled(site)
        assert {("default", name) for name in load.answered} <= found.generated.keys()
        assert not found.abandoned, "a request was given up although its gateway lived on"
        assert await _billed(site) == found.nano_usd
        assert await load.resend(every=5) >= 30
    finally:
        assert await gateway.stop() == 0


async def test_load_moves_from_a_draining_gateway_to_the_next_without_an_error_to_any_caller(
    folder: Path, provider: Simulator
) -> None:
    site = Site(folder, endpoints_toml(provider))
    first = site.gateway()
    provider.control(latency_ms=20)
    await first.start()
    assert first.key is not None
    port = int(first.url.rpartition(":")[2])
    second = site.gateway(port=port, log="second.log")
    try:
        load = Load(first.url, first.key, "drain")
        async with load.running():
            await load.more(100)
            assert await first.stop() == 0
            await second.start()
            await load.more(100)
        found = await _settled(site)
        assert found.generated.keys() == {("default", name) for name in load.answered}
        assert not found.abandoned, "a drained gateway left a request behind"
    finally:
        await first.stop()
        assert await second.stop() == 0


async def test_a_draining_gateway_says_so_refuses_what_is_new_and_finishes_what_it_has(
    folder: Path, provider: Simulator
) -> None:
    site = Site(folder, endpoints_toml(provider))
    gateway = site.gateway()
    await gateway.start()
    assert gateway.key is not None
    async with session(gateway.url, gateway.key) as peer:
        provider.control(hold=True)
        await peer.begin("in-flight", "finish me")
        await site.logged("in-flight")
        stopping = asyncio.create_task(gateway.stop())
        notice = await peer.take(lambda m: m["type"] == "server.draining")
        assert isinstance(notice["reconnect_after_ms"], int)
        refused = await peer.embed("late", "too late")
        assert (refused["code"], refused["retryable"]) == ("draining", True)
        provider.control(hold=False)
        assert (await peer.answer("in-flight"))["type"] == "embedding.result"
        assert await peer.closed() == 1012
        assert await stopping == 0
    again = site.gateway()
    await again.start()
    try:
        assert [e.type for e in await site.request_events("in-flight")] == [REQUESTED, GENERATED]
        assert await site.request_events("late") == []
    finally:
        await again.stop()
