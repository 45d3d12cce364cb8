"""The simulated provider: vectors that betray a mix-up, OpenAI's answers and limits, faults on demand, honest statistics."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any, Literal

import numpy as np
import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from openai import AsyncOpenAI

from gateway.bench.faults import Control, Fault, FaultPlan
from gateway.bench.provider import SimulatedProvider
from gateway.bench.simulator import Simulator, SimulatorOptions, options_of, vector_of
from gateway.bench.tokens import bytes_of_tokens
from gateway.bench.vectors import table_of
from tests.support.waiting import until


class TestVectors:
    @given(st.text(), st.integers(1, 3072))
    def test_a_vector_has_length_one_and_depends_on_the_text_alone(self, text: str, dimensions: int) -> None:
        vector = vector_of(text, dimensions)
        assert vector.shape == (dimensions,)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector.astype(np.float64)) == pytest.approx(1.0, abs=1e-6)
        assert np.array_equal(vector, vector_of(text, dimensions))

    def test_no_two_of_many_texts_share_a_vector(self) -> None:
        vectors = {vector_of(f"text {i}", 8).tobytes() for i in range(20_000)}
        assert len(vectors) == 20_000

    @given(st.text(), st.sampled_from([1, 2, 3, 4, 5, 64, 1536]))
    def test_base64_and_json_say_the_same_numbers(self, text: str, dimensions: int) -> None:
        table = table_of(dimensions)
        vector = table.vector(text)
        assert np.array_equal(np.frombuffer(pybase64.b64decode(b"".join(table.base64(text))), dtype="<f4"), vector)
        assert np.array_equal(np.array(json.loads(table.json(text)), dtype=np.float32), vector)

    def test_another_process_gives_the_same_vector(self) -> None:
        code = "from gateway.bench.simulator import vector_of; print(vector_of('a text', 1536).tobytes().hex())"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert out.strip() == vector_of("a text", 1536).tobytes().hex()


@pytest.mark.parametrize("tokens", [[-1], [100_256], [2**40], [160]])
def test_tokens_that_spell_no_text_have_a_vector_of_their_own(tokens: list[int]) -> None:
    assert bytes_of_tokens(tokens) == b"tokens %r" % tokens
    assert bytes_of_tokens([15339, 1917]) == b"hello world"


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[AsyncOpenAI]:
    """The official client, unchanged, with its own parsing: the judge of whether this is OpenAI's API."""
    async with AsyncOpenAI(api_key="any", base_url=simulator.base_url, max_retries=0) as opened:
        yield opened


MODEL = "text-embedding-3-small"


def vector_in(given_embedding: list[float] | str) -> NDArray[np.float32]:
    """The vector in an answer: the client hands base64 on undecoded where the caller asked for it himself."""
    if isinstance(given_embedding, str):
        return np.frombuffer(pybase64.b64decode(given_embedding), dtype="<f4")
    return np.array(given_embedding, dtype=np.float32)


class TestAnswers:
    async def test_the_official_client_reads_its_answers(self, client: AsyncOpenAI) -> None:
        formats: tuple[Literal["base64", "float"], ...] = ("base64", "float")
        for encoding in formats:
            answer = await client.embeddings.create(
                model=MODEL, input=["hello world", "again"], encoding_format=encoding
            )
            assert [d.index for d in answer.data] == [0, 1]
            assert np.array_equal(vector_in(answer.data[1].embedding), vector_of("again", 1536))
            assert answer.usage.prompt_tokens == 3

    async def test_a_single_text_a_list_and_tokens_are_taken(self, client: AsyncOpenAI) -> None:
        expected = vector_of("hello world", 1536)
        for given_input in ("hello world", ["hello world"], [15339, 1917], [[15339, 1917]]):
            answer = await client.embeddings.create(model=MODEL, input=given_input)
            assert np.array_equal(np.array(answer.data[0].embedding, dtype=np.float32), expected)

    @pytest.mark.parametrize("given_input", [[], "", ["a", ""], [[]], ["a", [1]], [1, "a"]])
    async def test_empty_and_mixed_inputs_are_refused(self, client: AsyncOpenAI, given_input: Any) -> None:
        with pytest.raises(Exception, match="400"):
            await client.embeddings.create(model=MODEL, input=given_input)

    @pytest.mark.parametrize("dimensions", [0, -1, 1537])
    async def test_sizes_that_the_model_cannot_give_are_refused(self, client: AsyncOpenAI, dimensions: int) -> None:
        with pytest.raises(Exception, match=r"400.*dimensions"):
            await client.embeddings.create(model=MODEL, input="a", dimensions=dimensions)

    async def test_a_body_that_is_no_json_is_refused_and_the_connection_stays_open(self, simulator: Simulator) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(simulator.url.rpartition(":")[2]))
        for body in (b"{", b'{"model": 3}', b"{}"):
            writer.write(b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 400 " in head
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()
        await writer.wait_closed()

    async def test_pipelined_requests_are_answered_in_their_order(self, simulator: Simulator) -> None:
        simulator.control(Control(faults=[Fault("slow", delay_ms=20)]))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(simulator.url.rpartition(":")[2]))
        for text in ("first", "second"):
            body = json.dumps({"model": MODEL, "input": text, "dimensions": 4}).encode()
            writer.write(b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        for text in ("first", "second"):
            head = await reader.readuntil(b"\r\n\r\n")
            answer = json.loads(await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0])))
            assert np.array_equal(np.array(answer["data"][0]["embedding"], dtype=np.float32), vector_of(text, 4))
        writer.close()
        await writer.wait_closed()


class TestControl:
    async def test_a_fault_happens_as_often_as_it_was_asked_for(
        self, simulator: Simulator, client: AsyncOpenAI
    ) -> None:
        simulator.control(Control(faults=[Fault("status", status=503, count=2)]))
        for _ in range(2):
            with pytest.raises(Exception, match="503"):
                await client.embeddings.create(model=MODEL, input="a")
        await client.embeddings.create(model=MODEL, input="a")
        assert simulator.stats.statuses == {503: 2, 200: 1}

    async def test_a_marked_text_fails_every_call_that_holds_it_and_no_other(
        self, simulator: Simulator, client: AsyncOpenAI
    ) -> None:
        simulator.control(Control(faults=[Fault("status", status=400, count=-1, marker="poison")]))
        await client.embeddings.create(model=MODEL, input=["a", "b"])
        for _ in range(3):
            with pytest.raises(Exception, match="400"):
                await client.embeddings.create(model=MODEL, input=["a", "some poison here", "b"])
        simulator.control(Control(clear=True))
        await client.embeddings.create(model=MODEL, input=["a", "some poison here", "b"])

    async def test_held_answers_leave_together_when_they_are_let_go(
        self, simulator: Simulator, client: AsyncOpenAI
    ) -> None:
        simulator.control(Control(hold=True))
        calls = [asyncio.create_task(client.embeddings.create(model=MODEL, input=str(i))) for i in range(3)]
        await until(lambda: simulator.stats.in_flight == 3, what="three calls in flight")
        assert not any(call.done() for call in calls)
        simulator.control(Control(hold=False))
        await asyncio.gather(*calls)
        assert (simulator.stats.in_flight, simulator.stats.max_in_flight) == (0, 3)

    def test_rates_are_met_and_a_seed_repeats_them(self) -> None:
        def faults(seed: int) -> list[bool]:
            plan = FaultPlan({"status": 0.25}, seed)
            return [plan.take(["a"]) is not None for _ in range(4000)]

        assert sum(faults(1)) == pytest.approx(1000, abs=120)
        assert faults(1) == faults(1) != faults(2)

    def test_the_command_line_sets_every_option(self) -> None:
        line = (
            "--port 9 --key k --latency-ms 3 --latency-per-text-us 2 --max-inputs 4 --max-input-tokens 5 --max-tokens 6 "
            "--tokens words --no-base64 --model tiny=8 --rate hang=0.5 --seed 7"
        )
        options = options_of(line.split())
        assert options == SimulatorOptions(
            port=9, key="k", latency_ms=3, latency_per_text_us=2, max_inputs=4, max_input_tokens=5, max_tokens=6, tokens="words",
            base64=False, models=SimulatorOptions().models | {"tiny": 8}, rates={"hang": 0.5}, seed=7,
        )  # fmt: skip


async def test_as_a_process_of_its_own_it_is_steered_and_questioned_over_http() -> None:
    async with SimulatedProvider.started({0}, "--latency-ms", "1") as provider:
        await provider.control(faults=[{"kind": "status", "status": 429, "retry_after": "2"}])
        async with AsyncOpenAI(api_key="any", base_url=provider.url + "/v1", max_retries=0) as client:
            with pytest.raises(Exception, match="429"):
                await client.embeddings.create(model=MODEL, input="one two")
            await client.embeddings.create(model=MODEL, input=["one two", "three"])
        stats = await provider.stats()
        assert (stats.calls, stats.inputs, stats.largest, stats.recent) == (2, 3, 2, [1, 2])
        assert (stats.tokens, stats.statuses) == (5, {429: 1, 200: 1})
        await provider.control(reset=True)
        assert (await provider.stats()).calls == 0
