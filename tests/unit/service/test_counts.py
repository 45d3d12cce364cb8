"""Whose count of tokens is billed: our tokeniser's, which is exact; else the provider's; else our estimate, which says so."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest

from domain.events import EmbeddingGenerated
from domain.ports.provider import EmbedAnswer, EmbedCall
from tests.unit.service import conftest
from tests.unit.service.conftest import PRICE_PICO, Rig, make_rig, vector_of

TEXTS = ["one", "two words"]


@pytest.fixture
async def uncounted(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A model whose tokeniser nobody has."""
    monkeypatch.setattr(conftest, "Words", lambda: None)
    rig = await make_rig()
    yield rig
    await rig.service.close()
    await rig.appender.close()


def telling(rig: Rig, tokens: int | None, text_tokens: list[int] | None = None) -> None:
    """Let its provider tell these counts."""

    async def embed(call: EmbedCall) -> EmbedAnswer:
        return EmbedAnswer(np.stack([vector_of(t) for t in call.texts]), tokens, text_tokens)

    rig.provider.embed = embed  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("tokens", "text_tokens", "billed"), [(7, None, 7), (7, [3, 4], 7), (2, None, 2)], ids=["of the call", "of each text", "few"]
)  # fmt: skip
async def test_where_we_cannot_count_the_providers_count_is_billed_and_is_no_estimate(
    uncounted: Rig, tokens: int, text_tokens: list[int] | None, billed: int
) -> None:
    telling(uncounted, tokens, text_tokens)
    reply = await uncounted.ask(TEXTS)
    assert reply.answer is not None, reply.refusal
    usage = reply.answer.usage
    assert (usage.billed_tokens, usage.estimated) == (billed, False)
    assert reply.answer.cost.nano_usd == -(-billed * PRICE_PICO // 1000)
    [event] = await uncounted.events("embedding.generated")
    assert isinstance(event, EmbeddingGenerated)
    assert (event.billed_tokens, event.estimated) == (billed, False)


async def test_where_nobody_counts_our_estimate_is_billed_and_says_so(uncounted: Rig) -> None:
    telling(uncounted, None)
    reply = await uncounted.ask(TEXTS)
    assert reply.answer is not None, reply.refusal
    usage = reply.answer.usage
    assert usage.estimated
    assert 2 <= usage.billed_tokens <= sum(map(len, TEXTS)) + 8
    [event] = await uncounted.events("embedding.generated")
    assert isinstance(event, EmbeddingGenerated)
    assert (event.billed_tokens, event.estimated) == (usage.billed_tokens, True)


@pytest.mark.parametrize("told", [None, 1, 300])
async def test_an_exact_count_of_ours_stands_whatever_the_provider_says(rig: Rig, told: int | None) -> None:
    telling(rig, told)
    reply = await rig.ask(TEXTS)
    assert reply.answer is not None, reply.refusal
    assert (reply.answer.usage.billed_tokens, reply.answer.usage.estimated) == (3, False)
