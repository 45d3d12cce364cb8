"""The bill of a request: by the price that it was admitted at, of what it was reserved by, unknown where that is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import GatewayError
from domain.events import EmbeddingFailed, EmbeddingGenerated, EmbeddingReembedded, EmbeddingRequested, PriceSet
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from domain.prices import PriceBook
from gateway.service import admission, pricing
from gateway.service.pending import Pending
from gateway.wire.messages import EmbeddingGenerate
from tests.unit.service.conftest import Recorder, Rig, make_rig


def priced(name: str, pico: int | None, unit: str = "token", tenant: str | None = None, begin: int = 0) -> PriceSet:
    return PriceSet(
        price=name, model="m", provider="p", effective_from=begin, unit=unit, unit_pico_usd=pico, for_tenant=tenant
    )  # fmt: skip


@asynccontextmanager
async def rig_of(*prices: PriceSet) -> AsyncIterator[Rig]:
    book = PriceBook()
    for data in prices:
        book.apply(data)
    rig = await make_rig(prices=book)
    try:
        yield rig
    finally:
        await rig.service.close()
        await rig.appender.close()


async def only(rig: Rig, kind: str) -> Any:
    [event] = await rig.events(kind)
    return event


async def test_an_unknown_price_is_nil_and_never_0() -> None:
    async with rig_of(priced("none-yet", None)) as rig:
        estimate, paid = await rig.ask("one two", id="a", dry_run=True), await rig.ask("one two", id="b")
        cached = await rig.ask("one two", id="c")
        for reply in (estimate, paid, cached):
            assert reply.answer is not None
            assert (reply.answer.cost.nano_usd, reply.answer.cost.price) == (None, "none-yet")
        (generated, _) = await rig.events("embedding.generated")
        assert isinstance(generated, EmbeddingGenerated)
        assert (generated.nano_usd, generated.unit_pico_usd, generated.billed_tokens) == (None, None, 2)
        assert generated.provider_nano_usd is None


async def test_where_nothing_was_ever_set_the_price_is_unknown() -> None:
    async with rig_of() as rig:
        reply = await rig.ask("one two")
        assert reply.answer is not None
        assert (reply.answer.cost.nano_usd, reply.answer.cost.price) == (None, "unknown")


async def test_a_tenant_pays_its_own_price_and_we_pay_the_list_price() -> None:
    async with rig_of(priced("list", 7_000), priced("own", 1_500, tenant="acme")) as rig:
        reply = await rig.ask(["one two", "three"])
        assert reply.answer is not None
        assert (reply.answer.cost.nano_usd, reply.answer.cost.price) == (5, "own")
        requested, generated = await only(rig, "embedding.requested"), await only(rig, "embedding.generated")
        assert (requested.reserved_nano_usd, generated.unit_pico_usd) == (5, 1_500)
        assert (generated.nano_usd, generated.provider_nano_usd) == (5, 21)


async def test_a_price_per_character_bills_code_points_and_usage_stays_in_tokens() -> None:
    async with rig_of(priced("chars", 1_500, "character")) as rig:
        texts = ["añ😀 b", "añ😀 b", "cd"]
        reply = await rig.ask(texts)
        assert reply.answer is not None
        assert (reply.answer.usage.tokens, reply.answer.usage.billed_tokens) == (5, 3)
        requested, generated = await only(rig, "embedding.requested"), await only(rig, "embedding.generated")
        assert requested.reserved_nano_usd == 18, "12 characters"
        assert (generated.characters, generated.nano_usd, generated.provider_nano_usd) == (7, 11, 11)
        cached = await rig.ask("cd", id="again")
        assert cached.answer is not None
        assert (cached.answer.cost.nano_usd, cached.answer.usage.billed_tokens) == (0, 0)


async def test_characters_are_those_of_the_texts_as_they_are_sent() -> None:
    async with rig_of(priced("chars", 1_000, "character")) as rig:
        await rig.ask("w " * 30, truncate="end")
        assert (await only(rig, "embedding.generated")).characters == len("w " * 20) - 1


async def test_a_tenant_may_pay_by_tokens_what_we_pay_by_characters() -> None:
    async with rig_of(priced("list", 1_000, "character"), priced("own", 2_000, tenant="acme")) as rig:
        await rig.ask("four words of text")
        generated = await only(rig, "embedding.generated")
        assert (generated.nano_usd, generated.provider_nano_usd, generated.characters) == (8, 18, 0)


async def test_tokens_cannot_be_sent_where_characters_are_billed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig_of(priced("chars", 1_000, "character")) as rig:
        message = EmbeddingGenerate(id="r", input="")
        monkeypatch.setattr(admission, "check_tokens_taken", lambda *_: None)
        with pytest.raises(GatewayError, match="billed by characters"):
            rig.service.generate(rig.principal, "a", message, [[1, 2]], Recorder())
        assert await rig.events() == []


@pytest.mark.parametrize("unit", ["token", "character"])
async def test_what_was_sent_before_a_cancel_is_billed_by_the_same_unit(unit: str) -> None:
    async with rig_of(priced("x", 1_000, unit)) as rig:
        rig.provider.gate.clear()
        reply, ticket = rig.send("one two")
        await rig.provider.called.wait()
        ticket.cancel()
        await reply.wait()
        rig.provider.gate.set()
        failed = await only(rig, "embedding.failed")
        assert (failed.billed_tokens, failed.nano_usd, failed.characters) == (
            (2, 2, 0) if unit == "token" else (2, 7, 7)
        )


async def test_what_a_provider_refused_is_billed_once_when_it_is_sent_again() -> None:
    async with rig_of(priced("chars", 1_000, "character")) as rig:
        faults = [ProviderError(ProviderFault.SERVER, "down")]

        def fail_once(call: EmbedCall) -> None:
            if faults:
                raise faults.pop()

        rig.provider.behaviour = fail_once
        await rig.ask("abc")
        generated = await only(rig, "embedding.generated")
        assert (generated.characters, generated.nano_usd) == (3, 3)


async def test_a_request_is_billed_by_the_price_it_was_admitted_at_however_long_it_takes() -> None:
    async with rig_of(priced("old", 1_000)) as rig:
        rig.provider.gate.clear()
        reply, _ = rig.send("one two")
        await rig.provider.called.wait()
        rig.prices.apply(priced("new", 9_000, begin=1))
        rig.provider.gate.set()
        await reply.wait()
        generated = await only(rig, "embedding.generated")
        assert (generated.price, generated.nano_usd) == ("old", 2)
        later = await rig.ask("three", id="later")
        assert later.answer is not None
        assert (later.answer.cost.price, later.answer.cost.nano_usd) == ("new", 9)


async def test_a_replay_repeats_the_first_bill_whatever_the_book_says_by_then() -> None:
    async with rig_of(priced("old", 1_000), priced("own", 500, tenant="acme")) as rig:
        first = await rig.ask("one two")
        rig.prices.apply(priced("new", 9_000, "character", begin=1))
        rig.prices.apply(msgspec.structs.replace(priced("own", 500, tenant="acme"), effective_until=1))
        rig.lru.resize(1, 3600)  # its vectors have left the cache
        again = await rig.ask("one two")
        assert first.answer is not None
        assert again.answer is not None
        assert again.answer.replayed
        assert (again.answer.cost, again.answer.usage) == (first.answer.cost, first.answer.usage)
        paid = await only(rig, "embedding.reembedded")
        assert isinstance(paid, EmbeddingReembedded)
        assert paid.provider_nano_usd == 63, "7 characters at the list price of then"


# -- no bill above its reservation --------------------------------------------------------------------------------------

_WORD = st.sampled_from(["a", "bb cc", "ddd e f", "ñ", "😀 😀"])
_PRICE = st.tuples(st.none() | st.integers(0, 5_000), st.sampled_from(["token", "character"]))


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(st.lists(_WORD, min_size=1, max_size=4), min_size=1, max_size=4),
    listed=_PRICE,
    own=st.none() | _PRICE,
    raised=_PRICE,
    cancelled=st.booleans(),
)
async def test_no_request_is_billed_above_what_it_reserved_and_its_parts_add_up(
    requests: list[list[str]],
    listed: tuple[int | None, str],
    own: tuple[int | None, str] | None,
    raised: tuple[int | None, str],
    cancelled: bool,
) -> None:
    """Whatever is cached, shared, cancelled or repriced on the way."""
    prices = [priced("list", *listed)] + ([] if own is None else [priced("own", *own, tenant="acme")])
    async with rig_of(*prices) as rig:
        rig.provider.gate.clear()
        sent = [rig.send(texts, id=f"r{n}") for n, texts in enumerate(requests)]
        await asyncio.wait_for(rig.provider.called.wait(), 10)
        rig.prices.apply(priced("raised", *raised, begin=1))
        if cancelled:
            sent[0][1].cancel()
        rig.provider.gate.set()
        for reply, _ in sent:
            await reply.wait()
        await bills_hold(rig, requests, *(own or listed))


async def bills_hold(rig: Rig, requests: Sequence[list[str]], unit_pico_usd: int | None, unit: str) -> None:
    """Every outcome is within what was reserved, and is what its own parts say."""
    reserved = {e.request_id: e for e in await rig.events("embedding.requested") if isinstance(e, EmbeddingRequested)}
    outcomes = [*await rig.events("embedding.generated"), *await rig.events("embedding.failed")]
    assert len(outcomes) == len(reserved) == len(requests)
    for event in outcomes:
        assert isinstance(event, EmbeddingGenerated | EmbeddingFailed)
        requested = reserved[event.request_id]
        assert event.billed_tokens <= requested.reserved_tokens
        if event.nano_usd is None:
            assert requested.reserved_nano_usd is unit_pico_usd is None
            continue
        assert requested.reserved_nano_usd is None or event.nano_usd <= requested.reserved_nano_usd
        units = event.characters if unit == "character" else event.billed_tokens
        exact = Fraction(units * (unit_pico_usd or 0), 1000)
        assert 0 <= event.nano_usd - exact < 1


async def test_a_bill_at_the_price_of_the_outcome_is_found_to_exceed_its_reservation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control."""
    book: list[PriceBook] = []
    honest: Callable[[Pending, PriceBook], None] = pricing.pin

    async with rig_of(priced("list", 1_000)) as rig:
        book.append(rig.prices)
        completed = rig.service.completed

        def repriced(pending: Pending) -> None:
            pending.at = 2_000_000
            honest(pending, book[0])
            pending.reserved = (pending.reserved[0], None)  # else what was reserved bounds the bill
            completed(pending)

        monkeypatch.setattr(rig.service, "completed", repriced)
        rig.provider.gate.clear()
        reply, _ = rig.send("one two", id="r0")
        await rig.provider.called.wait()
        rig.prices.apply(priced("raised", 9_000, begin=1))
        rig.provider.gate.set()
        await reply.wait()
        with pytest.raises(AssertionError):
            await bills_hold(rig, [["one two"]], 1_000, "token")
