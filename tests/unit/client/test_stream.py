from __future__ import annotations

import asyncio

import numpy as np
import pytest

from emberlog_client import Chunk, Client, Encoding, ModelNotFound, ProtocolViolation, SpaceChanged
from tests.support.fake_gateway import KEY, FakeGateway, Message, Peer, vector

TEXTS = [f"text {n}" for n in range(10)]


def rows(texts: list[str], model: str = "fake-model") -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([vector(text, 12, model) for text in texts], dtype=np.float32)


def assemble(chunks: list[Chunk]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The rows in order, each of them given exactly once."""
    places = [chunk.offset + k for chunk in chunks for k in range(chunk.count)]
    assert sorted(places) == list(range(len(TEXTS)))
    return np.concatenate([chunk.float32(12) for chunk in chunks])[np.argsort(places)]


async def test_chunks_arrive_as_they_come_and_the_result_after_them(client: Client) -> None:
    stream = client.stream(TEXTS)
    with pytest.raises(RuntimeError, match="not ended"):
        _ = stream.result
    chunks = [chunk async for chunk in stream]
    assert [(chunk.offset, chunk.count) for chunk in chunks] == [(0, 4), (4, 4), (8, 2)]
    np.testing.assert_array_equal(assemble(chunks), rows(TEXTS))
    assert stream.result.usage.tokens == 60
    assert stream.result.vectors.shape == (0, 12)
    with pytest.raises(RuntimeError, match="once"):
        aiter(stream)


async def test_the_first_chunk_is_given_before_the_outcome_exists(gateway: FakeGateway, client: Client) -> None:
    rest = asyncio.Event()

    async def halting(peer: Peer, request: Message) -> None:
        await gateway.chunk(peer, request, 0, [vector(text, 12) for text in TEXTS[:3]])
        await rest.wait()
        await gateway.chunk(peer, request, 3, [vector(text, 12) for text in TEXTS[3:]])
        await peer.send(gateway.outcome(request, "fake-model", 12))

    gateway.behaviour = halting
    chunks = []
    async for chunk in client.stream(TEXTS):
        chunks.append(chunk)
        rest.set()
    np.testing.assert_array_equal(assemble(chunks), rows(TEXTS))


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "ubinary"])
async def test_a_restart_in_the_middle_gives_no_text_twice_even_if_the_chunks_are_cut_otherwise(
    gateway: FakeGateway, client: Client, encoding: Encoding
) -> None:
    async def restarted(peer: Peer, request: Message) -> None:
        if len(gateway.messages("session.open")) == 1:
            for low, high in ((7, 9), (1, 4)):  # out of order, with holes
                await gateway.chunk(peer, request, low, [vector(text, 12) for text in TEXTS[low:high]])
            await gave.wait()
            peer.cut()
        else:
            await gateway.answer(peer, request)

    gave = asyncio.Event()
    gateway.behaviour = restarted
    chunks = []
    async for chunk in client.stream(TEXTS, encoding=encoding):
        chunks.append(chunk)
        gave.set()
    assert [(chunk.offset, chunk.count) for chunk in chunks] == [(7, 2), (1, 3), (0, 1), (4, 3), (9, 1)]
    exact = rows(TEXTS)
    if encoding == "ubinary":
        exact = np.where(exact > 0, 1, -1).astype(np.float32)
    np.testing.assert_allclose(assemble(chunks), exact, atol=1 / 127 if encoding == "int8" else 0)
    assert len(gateway.messages("embedding.generate")) == 2


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "ubinary"])
async def test_a_restart_in_another_space_is_refused_rather_than_mixed(
    gateway: FakeGateway, client: Client, encoding: Encoding
) -> None:
    async def moved(peer: Peer, request: Message) -> None:
        if len(gateway.messages("session.open")) == 1:
            await gateway.chunk(peer, request, 0, [vector(text, 12) for text in TEXTS[:4]])
            peer.cut()
        else:
            await gateway.answer(peer, request | {"model": "other-model"})

    gateway.behaviour = moved
    with pytest.raises(SpaceChanged):
        async for _ in client.stream(TEXTS, encoding=encoding):
            pass


async def test_each_request_of_a_long_stream_is_watched_for_another_space(gateway: FakeGateway) -> None:
    gateway.limits["max_inputs"] = 5
    late: list[str] = []

    async def second_moved(peer: Peer, request: Message) -> None:
        if request["input"][0] == TEXTS[5] and not late:
            late.append(request["id"])
            await gateway.chunk(peer, request, 1, [vector(text, 12) for text in request["input"][1:3]])
            peer.cut()
        else:
            model = "other-model" if request["id"] in late else "fake-model"
            answer = gateway.outcome(request, "fake-model", 12)  # the space it names is not the space of its chunks
            await gateway.chunk(peer, request, 0, [vector(text, 12, model) for text in request["input"]])
            await peer.send(answer)

    gateway.behaviour = second_moved
    async with Client(gateway.url, KEY, proxy=None) as client:
        with pytest.raises(SpaceChanged):
            async for _ in client.stream(TEXTS):
                pass


async def test_generate_takes_only_the_last_attempts_rows_so_another_space_is_no_mixture(
    gateway: FakeGateway, client: Client
) -> None:
    async def moved(peer: Peer, request: Message) -> None:
        if len(gateway.messages("session.open")) == 1:
            await gateway.chunk(peer, request, 4, [vector(text, 16) for text in TEXTS[4:8]])
            peer.cut()
        else:
            await gateway.answer(peer, request | {"model": "other-model"})

    gateway.behaviour = moved
    seen: list[int] = []
    result = await client.generate(TEXTS, progress=lambda done, _: seen.append(done))
    np.testing.assert_array_equal(result.vectors, rows(TEXTS, "other-model"))
    assert seen == [4, 8, 10]  # progress never goes back


async def test_rows_of_a_lost_attempt_do_not_count_towards_the_next(gateway: FakeGateway, client: Client) -> None:
    async def halves(peer: Peer, request: Message) -> None:
        if len(gateway.messages("session.open")) == 1:
            await gateway.chunk(peer, request, 0, [vector(text, 12) for text in TEXTS[:5]])
            peer.cut()
        else:
            await gateway.chunk(peer, request, 5, [vector(text, 12, "other-model") for text in TEXTS[5:]])
            await peer.send(gateway.outcome(request, "other-model", 12))

    gateway.behaviour = halves
    with pytest.raises(ProtocolViolation, match="5 of 10"):
        await client.generate(TEXTS, progress=lambda *_: None)


async def test_a_refusal_after_some_chunks_is_raised_in_the_loop(gateway: FakeGateway, client: Client) -> None:
    async def breaking(peer: Peer, request: Message) -> None:
        await gateway.chunk(peer, request, 0, [vector(TEXTS[0], 12)])
        await peer.refuse(request, "model_not_found")

    gateway.behaviour = breaking
    chunks = aiter(client.stream(TEXTS))
    assert (await anext(chunks)).count == 1
    with pytest.raises(ModelNotFound):
        await anext(chunks)


async def test_leaving_the_loop_early_cancels_the_request(gateway: FakeGateway, client: Client) -> None:
    never = asyncio.Event()

    async def halting(peer: Peer, request: Message) -> None:
        await gateway.chunk(peer, request, 0, [vector(TEXTS[0], 12)])
        await never.wait()

    gateway.behaviour = halting
    async with client.stream(TEXTS, id="left") as stream:
        async for _ in stream:
            break
    await gateway.until(lambda: [message["id"] for message in gateway.messages("request.cancel")] == ["left"])


async def test_a_callback_that_raises_fails_its_call_and_no_other(gateway: FakeGateway, client: Client) -> None:
    def explode(done: int, total: int) -> None:
        raise LookupError(f"{done} of {total}")

    other = asyncio.create_task(client.generate("other"))
    with pytest.raises(LookupError, match="4 of 10"):
        await client.generate(TEXTS, progress=explode)
    assert (await other).count == 1
    assert (await client.generate("next")).count == 1
    assert len(gateway.messages("session.open")) == 1


async def test_a_list_above_the_limits_streams_with_offsets_of_the_whole_list(gateway: FakeGateway) -> None:
    gateway.limits["max_inputs"] = 4
    async with Client(gateway.url, KEY, proxy=None) as client:
        stream = client.stream(TEXTS, model="fake-model", failover="same_space")
        chunks = [chunk async for chunk in stream]
    np.testing.assert_array_equal(assemble(chunks), rows(TEXTS))
    assert len(stream.result.events) == 3


@pytest.mark.parametrize(
    "chunk",
    [
        {"offset": 8, "count": 4, "vectors": bytes(4 * 12 * 4)},
        {"offset": -1, "count": 1, "vectors": bytes(12 * 4)},
        {"offset": 0, "count": 0, "vectors": b""},
        {"offset": 0, "count": 3, "vectors": bytes(10)},
        {"offset": 0, "count": 1},
    ],
)
async def test_a_chunk_that_cannot_be_is_a_protocol_violation_of_its_request(
    gateway: FakeGateway, client: Client, chunk: Message
) -> None:
    async def wrong(peer: Peer, request: Message) -> None:
        await peer.send({"type": "embedding.chunk", "id": request["id"], **chunk})

    gateway.behaviour = wrong
    with pytest.raises(ProtocolViolation):
        async for _ in client.stream(TEXTS):
            pass
    gateway.behaviour = gateway.answer
    assert (await client.generate("fine")).count == 1
