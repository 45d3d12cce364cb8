"""The life of one request: what is logged when, what is answered, what is billed."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from domain.errors import GatewayError
from domain.events import EmbeddingFailed, EmbeddingGenerated, EmbeddingRequested
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from tests.unit.service.conftest import PRICE_PICO, Rig, vector_of


def refuse(marker: str):
    def behaviour(call: EmbedCall) -> None:
        if any(marker in str(text) for text in call.texts):
            raise ProviderError(ProviderFault.REFUSED, "marked", status=400)

    return behaviour


async def test_an_answer_carries_each_texts_own_vector_its_space_its_event_and_its_exact_cost(rig: Rig) -> None:
    reply = await rig.ask(["one two three", "four five"])
    assert reply.rows is not None
    assert reply.answer is not None
    np.testing.assert_array_equal(reply.rows, [vector_of("one two three"), vector_of("four five")])
    answer = reply.answer
    assert (answer.model, answer.space, answer.dimensions, answer.count) == ("m", "m@1/8/raw", 8, 2)
    assert (answer.usage.tokens, answer.usage.billed_tokens, answer.usage.cached_inputs) == (5, 5, 0)
    assert (answer.cost.nano_usd, answer.cost.price) == (5 * PRICE_PICO // 1000, "price-1")
    (stored,) = [e for e in await rig.log.read(0, 10) if e.type == "embedding.generated"]
    assert answer.event is not None
    assert stored.event_id.hex() == answer.event.replace("-", "")


async def test_requested_is_in_the_log_before_the_provider_is_called_and_the_outcome_before_the_answer(
    rig: Rig,
) -> None:
    seen: list[list[str]] = []

    def look(call: EmbedCall) -> None:
        seen.append([e.type for e in rig.log.store.events])

    rig.provider.behaviour = look
    reply, _ = rig.send("a text")
    answered_at = asyncio.get_running_loop().create_task(reply.wait())
    await answered_at
    assert seen == [["embedding.requested"]]
    requested, generated = await rig.events()
    assert isinstance(requested, EmbeddingRequested)
    assert isinstance(generated, EmbeddingGenerated)
    assert requested.reserved_tokens == generated.billed_tokens == 2


async def test_no_event_holds_the_text_or_plain_metadata(rig: Rig) -> None:
    await rig.ask("xylophone quartz", metadata={"project": "zeppelin"}, thread="t1")
    raw = b"".join(e.data for e in await rig.log.read(0, 10))
    for secret in (b"xylophone", b"quartz", b"zeppelin"):
        assert secret not in raw
    assert b"t1" in raw


async def test_duplicates_in_a_request_are_sent_and_billed_once(rig: Rig) -> None:
    reply = await rig.ask(["same words", "other", "same words"])
    assert rig.provider.calls == [["same words", "other"]]
    assert reply.answer is not None
    assert (reply.answer.usage.tokens, reply.answer.usage.billed_tokens) == (5, 3)
    assert reply.rows is not None
    np.testing.assert_array_equal(reply.rows[0], reply.rows[2])


async def test_a_cached_text_costs_nothing_and_calls_nobody(rig: Rig) -> None:
    first = await rig.ask("cached words", id="a")
    again = await rig.ask("cached words", id="b")
    assert len(rig.provider.calls) == 1
    assert again.answer is not None
    assert first.rows is not None
    assert again.rows is not None
    assert (again.answer.usage.billed_tokens, again.answer.usage.cached_inputs, again.answer.cost.nano_usd) == (0, 1, 0)
    assert again.answer.usage.tokens == 2
    np.testing.assert_array_equal(again.rows, first.rows)


async def test_cache_refresh_asks_the_provider_again_and_cache_off_keeps_nothing(rig: Rig) -> None:
    await rig.ask("w", id="a", cache="off")
    assert len(rig.lru) == 0
    await rig.ask("w", id="b")
    await rig.ask("w", id="c", cache="refresh")
    assert len(rig.provider.calls) == 3


async def test_a_stream_gives_every_row_once_in_chunks_and_a_result_without_vectors(rig: Rig) -> None:
    texts = [f"text {i}" for i in range(50)]
    reply = await rig.ask(texts, stream=True)
    assert reply.rows is None
    np.testing.assert_array_equal(reply.streamed, [vector_of(t) for t in texts])
    assert reply.answer is not None
    assert reply.answer.count == 50


async def test_a_dry_run_calls_nobody_logs_nothing_and_estimates_the_cost(rig: Rig) -> None:
    reply = await rig.ask("one two", dry_run=True)
    assert rig.provider.calls == []
    assert await rig.events() == []
    assert reply.answer is not None
    assert (reply.answer.event, reply.rows) == (None, None)
    assert (reply.answer.usage.tokens, reply.answer.cost.nano_usd) == (2, 40)
    assert reply.answer.reasons == [{"model": "m", "reason": "any"}]


async def test_a_text_over_the_models_limit_is_refused_with_its_index_before_anything_is_logged(rig: Rig) -> None:
    with pytest.raises(GatewayError) as refused:
        rig.send(["short", "word " * 21])
    assert refused.value.code == "input_too_long"
    assert refused.value.details == {"field": "input", "index": 1, "tokens": 21, "max_tokens": 20}
    assert await rig.events() == []


async def test_truncate_end_cuts_the_text_and_says_which(rig: Rig) -> None:
    reply = await rig.ask(["short", "word " * 21], truncate="end")
    assert reply.answer is not None
    assert reply.answer.usage.truncated == [1]
    assert reply.answer.usage.tokens == 21
    assert rig.provider.calls == [["short", " ".join(["word"] * 20)]]


@pytest.mark.parametrize(
    ("texts", "options", "code", "details"),
    [
        ([], {}, "invalid_request", {"field": "input"}),
        (["a", ""], {}, "invalid_request", {"field": "input", "index": 1}),
        (["a"] * 10_001, {}, "invalid_request", {"field": "input", "index": 10_000}),
        (["a" * 200_001], {}, "invalid_request", {"field": "input", "index": 0}),
        (["a"], {"model": "nope"}, "model_not_found", {"field": "model"}),
        (["a"], {"dimensions": 9}, "no_model_available", None),
        (["a"], {"model": "m", "dimensions": 9}, "invalid_request", {"field": "dimensions"}),
        (["a"], {"deadline_ms": 0}, "invalid_request", {"field": "deadline_ms"}),
        (["a"], {"metadata": {"k": "v" * 3000}}, "invalid_request", {"field": "metadata"}),
    ],
)
async def test_what_cannot_be_served_is_refused_before_anything_is_logged(
    rig: Rig, texts, options, code, details
) -> None:  # type: ignore[no-untyped-def]  # the table above says what they are
    with pytest.raises(GatewayError) as refused:
        rig.send(texts, **options)
    assert refused.value.code == code
    if details is not None:
        assert refused.value.details == details
    assert await rig.events() == []
    assert (await rig.ask("still served")).answer is not None


async def test_a_refused_text_fails_its_request_alone(rig: Rig) -> None:
    rig.provider.behaviour = refuse("poison")
    good, bad = rig.send(["fine", "also fine"], id="good")[0], rig.send(["ok", "poison"], id="bad")[0]
    await asyncio.gather(good.wait(), bad.wait())
    assert good.answer is not None
    assert bad.refusal is not None
    assert (bad.refusal.code, bad.refusal.retryable) == ("provider_error", False)
    (failed,) = await rig.events("embedding.failed")
    assert isinstance(failed, EmbeddingFailed)
    assert (failed.code, failed.billed_tokens, failed.nano_usd) == ("provider_error", 0, 0)


async def test_a_cancel_before_anything_was_sent_costs_nothing(rig: Rig) -> None:
    rig.provider.gate.clear()
    rig.send("blocks the lane", id="first")
    await rig.provider.called.wait()
    reply, ticket = rig.send("one two three", id="second")
    ticket.cancel()
    await reply.wait()
    assert reply.refusal is not None
    assert reply.refusal.code == "cancelled"
    (failed,) = await rig.events("embedding.failed")
    assert isinstance(failed, EmbeddingFailed)
    assert (failed.request_id, failed.code, failed.billed_tokens) == ("second", "cancelled", 0)
    rig.provider.gate.set()


async def test_a_cancel_after_sending_is_billed_by_our_own_count_and_marked_as_estimated(rig: Rig) -> None:
    rig.provider.gate.clear()
    reply, ticket = rig.send("one two three")
    await rig.provider.called.wait()
    ticket.cancel()
    await reply.wait()
    (failed,) = await rig.events("embedding.failed")
    assert isinstance(failed, EmbeddingFailed)
    assert (failed.code, failed.billed_tokens, failed.estimated, failed.nano_usd) == ("cancelled", 3, True, 60)
    rig.provider.gate.set()


async def test_a_missed_deadline_is_told_in_time_and_logged(rig: Rig) -> None:
    rig.provider.gate.clear()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    reply = await rig.ask("one two", deadline_ms=60)
    assert 0.06 <= loop.time() - begun < 2
    assert reply.refusal is not None
    assert (reply.refusal.code, reply.refusal.retryable) == ("deadline_exceeded", True)
    await rig.service.drain(5)
    (failed,) = await rig.events("embedding.failed")
    assert isinstance(failed, EmbeddingFailed)
    assert (failed.code, failed.billed_tokens) == ("deadline_exceeded", 2)
    rig.provider.gate.set()


async def test_a_stream_that_fails_unbilled_leaves_nothing_of_its_own_in_the_cache(rig: Rig) -> None:
    texts = [f"text {i}" for i in range(20)]
    await rig.ask(texts[0], id="r0")

    def second(call: EmbedCall) -> None:
        if len(call.texts) < 16:
            raise ProviderError(ProviderFault.REFUSED, "as told")

    rig.provider.behaviour = second
    reply = await rig.ask(texts, id="r1", stream=True)
    assert reply.refusal is not None
    assert len(reply.streamed) == 17, "vectors of it had gone out"
    [_, failed] = [e for e in await rig.events() if not isinstance(e, EmbeddingRequested)]
    assert isinstance(failed, EmbeddingFailed)
    assert failed.nano_usd == 0
    assert len(rig.lru) == 1, "what had been paid for before stays"
    rig.provider.behaviour = None
    again = await rig.ask(texts, id="r2")
    assert again.answer is not None
    assert (again.answer.usage.cached_inputs, again.answer.usage.billed_tokens) == (1, 38)


async def test_a_stream_that_is_cancelled_is_billed_and_what_it_paid_for_stays_cached(rig: Rig) -> None:
    texts = [f"text {i}" for i in range(20)]
    held = asyncio.Event()

    def second(call: EmbedCall) -> None:
        if len(call.texts) < 16:
            rig.provider.gate.clear()
            held.set()

    rig.provider.behaviour = second
    reply, ticket = rig.send(texts, stream=True)
    while len(rig.lru) < 16:
        await asyncio.sleep(0.001)
    ticket.cancel()
    await reply.wait()
    rig.provider.gate.set()
    assert len(rig.lru) >= 16


async def test_one_tenants_cache_serves_no_other_tenant(rig: Rig) -> None:
    from domain.tenancy import Principal

    await rig.ask("shared words", id="a")
    rig.principal = Principal("k2", "globex", frozenset({"agent"}))
    other = await rig.ask("shared words", id="a")
    assert other.answer is not None
    assert other.answer.usage.cached_inputs == 0
    assert len(rig.provider.calls) == 2


async def test_draining_refuses_new_requests_and_waits_for_those_in_flight(rig: Rig) -> None:
    rig.provider.gate.clear()
    reply, _ = rig.send("one")
    await rig.provider.called.wait()
    drained = asyncio.create_task(rig.service.drain(10))
    await asyncio.wait({drained}, timeout=0)
    with pytest.raises(GatewayError) as refused:
        rig.send("two", id="r2")
    assert refused.value.code == "draining"
    rig.provider.gate.set()
    await drained
    assert reply.answer is not None


async def test_an_installation_key_cannot_generate(rig: Rig) -> None:
    from domain.tenancy import Principal

    rig.principal = Principal("k0", None, frozenset({"agent", "operator"}))
    with pytest.raises(GatewayError) as refused:
        rig.send("a")
    assert refused.value.code == "forbidden"


async def test_a_defect_while_counting_fails_that_request_alone_and_leaks_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("gateway.service.counting.count_off_loop", broken)
    reply = await rig.ask(["word " * 20] * 500, id="big")
    assert reply.refusal is not None
    assert reply.refusal.code == "internal"
    assert "secret" not in reply.refusal.message
    assert set(reply.refusal.details or {}) == {"trace"}
    assert (await rig.ask("still served", id="next")).answer is not None
