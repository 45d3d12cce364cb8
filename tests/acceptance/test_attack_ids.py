"""One id asked in two ways at once: as a dry run, as a stream and not, with other deadlines, and given up."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from tests.acceptance.conftest import Running
from tests.acceptance.ledger import FAILED, GENERATED, REQUESTED
from tests.acceptance.peer import rows_of, session
from tests.acceptance.provider import DIMENSIONS, Simulator
from tests.acceptance.site import Site, endpoints_toml


async def test_a_dry_run_with_the_id_of_a_request_in_flight_disturbs_neither_it_nor_its_resend(
    shared: Running, provider: Simulator
) -> None:
    provider.control(hold=True)
    async with session(shared.url, shared.key) as one, session(shared.url, shared.key) as two:
        await one.begin("dry-and-wet", "paid for once")
        await shared.site.logged("dry-and-wet")
        assert (await two.embed("dry-and-wet", "paid for once", dry_run=True))["event"] is None
        await two.begin("dry-and-wet", "paid for once")
        await two.embed("dry-and-wet-probe", "the resend was read before this", dry_run=True)
        provider.control(hold=False)
        first, second = await one.answer("dry-and-wet"), await two.answer("dry-and-wet")
    assert (first["replayed"], second["replayed"]) == (False, True)
    assert first["usage"] == second["usage"]
    history = await shared.site.request_events("dry-and-wet")
    assert [e.type for e in history] == [REQUESTED, GENERATED]
    assert history[1].data["billed_tokens"] > 0, "the provider was paid and the tenant was not billed"


async def test_a_gateway_that_did_a_long_dry_run_drains_without_waiting_for_it(
    folder: Path, provider: Simulator
) -> None:
    site = Site(folder, endpoints_toml(provider))
    gateway = site.gateway(EMBERLOG_DRAIN_SECONDS="600")
    await gateway.start()
    assert gateway.key is not None
    async with session(gateway.url, gateway.key) as peer:
        # Long enough to be counted beside the loop.
        assert (await peer.embed("long", "word " * 20_000, dry_run=True, truncate="end"))["event"] is None
    assert await gateway.stop() == 0


async def test_a_resend_that_wants_one_message_gets_the_vectors_of_a_request_that_streams(
    shared: Running, provider: Simulator
) -> None:
    provider.control(hold=True)
    async with session(shared.url, shared.key) as one, session(shared.url, shared.key) as two:
        await one.begin("streams", ["first", "second"], stream=True)
        await shared.site.logged("streams")
        await two.begin("streams", ["first", "second"])
        await two.embed("streams-probe", "the resend was read before this", dry_run=True)
        provider.control(hold=False)
        streamed, whole = await one.answer("streams"), await two.answer("streams")
        chunk = await one.take(lambda m: m["type"] == "embedding.chunk")
    assert rows_of(whole).shape == (2, DIMENSIONS)
    assert (whole["vectors"], whole["event"], whole["replayed"]) == (chunk["vectors"], streamed["event"], True)


async def test_resends_that_wait_for_a_stream_which_fails_are_one_next_attempt_together(
    shared: Running, provider: Simulator
) -> None:
    provider.fault("status", status=503, marker="wobbly", count=4)
    provider.control(latency_ms=100)
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(session(shared.url, shared.key)) for _ in range(4)]
        for peer in peers:
            await peer.begin("wobbles", "wobbly", stream=True, deadline_ms=15_000)
            await peer.embed("wobbles-probe", "read", dry_run=True)
        answers = [await peer.answer("wobbles") for peer in peers]
    assert [a["type"] for a in answers] == ["error", *["embedding.result"] * 3]
    assert len({a["event"] for a in answers[1:]}) == 1
    history = [(e.type, e.data["attempt"]) for e in await shared.site.request_events("wobbles")]
    assert history == [(REQUESTED, 1), (FAILED, 1), (REQUESTED, 2), (GENERATED, 2)]


async def test_each_asker_of_an_id_has_the_deadline_that_it_asked_for(shared: Running, provider: Simulator) -> None:
    provider.control(hold=True)
    async with session(shared.url, shared.key) as one, session(shared.url, shared.key) as two:
        await one.begin("patience", "slow", deadline_ms=60_000)
        await shared.site.logged("patience")
        hasty = await two.embed("patience", "slow", deadline_ms=100)
        assert (hasty["code"], "100 ms" in hasty["message"]) == ("deadline_exceeded", True)
        await one.begin("haste", "slower", deadline_ms=400)
        await two.begin("haste", "slower", deadline_ms=60_000)
        assert (await one.answer("haste"))["code"] == "deadline_exceeded"
        await shared.site.logged("haste", events=3)
        provider.control(hold=False)
        assert (await one.answer("patience"))["type"] == "embedding.result"
        assert (await two.answer("haste"))["type"] == "embedding.result"
    history = await shared.site.request_events("haste")
    assert [(e.type, e.data["attempt"]) for e in history] == [
        (REQUESTED, 1),
        (FAILED, 1),
        (REQUESTED, 2),
        (GENERATED, 2),
    ]
    assert [e.data.get("billed_tokens", 0) > 0 for e in history] == [False, True, False, False]


async def test_a_resend_at_the_moment_of_the_deadline_is_the_next_attempt(shared: Running, provider: Simulator) -> None:
    provider.control(hold=True)
    async with session(shared.url, shared.key) as peer:
        assert (await peer.embed("moment", "right now", deadline_ms=100))["code"] == "deadline_exceeded"
        await peer.begin("moment", "right now")
        await shared.site.logged("moment", events=3)
        provider.control(hold=False)
        assert (await peer.answer("moment"))["type"] == "embedding.result"


async def test_a_resend_that_waits_for_a_stream_can_be_cancelled_and_the_stream_goes_on(
    shared: Running, provider: Simulator
) -> None:
    provider.control(hold=True)
    async with session(shared.url, shared.key) as one, session(shared.url, shared.key) as two:
        await one.begin("either", "shared", stream=True)
        await shared.site.logged("either")
        await two.begin("either", "shared", stream=True)
        await two.send({"type": "request.cancel", "id": "either"})
        assert (await two.answer("either"))["code"] == "cancelled"
        await two.begin("either", "shared", stream=True)
        await two.embed("either-probe", "read", dry_run=True)
        await one.send({"type": "request.cancel", "id": "either"})
        assert (await one.answer("either"))["code"] == "cancelled"
        provider.control(hold=False)
        assert (await two.answer("either"))["type"] == "embedding.result"
    assert [e.type for e in await shared.site.request_events("either")] == [REQUESTED, GENERATED]
