"""What is asked of a whole gateway in one request: limits that need its catalogue, its tokenisers and its log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from emberlog_client import Client, Encoding, Preferences
from tests.acceptance.conftest import Running
from tests.acceptance.peer import rows_of, session
from tests.acceptance.provider import DIMENSIONS, MODEL, Simulator

LOCAL = "all-MiniLM-L6-v2"
REFUSALS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "unknown-model": ({"model": "no-such-model"}, "model_not_found", {"field": "model"}),
    "size-not-offered": ({"model": LOCAL, "dimensions": 100}, "invalid_request", {"field": "dimensions"}),
    "size-too-large": ({"dimensions": 1537}, "invalid_request", {"field": "dimensions"}),
    "no-text": ({"input": []}, "invalid_request", {"field": "input"}),
    "empty-text": ({"input": ["a", "", "c"]}, "invalid_request", {"field": "input", "index": 1}),
    "too-many-texts": ({"input": ["a"] * 10_001}, "invalid_request", {"field": "input"}),
    "too-many-characters": ({"input": "a" * 200_001}, "invalid_request", {"field": "input", "index": 0}),
    "over-the-models-limit": (
        {"input": ["short", "word " * 300], "model": LOCAL, "dimensions": None},
        "input_too_long",
        {"field": "input", "index": 1},
    ),
    "answer-too-large": (
        {"input": [f"{n}" for n in range(3000)], "dimensions": 1536},
        "invalid_request",
        {"field": "stream"},
    ),
    "no-time": ({"deadline_ms": 0}, "invalid_request", {"field": "deadline_ms"}),
    "too-much-metadata": ({"metadata": {"note": "x" * 3000}}, "invalid_request", {"field": "metadata"}),
    "nul": ({"input": "a\0b"}, "invalid_message", {}),
    "wrong-type": ({"input": 7}, "invalid_message", {"field": "input"}),
}


@pytest.mark.parametrize("case", list(REFUSALS))
async def test_a_request_that_cannot_be_served_is_refused_by_name_and_leaves_nothing_in_the_log(
    shared: Running, provider: Simulator, case: str
) -> None:
    fields, code, details = REFUSALS[case]
    async with session(shared.url, shared.key) as peer:
        refused = await peer.embed(case, **{"texts": "text", **fields})
        assert (refused["type"], refused["code"], refused["retryable"]) == ("error", code, False), refused
        assert details.items() <= refused["details"].items()
        assert (await peer.embed(f"{case}-after", "the connection is still good"))["type"] == "embedding.result"
    assert await shared.site.request_events(case) == []


async def test_a_text_over_the_limit_is_cut_where_that_was_asked_for(shared: Running, provider: Simulator) -> None:
    async with Client(shared.url, shared.key, proxy=None) as client:
        result = await client.generate(["short", "word " * 300], model=LOCAL, truncate="end")
    assert result.usage.truncated == (1,)
    assert result.usage.tokens == 3 + 256


@pytest.mark.parametrize(("encoding", "error"), [("float16", 1e-3), ("int8", 1e-2), ("ubinary", None)])
async def test_every_encoding_says_the_same_vector_as_exactly_as_it_can(
    shared: Running, provider: Simulator, encoding: Encoding, error: float | None
) -> None:
    async with Client(shared.url, shared.key, proxy=None) as client:
        exact = (await client.generate("one vector", model=MODEL, dimensions=DIMENSIONS)).float32()
        again = await client.generate("one vector", model=MODEL, dimensions=DIMENSIONS, encoding=encoding)
        coded = again.float32()
    assert again.usage.cached_inputs == 1, "what is cached is had in every form"
    if error is None:
        assert (np.sign(coded) == np.where(exact > 0, 1, -1)).all()
    else:
        assert np.abs(coded - exact).max() <= error


async def test_an_estimate_names_the_price_and_leaves_nothing_in_the_log(shared: Running, provider: Simulator) -> None:
    async with session(shared.url, shared.key) as peer:
        estimate = await peer.embed("estimate", "what would this cost?", dry_run=True)
        assert (estimate["model"], estimate["event"], estimate["usage"]["tokens"]) == (MODEL, None, 5)
        assert "vectors" not in estimate
        assert await shared.site.request_events("estimate") == []
        real = await peer.embed("estimate", "what would this cost?")
    assert real["cost"] == estimate["cost"]
    assert real["cost"]["nano_usd"] == 100
    assert len(await shared.site.request_events("estimate")) == 2


async def test_an_agents_registered_preference_chooses_the_model_from_then_on(
    shared: Running, provider: Simulator
) -> None:
    async with Client(shared.url, shared.key, agent="chooser", proxy=None) as client:
        for number, model in enumerate((LOCAL, MODEL), start=1):
            assert (await client.register(Preferences(strategy="fixed", models=[model]))).version == number
            assert (await client.generate(f"whichever {number}")).model == model


async def test_ten_thousand_texts_are_one_stream_and_one_bill(shared: Running, provider: Simulator) -> None:
    texts = [f"text {n}" for n in range(10_000)]
    rows = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    async with Client(shared.url, shared.key, proxy=None) as client:
        stream = client.stream(texts, model=MODEL, dimensions=DIMENSIONS, id="ten-thousand")
        async for chunk in stream:
            rows[chunk.offset : chunk.offset + chunk.count] = chunk.vectors
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert len(await shared.site.request_events("ten-thousand")) == 2
    assert stream.result.usage.billed_tokens == stream.result.usage.tokens


async def test_no_text_key_or_metadata_reaches_the_database_or_the_logs(shared: Running, provider: Simulator) -> None:
    provider.fault("status", status=400, message="do not repeat zanzibar-quartz", marker="refused-quartz", count=-1)
    async with session(shared.url, shared.key, "agent-onyx") as peer:
        await peer.embed("secrecy", ["zanzibar-quartz"], metadata={"note": "metadata-quartz"})
        assert (await peer.embed("secrecy-refused", ["refused-quartz"]))["code"] == "provider_error"
        assert rows_of(await peer.embed("secrecy-after", ["after"])).shape == (1, DIMENSIONS)
    await shared.site.ask("usage", "--grain", "minute")
    secret = shared.key.split("_", 2)[2]
    held = await shared.site.files_with("agent-onyx", "zanzibar-quartz", "refused-quartz", "metadata-quartz", secret)
    assert held["agent-onyx"], "the search finds not even what the log does hold"
    del held["agent-onyx"]
    held[secret].discard("gateway.log")  # where the first start shows it, once
    assert not any(held.values()), held
