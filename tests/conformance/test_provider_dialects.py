"""The OpenAI provider against the servers that imitate OpenAI: vectors, usage and refusals of each are understood."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import numpy as np
import pytest

from adapters.providers.openai import OpenAIProvider
from adapters.providers.openai_errors import error_of, read_error
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from gateway.bench.connection import Answer
from gateway.bench.faults import Control, Fault
from gateway.bench.simulator import Simulator, SimulatorOptions, vector_of
from tests.conformance.dialects import DIALECTS, Body, Dialect, DialectApi, answer_of, error

MOST_TOKENS = 512
MOST_TEXTS = 32
SAYINGS = [
    pytest.param(d, *said, id=f"{d.name}-{said[0]}-{said[2]}-{number}")
    for d in DIALECTS
    for number, said in enumerate(d.says)
]


class Served:
    """One server and the adapter at it."""

    def __init__(self, dialect: Dialect, simulator: Simulator) -> None:
        self.dialect = dialect
        self.simulator = simulator
        self.provider = OpenAIProvider(Endpoint("e", "openai", {}, base_url=simulator.base_url), None)

    def call(self, *texts: str) -> EmbedCall:
        return EmbedCall(list(texts), "served", 10.0)

    async def refused(self, *texts: str) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            await self.provider.embed(self.call(*texts))
        assert "Karmesin" not in str(caught.value)
        assert self.simulator.stats.calls == 1
        return caught.value


@pytest.fixture
async def served(dialect: Dialect) -> AsyncIterator[Served]:
    options = SimulatorOptions(max_inputs=MOST_TEXTS, max_input_tokens=MOST_TOKENS, tokens="words")
    async with Simulator(options, DialectApi(dialect)) as simulator:
        made = Served(dialect, simulator)
        yield made
        await made.provider.close()


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
async def test_texts_get_their_own_vectors_and_tokens_as_far_as_they_are_told(served: Served) -> None:
    answer = await served.provider.embed(served.call("hello world", "b", "one two three"))
    assert np.array_equal(answer.vectors, [vector_of(text, 64) for text in ("hello world", "b", "one two three")])
    assert answer.tokens == (6 if served.dialect.usage in ("prompt_tokens", "total_tokens") else None)


@pytest.mark.parametrize("dialect", [d for d in DIALECTS if d.too_long is not None], ids=lambda d: d.name)
async def test_a_text_that_is_too_long_is_found_out_with_its_place_where_it_is_told(served: Served) -> None:
    refusal = await served.refused("short", "word " * MOST_TOKENS)
    assert refusal.fault is ProviderFault.TOO_LONG
    assert refusal.index == (1 if served.dialect.too_long_index else None)


@pytest.mark.parametrize("dialect", [d for d in DIALECTS if d.too_large is not None], ids=lambda d: d.name)
async def test_too_many_texts_are_too_large_a_call_and_no_text_is_blamed(served: Served) -> None:
    refusal = await served.refused(*(f"text {i}" for i in range(MOST_TEXTS + 1)))
    assert (refusal.fault, refusal.index) == (ProviderFault.TOO_LARGE, None)


@pytest.mark.parametrize(("dialect", "status", "body", "fault"), SAYINGS)
async def test_what_a_server_says_has_its_place_in_the_taxonomy(
    served: Served, monkeypatch: pytest.MonkeyPatch, status: int, body: Body, fault: ProviderFault
) -> None:
    def answers(_: Fault) -> Answer:
        return answer_of((status, body))

    monkeypatch.setattr(served.simulator.api, "fault_answer", answers)
    served.simulator.control(Control(faults=[Fault("status")]))
    assert (await served.refused("a", "b")).fault is fault


async def test_an_account_that_may_use_less_in_a_minute_than_a_call_needs_is_told_to_send_less() -> None:
    said = (
        "Request too large for text-embedding-3-small in organization org-x on tokens per min (TPM): Limit 40000, Requested 50000. "
        "The input or output tokens must be reduced in order to run successfully."
    )
    body = msgspec.json.encode(error(said, "tokens", "rate_limit_exceeded"))
    assert error_of(429, read_error(body), {}).fault is ProviderFault.TOO_LARGE


@pytest.mark.parametrize(
    "said",
    [
        "Cannot embed: maximum context length ... in input[0] ...",
        "the text 'see input[0] and input.0 for the maximum context length' has too many tokens",
    ],
)
def test_an_index_within_a_text_that_a_message_repeats_blames_no_other_text(said: str) -> None:
    found = error_of(400, read_error(msgspec.json.encode(error(said))), {})
    assert (found.fault, found.index) == (ProviderFault.TOO_LONG, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"error":null}',
        b'{"error":[1]}',
        b'{"detail":[]}',
        b'{"detail":[1]}',
        b"\xff\xfe",
    ],
)
def test_a_body_that_says_nothing_leaves_the_status_to_speak(body: bytes) -> None:
    assert error_of(503, read_error(body), {}).fault is ProviderFault.SERVER
    assert error_of(400, read_error(body), {}).fault is ProviderFault.REFUSED
