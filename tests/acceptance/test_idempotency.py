"""One id is one request and one bill, whichever connection asks."""

from __future__ import annotations

from tests.acceptance.conftest import Running
from tests.acceptance.ledger import FAILED, GENERATED, REQUESTED
from tests.acceptance.peer import Message, rows_of, session
from tests.acceptance.provider import Simulator

_SAME = ("event", "usage", "cost", "space", "model", "vectors")


def _same(first: Message, second: Message) -> bool:
    return all(first[name] == second[name] for name in _SAME)


async def test_the_same_id_in_flight_on_another_connection_waits_for_the_first(
    shared: Running, provider: Simulator
) -> None:
    provider.control(hold=True)
    async with session(shared.url, shared.key) as one, session(shared.url, shared.key) as two:
        await one.begin("in-flight", ["same", "body"])
        await shared.site.logged("in-flight")
        await two.begin("in-flight", ["same", "body"])
        other = await two.embed("in-flight-2", "a probe that shows that the resend was read", dry_run=True)
        assert other["type"] == "embedding.result"
        provider.control(hold=False)
        first, second = await one.answer("in-flight"), await two.answer("in-flight")
    assert (first["replayed"], second["replayed"]) == (False, True)
    assert _same(first, second)
    assert [e.type for e in await shared.site.request_events("in-flight")] == [REQUESTED, GENERATED]


async def test_the_same_id_later_gets_the_same_outcome_also_over_http_and_as_a_stream(
    shared: Running, provider: Simulator
) -> None:
    async with session(shared.url, shared.key) as one:
        first = await one.embed("again", ["one", "two"])
    async with session(shared.url, shared.key) as two:
        second = await two.embed("again", ["one", "two"])
        assert _same(first, second)
        assert second["replayed"]
        streamed = await two.embed("again", ["one", "two"], stream=True)
        chunk = await two.take(lambda m: m["type"] == "embedding.chunk")
    assert (streamed["event"], streamed["replayed"]) == (first["event"], True)
    assert (chunk["offset"], chunk["count"], chunk["vectors"]) == (0, 2, first["vectors"])
    assert [e.type for e in await shared.site.request_events("again")] == [REQUESTED, GENERATED]


async def test_an_id_with_another_body_is_refused_in_flight_and_later(shared: Running, provider: Simulator) -> None:
    provider.control(hold=True)
    async with session(shared.url, shared.key) as one, session(shared.url, shared.key) as two:
        await one.begin("taken", "the body")
        await shared.site.logged("taken")
        for fields in ({}, {"encoding": "float16"}, {"dimensions": 32}):
            text = "another body" if not fields else "the body"
            refused = await two.embed("taken", text, **fields)
            assert (refused["code"], refused["retryable"]) == ("id_reused", False), fields
        provider.control(hold=False)
        assert (await one.answer("taken"))["type"] == "embedding.result"
        assert (await two.embed("taken", "another body"))["code"] == "id_reused"
        assert (await two.embed("taken", "the body"))["replayed"]


async def test_after_a_failure_that_may_pass_the_resend_is_the_next_attempt_and_the_only_bill(
    shared: Running, provider: Simulator
) -> None:
    provider.fault("status", status=503, marker="flaky", count=4)
    async with session(shared.url, shared.key) as peer:
        failed = await peer.embed("next-attempt", "flaky")
        assert (failed["code"], failed["retryable"]) == ("provider_unavailable", True)
        answer = await peer.embed("next-attempt", "flaky")
        assert (answer["type"], answer["replayed"]) == ("embedding.result", False)
        assert (await peer.embed("next-attempt", "flaky"))["replayed"]
    history = await shared.site.request_events("next-attempt")
    assert [(e.type, e.data["attempt"]) for e in history] == [
        (REQUESTED, 1), (FAILED, 1), (REQUESTED, 2), (GENERATED, 2),
    ]  # fmt: skip
    assert not history[1].data.get("billed_tokens", 0)
    assert history[3].data["nano_usd"] == answer["cost"]["nano_usd"] > 0


async def test_a_failure_for_good_is_repeated_without_asking_the_provider(shared: Running, provider: Simulator) -> None:
    provider.fault("status", status=400, marker="never", count=1)
    async with session(shared.url, shared.key) as peer:
        first = await peer.embed("for-good", "never")
        assert (first["code"], first["retryable"]) == ("provider_error", False)
        second = await peer.embed("for-good", "never")
    assert (second["code"], second["message"]) == (first["code"], first["message"])
    assert [e.type for e in await shared.site.request_events("for-good")] == [REQUESTED, FAILED]


async def test_a_refusal_before_the_log_binds_no_id(shared: Running, provider: Simulator) -> None:
    async with session(shared.url, shared.key) as peer:
        refused = await peer.embed("free", ["fine", ""])
        assert (refused["code"], refused["details"]["index"]) == ("invalid_request", 1)
        assert (await peer.embed("free", "fine"))["type"] == "embedding.result"


async def test_vectors_outside_the_cache_are_embedded_again_three_times_at_our_cost_then_no_more(
    shared: Running, provider: Simulator
) -> None:
    async with session(shared.url, shared.key) as peer:
        first = await peer.embed("uncached", "kept by nobody", cache="off")
        for _ in range(3):
            again = await peer.embed("uncached", "kept by nobody", cache="off")
            assert again["replayed"]
            assert _same(first, again)
        expired = await peer.embed("uncached", "kept by nobody", cache="off")
        assert (expired["code"], expired["retryable"]) == ("result_expired", False)
    history = await shared.site.request_events("uncached")
    assert [e.type for e in history] == [REQUESTED, GENERATED, *["embedding.reembedded"] * 3]
    assert all(e.data["provider_nano_usd"] > 0 for e in history[2:])
    assert not any("nano_usd" in e.data for e in history[2:]), "the tenant pays for a replay"


async def test_a_cancelled_request_is_told_so_and_its_id_stays_cancelled(shared: Running, provider: Simulator) -> None:
    provider.control(hold=True)
    async with session(shared.url, shared.key) as peer:
        await peer.begin("cancelled", "never mind")
        await shared.site.logged("cancelled")
        await peer.send({"type": "request.cancel", "id": "cancelled"})
        assert (await peer.answer("cancelled"))["code"] == "cancelled"
        provider.control(hold=False)
        assert rows_of(await peer.embed("other", "still served")).shape == (1, 64)
        assert (await peer.embed("cancelled", "never mind"))["code"] == "cancelled"


def test_the_comparison_of_answers_sees_a_difference() -> None:
    answer = dict.fromkeys(_SAME, "x")
    assert _same(answer, dict(answer))
    assert not any(_same(answer, {**answer, name: "y"}) for name in _SAME)
