"""What is reserved, charged and said where a price is unknown."""

from __future__ import annotations

import pytest

from domain.catalogue import Catalogue, Endpoint, Model, Offering, Price
from domain.events import EmbeddingGenerated, EmbeddingRequested
from tests.unit.service import conftest
from tests.unit.service.conftest import DIMENSIONS, Rig, make_rig


async def test_an_unknown_price_is_nil_and_never_0(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpriced() -> Catalogue:
        model = Model("m", "1", DIMENSIONS, max_tokens=20, tokenizer="words", unit=False, rank=1)
        offering = Offering("m", "p", "m", Price("none-yet", None), max_inputs=16, max_tokens_per_call=1000)
        return Catalogue([model], [offering], [Endpoint("e", "p", {"m": ""})])

    monkeypatch.setattr(conftest, "make_catalogue", unpriced)
    rig = await make_rig()
    try:
        estimate, paid = await rig.ask("one two", id="a", dry_run=True), await rig.ask("one two", id="b")
        cached = await rig.ask("one two", id="c")
        for reply in (estimate, paid, cached):
            assert reply.answer is not None
            assert (reply.answer.cost.nano_usd, reply.answer.cost.price) == (None, "none-yet")
        (generated, _) = await rig.events("embedding.generated")
        assert isinstance(generated, EmbeddingGenerated)
        assert (generated.nano_usd, generated.unit_pico_usd, generated.billed_tokens) == (None, None, 2)
    finally:
        await rig.service.close()
        await rig.appender.close()


async def test_no_request_is_billed_above_what_it_reserved(rig: Rig) -> None:
    await rig.ask(["one two", "one two", "three"], id="a")
    await rig.ask(["three", "four five six"], id="b")
    reserved = {e.request_id: e for e in await rig.events("embedding.requested") if isinstance(e, EmbeddingRequested)}
    billed = {e.request_id: e for e in await rig.events("embedding.generated") if isinstance(e, EmbeddingGenerated)}
    assert {name: (e.reserved_tokens, billed[name].billed_tokens) for name, e in reserved.items()} == {
        "a": (5, 3),
        "b": (4, 3),
    }
    for name, event in reserved.items():
        assert (billed[name].nano_usd or 0) <= (event.reserved_nano_usd or 0)
