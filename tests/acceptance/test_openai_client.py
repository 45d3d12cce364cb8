"""The official `openai` client, unchanged, on the same gateway as ours."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from emberlog_client import Client
from tests.acceptance.conftest import Running
from tests.acceptance.provider import DIMENSIONS, MODEL, Simulator

LOCAL = "all-MiniLM-L6-v2"
TEXTS = ["A gateway for embeddings.", "Ein Satz über Straßen und Flüsse.", "短い文", "emoji 🙂 and\ttabs"]

TOKENS = {"hello world": [15339, 1917], "tiktoken is great!": [83, 1609, 5963, 374, 2294, 0]}
"""Texts and their tokens in cl100k_base, as OpenAI's documentation gives them."""


@pytest.fixture
async def sdk(shared: Running, provider: Simulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{shared.url}/v1", api_key=shared.key, max_retries=0) as client:
        yield client


@pytest.fixture
async def ours(shared: Running, provider: Simulator) -> AsyncIterator[Client]:
    async with Client(shared.url, shared.key, agent="ours", proxy=None) as client:
        yield client


def _floats(answer: Any) -> NDArray[np.float32]:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    rows = [
        np.frombuffer(base64.b64decode(item.embedding), dtype="<f4")
        if isinstance(item.embedding, str)
        else np.array(item.embedding, dtype=np.float32)
        for item in answer.data
    ]
    return np.stack(rows)


@pytest.mark.parametrize("options", [{"model": LOCAL}, {"model": MODEL, "dimensions": DIMENSIONS}, {"model": MODEL}])
@pytest.mark.parametrize("encoding", [None, "float", "base64"])
async def test_it_gets_the_same_vectors_as_our_client(
    sdk: openai.AsyncOpenAI, ours: Client, options: dict[str, Any], encoding: Any
) -> None:
    chosen = {} if encoding is None else {"encoding_format": encoding}
    answer = await sdk.embeddings.create(input=TEXTS, **options, **chosen)
    wanted = await ours.generate(TEXTS, cache="off", **options)
    assert (_floats(answer) == wanted.float32()).all()
    assert answer.model == options["model"]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == wanted.usage.tokens


async def test_a_single_text_and_a_list_of_one_are_the_same_request_to_it(
    sdk: openai.AsyncOpenAI, ours: Client
) -> None:
    wanted = (await ours.generate("one text", model=LOCAL)).float32()
    assert (_floats(await sdk.embeddings.create(input="one text", model=LOCAL)) == wanted).all()
    assert (_floats(await sdk.embeddings.create(input=["one text"], model=LOCAL)) == wanted).all()


async def test_token_arrays_stand_for_the_texts_they_encode(sdk: openai.AsyncOpenAI, ours: Client) -> None:
    wanted = (await ours.generate(list(TOKENS), model=MODEL, dimensions=DIMENSIONS)).float32()
    many = await sdk.embeddings.create(input=list(TOKENS.values()), model=MODEL, dimensions=DIMENSIONS)
    assert (_floats(many) == wanted).all()
    assert many.usage.prompt_tokens == sum(map(len, TOKENS.values()))
    one = await sdk.embeddings.create(input=TOKENS["hello world"], model=MODEL, dimensions=DIMENSIONS)
    assert (_floats(one) == wanted[:1]).all()


async def test_refusals_arrive_as_its_own_exceptions(shared: Running, sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await sdk.embeddings.create(input="text", model="no-such-model")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as empty:
        await sdk.embeddings.create(input=["fine", ""], model=LOCAL)
    assert (empty.value.code, empty.value.param) == ("invalid_request", "input")
    with pytest.raises(openai.BadRequestError) as size:
        await sdk.embeddings.create(input="text", model=LOCAL, dimensions=100)
    assert (size.value.code, size.value.param) == ("invalid_request", "dimensions")
    async with openai.AsyncOpenAI(base_url=f"{shared.url}/v1", api_key="em_wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as who:
            await stranger.embeddings.create(input="text", model=LOCAL)
    assert who.value.code == "unauthorized"


async def test_a_provider_that_fails_is_its_server_error_and_one_that_refuses_is_not_retried(
    sdk: openai.AsyncOpenAI, provider: Simulator
) -> None:
    provider.fault("status", status=400, marker="refuse me", count=-1)
    with pytest.raises(openai.APIStatusError) as refused:
        await sdk.embeddings.create(input="refuse me", model=MODEL)
    assert (refused.value.status_code, refused.value.code) == (502, "provider_error")
    assert refused.value.response.headers["x-should-retry"] == "false"


async def test_it_lists_the_models_that_it_can_ask_for(sdk: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in sdk.models.list()]
    assert {LOCAL, MODEL} <= set(listed)
    assert (await sdk.models.retrieve(LOCAL)).id == LOCAL
