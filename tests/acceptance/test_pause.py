"""A gateway that is stopped like a hung machine (SIGSTOP) and comes back after another has taken its work over."""

from __future__ import annotations

import os
import signal

import asyncpg

from tests.acceptance.ledger import ABANDONED, GENERATED, REQUESTED, audit
from tests.acceptance.peer import Message, Peer, rows_of, session
from tests.acceptance.provider import Simulator
from tests.acceptance.site import Site
from tests.support.waiting import until


async def _result(peer: Peer, request: str, text: str) -> Message:
    """Ask until the gateway answers: it may be starting anew as another instance."""
    answers: list[Message] = []

    async def answered() -> bool:
        answers.append(await peer.embed(request, text))
        assert answers[-1]["type"] == "embedding.result" or answers[-1]["retryable"], answers[-1]
        return bool(answers[-1]["type"] == "embedding.result")

    await until(answered, what=f"{request} is answered")
    return answers[-1]


async def test_a_paused_gateway_that_comes_back_bills_nothing_that_another_has_taken_over(
    migrated: Site, provider: Simulator
) -> None:
    await migrated.ask("tenants", "create", "acme")
    key = await migrated.create_key("acme")
    paused = migrated.gateway(EMBERLOG_INSTANCE_LEASE_SECONDS="1")
    other = migrated.gateway(log="other.log", EMBERLOG_INSTANCE_LEASE_SECONDS="1")
    await paused.start()
    await other.start()
    try:
        async with session(paused.url, key.token) as before, session(other.url, key.token) as elsewhere:
            provider.control(hold=True)
            await before.begin("taken", "asked of the gateway that is about to hang")
            await provider.called(1)
            os.kill(paused.pid, signal.SIGSTOP)
            try:
                provider.control(hold=False)
                second = await elsewhere.embed("taken", "asked of the gateway that is about to hang")
                assert second["type"] == "embedding.result", second
            finally:
                os.kill(paused.pid, signal.SIGCONT)
            first = await before.answer("taken")
            assert first["type"] == "embedding.result" or first["retryable"], first
            again = await _result(before, "taken", "asked of the gateway that is about to hang")
            assert (again["event"], again["usage"], again["cost"]) == (second["event"], second["usage"], second["cost"])
            assert again["replayed"] is True
            assert (rows_of(again) == rows_of(second)).all()
            await _result(before, "afterwards", "the gateway works again")

        history = await migrated.request_events("taken", "acme")
        assert [e.type for e in history] == [REQUESTED, ABANDONED, REQUESTED, GENERATED]
        assert history[-1].event_id == second["event"]
        old, events = history[0].data["instance"], await migrated.events()
        audit(events)
        fenced_head = await _fenced_head(migrated, old)
        written = [e for e in events if e.type == REQUESTED and e.data["instance"] == old]
        assert all(e.position <= fenced_head for e in written), "a fenced instance wrote to the log"
        afterwards = (await migrated.request_events("afterwards", "acme"))[0]
        assert afterwards.data["instance"] != old, "the gateway went on as the instance that was fenced"
    finally:
        await paused.stop()
        await other.stop()


async def _fenced_head(site: Site, instance: str) -> int:
    connection = await asyncpg.connect(site.dsn)
    try:
        head = await connection.fetchval("SELECT fenced_head FROM emberlog.instances WHERE id = $1::uuid", instance)
    finally:
        await connection.close()
    assert isinstance(head, int), "the paused instance was not fenced"
    return head
