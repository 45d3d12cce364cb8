"""Connections are lost, gateways drain and refuse for a while: the caller sees results."""

from __future__ import annotations

import asyncio
import itertools
import random

import numpy as np
import pytest

from emberlog_client import Client, ConnectionFailed, DeadlineExceeded, QuotaExceeded, RateLimited, Unavailable
from tests.support.fake_gateway import KEY, FakeGateway, Message, Peer, encode, vector


def rows(texts: list[str], dimensions: int = 12) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([vector(text, dimensions) for text in texts], dtype=np.float32)


async def test_unanswered_requests_are_sent_again_with_their_ids_after_the_connection_was_cut(
    gateway: FakeGateway, client: Client
) -> None:
    async def cut_the_first(peer: Peer, request: Message) -> None:
        if len(gateway.messages("session.open")) == 1:
            await gateway.until(lambda: len(gateway.messages("embedding.generate")) == 5)
            peer.cut()
        else:
            await gateway.answer(peer, request)

    gateway.behaviour = cut_the_first
    results = await asyncio.gather(*(client.generate(f"text {n}", id=f"id-{n}") for n in range(5)))
    for n, result in enumerate(results):
        np.testing.assert_array_equal(result.vectors, rows([f"text {n}"]))
    sent = gateway.messages("embedding.generate")
    assert sorted(request["id"] for request in sent) == sorted([f"id-{n}" for n in range(5)] * 2)
    assert all(one == other for one in sent for other in sent if one["id"] == other["id"])


async def test_an_answer_lost_on_the_way_is_replayed_and_billed_once(gateway: FakeGateway, client: Client) -> None:
    async def lose_the_answer(peer: Peer, request: Message) -> None:
        if len(gateway.messages("session.open")) == 1:
            gateway.outcomes[request["id"]] = gateway.outcome(request, "fake-model", 12) | {"replayed": True}
            gateway.bills[request["id"]] += 1
            peer.cut()
        else:
            await gateway.answer(peer, request)

    gateway.behaviour = lose_the_answer
    result = await client.generate("x", id="once")
    assert result.replayed
    assert gateway.bills == {"once": 1}


async def test_a_gateway_killed_and_started_again_is_no_error_to_the_caller(
    gateway: FakeGateway, client: Client
) -> None:
    waiting = asyncio.Event()

    async def stall(peer: Peer, request: Message) -> None:
        await waiting.wait()

    gateway.behaviour = stall
    tasks = [asyncio.create_task(client.generate(f"text {n}")) for n in range(3)]
    await gateway.until(lambda: len(gateway.messages("embedding.generate")) == 3)
    await gateway.kill()
    tasks.append(asyncio.create_task(client.generate("text 3")))  # asked while nobody listens
    gateway.behaviour = gateway.answer
    await gateway.start()
    for n, result in enumerate(await asyncio.gather(*tasks)):
        np.testing.assert_array_equal(result.vectors, rows([f"text {n}"]))


async def test_a_drain_finishes_what_is_in_flight_there_and_sends_the_rest_to_the_next_gateway(
    gateway: FakeGateway, client: Client
) -> None:
    finish = asyncio.Event()

    async def slow(peer: Peer, request: Message) -> None:
        if request["input"] == ["old"]:
            await finish.wait()
        await gateway.answer(peer, request)

    gateway.behaviour = slow
    old = asyncio.create_task(client.generate("old"))
    await gateway.until(lambda: len(gateway.messages("embedding.generate")) == 1)
    (leaving,) = await gateway.drain()
    new = await client.generate("new")
    assert new.count == 1
    assert leaving in gateway.peers  # it still works on the old request
    finish.set()
    assert (await old).count == 1
    await leaving.socket.close(1012)
    assert (await client.generate("after")).count == 1
    assert len(gateway.messages("session.open")) == 2
    where = {request["input"][0]: peer for peer, request in gateway.received if request["type"] == "embedding.generate"}
    assert where["old"] is leaving
    assert where["new"] is not leaving
    assert where["after"] is where["new"]


async def test_requests_refused_with_draining_before_its_announcement_arrived_go_to_a_new_connection(
    gateway: FakeGateway, client: Client
) -> None:
    gateway.peers[0].draining = True
    results = await asyncio.gather(*(client.generate(f"text {n}", id=f"id-{n}") for n in range(10)))
    assert [result.ids for result in results] == [(f"id-{n}",) for n in range(10)]
    assert len(gateway.messages("session.open")) == 2


async def test_a_close_with_1012_in_the_middle_is_no_error_to_the_caller(gateway: FakeGateway, client: Client) -> None:
    async def restart(peer: Peer, request: Message) -> None:
        if len(gateway.messages("session.open")) == 1:
            await peer.socket.close(1012, "restart")
        else:
            await gateway.answer(peer, request)

    gateway.behaviour = restart
    assert (await client.generate("x")).count == 1


async def test_a_retryable_refusal_is_tried_again_no_sooner_than_the_gateway_says(
    gateway: FakeGateway, client: Client
) -> None:
    times: list[float] = []

    async def limited(peer: Peer, request: Message) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 3:
            await peer.refuse(request, "rate_limited", retryable=True, retry_after_ms=30)
        else:
            await gateway.answer(peer, request)

    gateway.behaviour = limited
    await client.generate("x", id="patient")
    assert [request["id"] for request in gateway.messages("embedding.generate")] == ["patient"] * 3
    assert min(later - sooner for sooner, later in itertools.pairwise(times)) >= 0.030


async def test_a_retry_that_the_deadline_does_not_allow_is_not_waited_for(gateway: FakeGateway, client: Client) -> None:
    async def limited(peer: Peer, request: Message) -> None:
        await peer.refuse(request, "rate_limited", retryable=True, retry_after_ms=90_000)

    gateway.behaviour = limited
    with pytest.raises(RateLimited) as caught:
        await client.generate("x", deadline=30)
    assert caught.value.retry_after == 90
    assert len(gateway.messages("embedding.generate")) == 1


async def test_retries_end_after_max_attempts(gateway: FakeGateway) -> None:
    async def busy(peer: Peer, request: Message) -> None:
        await peer.refuse(request, "overloaded", retryable=True, retry_after_ms=1)

    gateway.behaviour = busy
    async with Client(gateway.url, KEY, max_attempts=3, proxy=None) as client:
        with pytest.raises(Unavailable, match="overloaded"):
            await client.generate("x")
    assert len(gateway.messages("embedding.generate")) == 3


async def test_a_refusal_that_is_not_retryable_is_raised_at_once_with_its_details(
    gateway: FakeGateway, client: Client
) -> None:
    async def broke(peer: Peer, request: Message) -> None:
        await peer.refuse(request, "budget_exceeded", details={"window": "month", "limit": 5, "used": 5})

    gateway.behaviour = broke
    with pytest.raises(QuotaExceeded) as caught:
        await client.generate("x", id="dear")
    assert caught.value.code == "budget_exceeded"
    assert caught.value.details["window"] == "month"
    assert caught.value.id == "dear"
    assert len(gateway.messages("embedding.generate")) == 1


async def test_a_passed_deadline_is_raised_and_the_request_cancelled(gateway: FakeGateway, client: Client) -> None:
    never = asyncio.Event()

    async def silent(peer: Peer, request: Message) -> None:
        await never.wait()

    gateway.behaviour = silent
    with pytest.raises(DeadlineExceeded):
        await client.generate("x", deadline=0.02, id="late")
    await gateway.until(lambda: [m["id"] for m in gateway.messages("request.cancel")] == ["late"])


async def test_without_a_gateway_the_deadline_ends_in_connection_failed(gateway: FakeGateway, client: Client) -> None:
    await gateway.kill()
    with pytest.raises(ConnectionFailed, match="last:"):
        await client.generate("x", deadline=0.05)


async def test_cancelling_the_awaiting_task_cancels_the_request_and_leaves_the_id_usable(
    gateway: FakeGateway, client: Client
) -> None:
    never = asyncio.Event()

    async def silent(peer: Peer, request: Message) -> None:
        await never.wait()

    gateway.behaviour = silent
    task = asyncio.create_task(client.generate("x", id="left"))
    await gateway.until(lambda: len(gateway.messages("embedding.generate")) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gateway.behaviour = gateway.answer
    # The gateway's `cancelled` for the first is still to come; it must not end the second.
    assert (await client.generate("x", id="left")).count == 1
    assert [message["id"] for message in gateway.messages("request.cancel")] == ["left"]


@pytest.mark.parametrize("limits", [(4, 100), (50, 10)])
async def test_no_more_is_in_flight_than_the_gateway_allows(gateway: FakeGateway, limits: tuple[int, int]) -> None:
    gateway.limits.update(max_in_flight=limits[0], max_in_flight_inputs=limits[1])
    async with Client(gateway.url, KEY, proxy=None) as client:
        results = await asyncio.gather(*(client.generate(["x"] * (1 + n % 5)) for n in range(60)))
    assert [result.count for result in results] == [1 + n % 5 for n in range(60)]
    assert gateway.most_in_flight <= limits[0]
    assert gateway.most_inputs <= limits[1]
    assert gateway.most_in_flight > 1  # the bound is used, not avoided


async def test_closing_fails_what_is_in_flight(gateway: FakeGateway) -> None:
    never = asyncio.Event()

    async def silent(peer: Peer, request: Message) -> None:
        await never.wait()

    gateway.behaviour = silent
    async with Client(gateway.url, KEY, proxy=None) as client:
        task = asyncio.create_task(client.generate("x"))
        await gateway.until(lambda: len(gateway.messages("embedding.generate")) == 1)
    with pytest.raises(ConnectionFailed, match="closed"):
        await task
    with pytest.raises(ConnectionFailed, match="closed"):
        await client.generate("x")


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_breaks_every_call_gets_its_vectors_and_one_bill(seed: int) -> None:
    dice = random.Random(seed)
    faults = 40
    async with FakeGateway(chunk_texts=3) as gateway:

        async def shaky(peer: Peer, request: Message) -> None:
            nonlocal faults
            roll = dice.random()
            if faults and roll < 0.5:
                faults -= 1
                if roll < 0.1:
                    peer.cut()
                elif roll < 0.2:
                    await peer.socket.close(dice.choice([1001, 1011, 1012, 4413]))
                elif roll < 0.3:
                    await peer.refuse(request, "unavailable", retryable=True, retry_after_ms=1)
                elif roll < 0.35:
                    await gateway.drain()
                    await gateway.answer(peer, request)
                elif roll < 0.4 and request.get("stream"):
                    some = [vector(text, 12) for text in request["input"][2:5]]
                    if some:
                        await gateway.chunk(peer, request, 2, some)
                    peer.cut()
                else:  # the outcome is logged, its answer is lost
                    if request["id"] not in gateway.outcomes:
                        gateway.outcomes[request["id"]] = gateway.outcome(request, "fake-model", 12) | {
                            "replayed": True
                        }
                        gateway.bills[request["id"]] += 1
                    peer.cut()
            else:
                await gateway.answer(peer, request)

        gateway.behaviour = shaky
        async with Client(gateway.url, KEY, max_attempts=100, proxy=None) as client:

            async def ask(n: int) -> None:
                texts = [f"{n}-{k}" for k in range(1 + n % 11)]
                if n % 3:
                    result = await client.generate(texts, id=f"call-{n}", progress=(lambda *_: None) if n % 2 else None)
                    np.testing.assert_array_equal(result.vectors, rows(texts))
                else:
                    got: dict[int, list[float]] = {}
                    async for chunk in client.stream(texts, id=f"call-{n}"):
                        for k, row in enumerate(chunk.vectors):
                            assert chunk.offset + k not in got
                            got[chunk.offset + k] = row.tolist()
                    np.testing.assert_array_equal([got[k] for k in range(len(texts))], rows(texts))

            await asyncio.gather(*(ask(n) for n in range(40)))
        assert gateway.bills == {f"call-{n}": 1 for n in range(40)}


def test_the_double_encodes_independently_of_numpy() -> None:
    assert encode([[1.0, -0.5]], "float32")[0] == b"\x00\x00\x80\x3f\x00\x00\x00\xbf"
    assert encode([[0.5] * 3 + [-1.0] * 6], "ubinary")[0] == b"\xe0\x00"
