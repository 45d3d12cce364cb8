"""Two worker processes on one socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from websockets.exceptions import InvalidStatus

from emberlog_client import Client
from gateway.demo.process import GatewayProcess
from tests.acceptance.ledger import REQUESTED, audit
from tests.acceptance.load import Load
from tests.acceptance.peer import Peer, session
from tests.acceptance.provider import Simulator
from tests.acceptance.site import Site, endpoints_toml
from tests.support.waiting import until

SESSIONS = 12


def _workers(gateway: GatewayProcess) -> list[int]:
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    found = []
    for child in children:
        with contextlib.suppress(OSError):
            if b"gateway.workers" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


async def test_both_workers_answer_one_killed_comes_back_and_a_revoked_key_ends_in_both(
    folder: Path, provider: Simulator
) -> None:
    site = Site(folder, endpoints_toml(provider))
    gateway = site.gateway(EMBERLOG_WORKERS="2", EMBERLOG_INSTANCE_LEASE_SECONDS="1")
    await gateway.start()
    assert gateway.key is not None
    try:
        key = await site.create_key("default", "agent", url=gateway.url)
        async with contextlib.AsyncExitStack() as stack:
            peers: list[Peer] = []

            async def opened() -> bool:
                try:
                    peers.append(await stack.enter_async_context(session(gateway.url, key.token)))
                except InvalidStatus:
                    return False
                return True

            async def both_have_answered() -> bool:
                begin = len(peers)
                for number in range(begin, begin + SESSIONS):
                    await until(opened, what="the new key is known to every worker", timeout=1)
                    await peers[-1].embed(f"hello-{number}", f"hello {number}")
                instances = {e.data["instance"] for e in await site.events() if e.type == REQUESTED}
                return len(instances) == 2

            await until(both_have_answered, what="both workers have answered")
            await site.ask("keys", "revoke", key.id)
            assert set(await asyncio.gather(*(peer.closed(within=1) for peer in peers))) == {4401}

        load = Load(gateway.url, gateway.key, "workers")
        async with load.running():
            await load.more(60)
            before = _workers(gateway)
            assert len(before) == 2
            os.kill(before[0], signal.SIGKILL)
            await load.more(60)

            def replaced() -> bool:
                now = _workers(gateway)
                return len(now) == 2 and before[0] not in now

            await until(replaced, what="the killed worker is replaced")
            await load.more(60)

        async def settled() -> bool:
            return not audit(await site.events()).open

        await until(settled, what="every accepted request has an outcome", timeout=20)
        found = audit(await site.events())
        assert {("default", name) for name in load.answered} <= found.generated.keys()
        assert await load.resend(every=4) >= 30
        assert audit(await site.events()).nano_usd == found.nano_usd
    finally:
        assert await gateway.stop() == 0
    assert not [e for e in (folder / "gateway.log").read_text().splitlines() if "Traceback" in e]


async def test_what_a_killed_worker_held_is_given_up_at_once_and_not_when_its_lease_runs_out(
    folder: Path, provider: Simulator
) -> None:
    site = Site(folder, endpoints_toml(provider))
    gateway = site.gateway(EMBERLOG_WORKERS="2", EMBERLOG_INSTANCE_LEASE_SECONDS="300")
    await gateway.start()
    assert gateway.key is not None
    try:
        async with Client(gateway.url, gateway.key, proxy=None) as client:
            provider.control(hold=True)
            asked = asyncio.create_task(client.generate("held by a worker", id="held", dimensions=64, deadline=60))
            await provider.called(1)
            [requested] = await site.logged("held")
            for worker in _workers(gateway):
                os.kill(worker, signal.SIGKILL)
            provider.control(hold=False)
            async with asyncio.timeout(20):
                assert (await asked).vectors.shape == (1, 64)
        events = await site.request_events("held")
        assert [event.type for event in events][:2] == [REQUESTED, "embedding.abandoned"]
        assert events[1].data["instance"] == requested.data["instance"]
    finally:
        assert await gateway.stop() == 0
