"""The same id again: in flight, answered, failed, abandoned, expired."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from domain.catalogue import Catalogue
from domain.errors import GatewayError
from domain.events import EmbeddingAbandoned, EmbeddingFailed, EmbeddingGenerated, EmbeddingReembedded
from domain.ports.event_log import LogUnavailable, StoredEvent
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from tests.unit.service.conftest import Rig, make_rig, vector_of


async def test_a_resend_repeats_the_answer_with_the_first_event_usage_and_cost_and_bills_nothing(rig: Rig) -> None:
    first = await rig.ask(["one two", "three"])
    again = await rig.ask(["one two", "three"])
    assert first.answer is not None
    assert again.answer is not None
    assert again.answer.replayed
    assert not first.answer.replayed
    assert (again.answer.event, again.answer.usage, again.answer.cost) == (
        first.answer.event,
        first.answer.usage,
        first.answer.cost,
    )
    assert first.rows is not None
    np.testing.assert_array_equal(again.rows, first.rows)  # type: ignore[arg-type]  # None would not be equal
    assert len(rig.provider.calls) == 1
    assert len(await rig.events("embedding.generated")) == 1


async def test_a_resend_in_flight_waits_for_the_first_and_both_are_answered_from_one_call(rig: Rig) -> None:
    rig.provider.gate.clear()
    first, _ = rig.send("one two")
    await rig.provider.called.wait()
    second, _ = rig.send("one two")
    rig.provider.gate.set()
    await asyncio.gather(first.wait(), second.wait())
    assert first.answer is not None
    assert second.answer is not None
    assert (first.answer.replayed, second.answer.replayed) == (False, True)
    assert first.answer.event == second.answer.event
    assert len(rig.provider.calls) == 1


async def test_a_resend_of_a_stream_in_flight_gets_every_row_from_offset_0(rig: Rig) -> None:
    texts = [f"text {i}" for i in range(40)]
    rig.provider.gate.clear()
    first, _ = rig.send(texts, stream=True)
    await rig.provider.called.wait()
    second, _ = rig.send(texts, stream=True)
    rig.provider.gate.set()
    await asyncio.gather(first.wait(), second.wait())
    expected = [vector_of(t) for t in texts]
    np.testing.assert_array_equal(first.streamed, expected)
    np.testing.assert_array_equal(second.streamed, expected)
    assert second.answer is not None
    assert second.answer.replayed


@pytest.mark.parametrize("in_flight", [True, False])
async def test_an_id_with_another_body_is_refused_and_the_first_is_untouched(rig: Rig, in_flight: bool) -> None:
    rig.provider.gate.clear() if in_flight else rig.provider.gate.set()
    first, _ = rig.send("one")
    await rig.provider.called.wait()
    if in_flight:
        with pytest.raises(GatewayError) as refused:
            rig.send("another")
        code = refused.value.code
    else:
        await first.wait()
        other = await rig.ask("another")
        assert other.refusal is not None
        code = other.refusal.code
    rig.provider.gate.set()
    await first.wait()
    assert code == "id_reused"
    assert first.answer is not None


async def test_a_binding_error_is_repeated_without_another_call(rig: Rig) -> None:
    def refuse(call: EmbedCall) -> None:
        raise ProviderError(ProviderFault.REFUSED, "no", status=400)

    rig.provider.behaviour = refuse
    first = await rig.ask("poison")
    calls = len(rig.provider.calls)
    again = await rig.ask("poison")
    assert first.refusal is not None
    assert again.refusal is not None
    assert (first.refusal.code, first.refusal.details) == (again.refusal.code, again.refusal.details)
    assert len(rig.provider.calls) == calls


async def test_after_a_retryable_failure_the_resend_is_the_next_attempt_and_only_it_is_billed(rig: Rig) -> None:
    rig.provider.gate.clear()
    late = await rig.ask("one two", deadline_ms=50)
    assert late.refusal is not None
    await rig.service.drain(5)
    rig.service.draining = False
    rig.provider.gate.set()
    again = await rig.ask("one two", cache="refresh")
    assert again.answer is not None
    assert not again.answer.replayed
    (generated,) = await rig.events("embedding.generated")
    assert isinstance(generated, EmbeddingGenerated)
    assert generated.attempt == 2


async def test_an_attempt_of_a_dead_instance_is_abandoned_and_the_resend_takes_over(rig: Rig) -> None:
    rig.provider.gate.clear()
    rig.send("one two")
    await rig.provider.called.wait()
    from uuid import UUID

    await rig.log.fence_instance(UUID(rig.service.instance))
    successor = await make_rig(rig.log)
    answer = await successor.ask("one two")
    assert answer.answer is not None
    (abandoned,) = await successor.events("embedding.abandoned")
    assert isinstance(abandoned, EmbeddingAbandoned)
    assert (abandoned.attempt, abandoned.instance) == (1, rig.service.instance)
    rig.provider.gate.set()
    await successor.service.close()
    await successor.appender.close()


async def test_an_attempt_of_a_live_instance_is_waited_for(rig: Rig) -> None:
    other = await make_rig(rig.log)
    rig.provider.gate.clear()
    first, _ = rig.send("one two")
    await rig.provider.called.wait()
    second, _ = other.send("one two")
    rig.provider.gate.set()
    await asyncio.gather(first.wait(), second.wait())
    assert first.answer is not None
    assert second.answer is not None
    assert second.answer.replayed
    assert second.answer.event == first.answer.event
    assert len(await rig.events("embedding.generated")) == 1
    await other.service.close()
    await other.appender.close()


async def test_vectors_that_left_the_cache_are_embedded_again_at_our_cost_three_times_and_then_no_more(
    rig: Rig,
) -> None:
    first = await rig.ask("one two", cache="off")
    for _ in range(3):
        again = await rig.ask("one two", cache="off")
        assert again.answer is not None
        assert first.answer is not None
        assert again.answer.cost == first.answer.cost
        assert again.answer.replayed
    last = await rig.ask("one two", cache="off")
    assert last.refusal is not None
    assert last.refusal.code == "result_expired"
    again_events = await rig.events("embedding.reembedded")
    assert [e.time for e in again_events if isinstance(e, EmbeddingReembedded)] == [1, 2, 3]
    assert len(rig.provider.calls) == 4
    assert len(await rig.events("embedding.generated")) == 1


async def test_a_refusal_before_the_log_binds_nothing(rig: Rig) -> None:
    with pytest.raises(GatewayError):
        rig.send("word " * 21)
    answer = await rig.ask("short now")
    assert answer.answer is not None


async def test_the_same_id_in_two_tenants_is_two_requests(rig: Rig) -> None:
    from domain.tenancy import Principal

    await rig.ask("one")
    rig.principal = Principal("k2", "globex", frozenset({"agent"}))
    other = await rig.ask("entirely different")
    assert other.answer is not None
    assert not other.answer.replayed


async def test_a_resend_after_a_deadline_that_was_billed_is_answered_and_not_billed_again(rig: Rig) -> None:
    rig.provider.gate.clear()
    late, _ = rig.send("one two", deadline_ms=50)
    await late.wait()
    rig.provider.gate.set()
    while rig.service.in_flight:  # the asker is told at the deadline, the log a moment later
        await asyncio.sleep(0)
    again = await rig.ask("one two")
    assert again.answer is not None
    assert (again.answer.usage.billed_tokens, again.answer.cost.nano_usd) == (0, 0)
    (failed,), (generated,) = await rig.events("embedding.failed"), await rig.events("embedding.generated")
    assert isinstance(failed, EmbeddingFailed)
    assert isinstance(generated, EmbeddingGenerated)
    assert (failed.billed_tokens, generated.billed_tokens) == (2, 0)


async def test_a_log_that_is_away_for_a_moment_delays_a_replay_and_does_not_fail_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await rig.ask("one two")
    find, failures = rig.log.find, 2

    async def stumbling(keys: Sequence[bytes]) -> dict[bytes, StoredEvent]:
        nonlocal failures
        if failures:
            failures -= 1
            raise LogUnavailable("away")
        return await find(keys)

    monkeypatch.setattr(rig.log, "find", stumbling)
    again = await rig.ask("one two")
    assert again.answer is not None
    assert first.answer is not None
    assert again.answer.event == first.answer.event
    assert failures == 0


async def test_a_replay_for_which_the_log_has_no_room_says_so_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.ask("one two", cache="off")
    monkeypatch.setattr(rig.appender, "_hard_bound", 0)
    again, _ = rig.send("one two", cache="off")
    await again.wait()
    assert again.refusal is not None
    assert again.refusal.code == "unavailable"


@pytest.mark.parametrize("which", ["embedding.requested", "embedding.generated"])
async def test_an_id_that_a_newer_release_wrote_is_left_to_it_with_a_clear_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    await rig.ask("one two")
    find = rig.log.find

    async def newer(keys: Sequence[bytes]) -> dict[bytes, StoredEvent]:
        found = await find(keys)
        return {
            key: msgspec.structs.replace(e, schema_version=e.schema_version + (e.type == which))
            for key, e in found.items()
        }

    monkeypatch.setattr(rig.log, "find", newer)
    again = await rig.ask("one two")
    assert again.refusal is not None
    assert (again.refusal.code, again.refusal.retryable) == ("unavailable", True)
    assert "newer release" in again.refusal.message
    assert len(rig.provider.calls) == 1
    assert len(await rig.events("embedding.generated")) == 1


async def test_vectors_of_a_version_of_a_model_that_is_gone_are_not_made_by_its_next(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await rig.ask("one two", id="kept")
    gone = await rig.ask("three", id="gone", cache="off")
    assert first.answer is not None
    assert gone.answer is not None
    old = rig.catalogue.models["m"]
    newer = Catalogue(
        [msgspec.structs.replace(old, version="2")], rig.catalogue.offerings.values(), rig.catalogue.endpoints.values()
    )
    monkeypatch.setattr(rig.service._replays, "_catalogue", lambda: newer)
    repeated = await rig.ask("one two", id="kept")
    assert repeated.answer is not None
    assert repeated.answer.space == first.answer.space
    expired = await rig.ask("three", id="gone", cache="off")
    assert expired.refusal is not None
    assert expired.refusal.code == "result_expired"
    assert len(rig.provider.calls) == 2
