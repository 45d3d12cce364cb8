from __future__ import annotations

import asyncio

import msgpack
import numpy as np
import pytest

from emberlog_client import (
    Client,
    Encoding,
    InvalidRequest,
    ModelNotFound,
    Preferences,
    ProtocolViolation,
    SpaceChanged,
    Store,
)
from tests.support.fake_gateway import KEY, FakeGateway, Message, Peer, vector


def rows(texts: list[str], dimensions: int = 12) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([vector(text, dimensions) for text in texts], dtype=np.float32)


async def test_a_list_of_texts_comes_back_as_one_row_each_with_bill_and_event(client: Client) -> None:
    result = await client.generate(["one", "two", "long three"], model="fake-model", id="mine")
    assert result.vectors.dtype == np.float32
    np.testing.assert_array_equal(result.vectors, rows(["one", "two", "long three"]))
    assert not result.vectors.flags.writeable
    assert (result.id, result.event, result.replayed) == ("mine", "event-mine", False)
    assert (result.model, result.space, result.provider) == ("fake-model", "fake-model@1/12/unit", "fake")
    assert (result.count, result.dimensions) == (3, 12)
    assert result.usage.tokens == 16
    assert result.usage.truncated == (2,)
    assert result.cost.nano_usd == 32
    assert result.timings.total_ms == 3.5
    assert result.failover is None


async def test_a_single_text_needs_no_list(client: Client) -> None:
    result = await client.generate("alone")
    np.testing.assert_array_equal(result.vectors, rows(["alone"]))


async def test_the_session_says_who_we_are_and_what_is_allowed(gateway: FakeGateway, client: Client) -> None:
    assert (client.session.tenant, client.session.agent, client.session.server_name) == ("acme", "tester", "fake")
    assert client.limits.max_inputs == 10_000
    assert gateway.messages("session.open")[0]["agent"] == {"id": "tester"}


@pytest.mark.parametrize("form", ["http://{}", "ws://{}", "ws://{}/", "http://{}/v1/agent"])
async def test_the_address_may_be_written_as_http_or_ws_with_or_without_the_path(
    gateway: FakeGateway, form: str
) -> None:
    async with Client(form.format(f"127.0.0.1:{gateway.port}"), KEY, proxy=None) as c:
        assert (await c.generate("x")).count == 1


@pytest.mark.parametrize("url", ["ftp://host", "127.0.0.1:80", "http://user:secret@host", "http://host/?key=secret"])
def test_an_address_that_is_none_or_carries_credentials_is_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        Client(url, KEY)
    assert "secret" not in str(caught.value)


def test_the_key_is_in_no_repr() -> None:
    assert KEY not in repr(Client("http://127.0.0.1:1", KEY).__dict__)


async def test_without_async_with_the_first_request_goes_right_behind_session_open(gateway: FakeGateway) -> None:
    opening = asyncio.Event()

    async def open_late(peer: Peer, message: Message) -> None:
        asyncio.get_running_loop().create_task(hold(peer, message))

    async def hold(peer: Peer, message: Message) -> None:
        await opening.wait()
        await gateway.open(peer, message)

    gateway.open_with = open_late
    client = Client(gateway.url, KEY, proxy=None)
    try:
        assert (await client.generate("first")).count == 1  # answered although the session is not opened yet
        with pytest.raises(RuntimeError, match="no session"):
            _ = client.session
        opening.set()
        await client.connect()
        assert client.session.tenant == "acme"
    finally:
        await client.close()


async def test_answers_may_come_in_any_order(gateway: FakeGateway, client: Client) -> None:
    held: list[tuple[Peer, Message]] = []

    async def backwards(peer: Peer, request: Message) -> None:
        held.append((peer, request))
        if len(held) == 20:
            for waiting in reversed(held):
                await gateway.answer(*waiting)

    gateway.behaviour = backwards
    results = await asyncio.gather(*(client.generate(f"text {n}") for n in range(20)))
    for n, result in enumerate(results):
        np.testing.assert_array_equal(result.vectors, rows([f"text {n}"]))
    assert len(gateway.messages("session.open")) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "ubinary"])
async def test_every_encoding_arrives_in_its_own_dtype_and_decodes_to_the_numbers_sent(
    client: Client, encoding: Encoding, stream: bool
) -> None:
    texts = [f"text {n}" for n in range(9)]
    exact = rows(texts)
    result = await client.generate(
        texts, model="fake-model", encoding=encoding, progress=(lambda *_: None) if stream else None
    )
    decoded = result.float32()
    assert decoded.shape == (9, 12)
    assert decoded.dtype == np.float32
    match encoding:
        case "float32":
            np.testing.assert_array_equal(decoded, exact)
        case "float16":
            assert result.vectors.dtype == np.float16
            np.testing.assert_array_equal(decoded, exact)
        case "int8":
            assert result.vectors.dtype == np.int8
            assert result.scales is not None
            np.testing.assert_allclose(result.scales, np.abs(exact).max(axis=1) / 127, rtol=1e-6)
            np.testing.assert_allclose(decoded, exact, atol=1 / 127)
        case "ubinary":
            assert result.vectors.dtype == np.uint8
            assert result.vectors.shape == (9, 2)
            np.testing.assert_array_equal(decoded, np.where(exact > 0, 1, -1))


async def test_25000_texts_go_as_three_requests_within_the_limits_and_come_back_as_one_array(
    gateway: FakeGateway,
) -> None:
    texts = [f"text {n}" for n in range(25_000)]
    gateway.chunk_texts = 3_000
    seen: list[tuple[int, int]] = []
    async with Client(gateway.url, KEY, proxy=None) as client:
        result = await client.generate(
            texts, model="fake-model", failover="same_space", progress=lambda *at: seen.append(at), id="big"
        )
    np.testing.assert_array_equal(result.vectors, rows(texts))
    requests = gateway.messages("embedding.generate")
    assert sorted(len(request["input"]) for request in requests) == [5_000, 10_000, 10_000]
    assert result.ids == ("big.0", "big.1", "big.2")
    assert result.events == ("event-big.0", "event-big.1", "event-big.2")
    assert result.usage.tokens == sum(map(len, texts))
    assert result.cost.nano_usd == 2 * result.usage.tokens
    assert seen == sorted(seen)
    assert seen[-1] == (25_000, 25_000)
    assert gateway.most_inputs <= 20_000


async def test_the_first_part_decides_the_space_of_the_others_when_the_caller_left_it_open(
    gateway: FakeGateway,
) -> None:
    gateway.limits["max_inputs"] = 2
    async with Client(gateway.url, KEY, proxy=None) as client:
        await client.generate(list("abcde"), failover="any")
    first, *others = gateway.messages("embedding.generate")
    assert "model" not in first
    assert first["failover"] == "any"
    assert len(others) == 2
    for other in others:
        assert (other["model"], other["dimensions"], other["failover"]) == ("fake-model", 12, "same_space")


async def test_parts_in_different_spaces_are_refused_rather_than_mixed(gateway: FakeGateway) -> None:
    gateway.limits["max_inputs"] = 2

    async def moving(peer: Peer, request: Message) -> None:
        await gateway.answer(peer, request | {"model": f"model-of-{request['input'][0]}"})

    gateway.behaviour = moving
    async with Client(gateway.url, KEY, proxy=None) as client:
        with pytest.raises(SpaceChanged):
            await client.generate(list("abcd"), model="fake-model", failover="none")


async def test_requests_are_cut_by_bytes_too(gateway: FakeGateway) -> None:
    gateway.limits["max_message_bytes"] = 200_000
    texts = ["ä" * 20_000 for _ in range(10)]  # 40 kB each
    async with Client(gateway.url, KEY, proxy=None) as client:
        result = await client.generate(texts, model="fake-model", failover="none")
    np.testing.assert_array_equal(result.vectors, rows(texts))
    for request in gateway.messages("embedding.generate"):
        assert len(msgpack.packb(request)) < 200_000


async def test_an_answer_that_would_not_fit_a_message_is_streamed_and_a_small_one_is_not(
    gateway: FakeGateway, client: Client
) -> None:
    await client.generate(["x"] * 1_000)
    await client.generate(["x"] * 100)
    await client.generate(["x"] * 1_000, dimensions=12)
    assert ["stream" in request for request in gateway.messages("embedding.generate")] == [True, False, False]


async def test_the_index_in_an_error_is_that_of_the_callers_list(gateway: FakeGateway) -> None:
    gateway.limits["max_inputs"] = 3

    async def picky(peer: Peer, request: Message) -> None:
        if "bad" in request["input"]:
            index = request["input"].index("bad")
            await peer.refuse(request, "invalid_request", details={"field": "input", "index": index})
        else:
            await gateway.answer(peer, request)

    gateway.behaviour = picky
    async with Client(gateway.url, KEY, proxy=None) as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.generate(["a", "b", "c", "d", "bad"], model="fake-model", failover="none")
    assert caught.value.details["index"] == 4


async def test_a_part_that_fails_cancels_the_others(gateway: FakeGateway) -> None:
    gateway.limits["max_inputs"] = 1
    never = asyncio.Event()

    async def one_fails(peer: Peer, request: Message) -> None:
        if request["input"] == ["c"]:
            await gateway.until(lambda: len(gateway.messages("embedding.generate")) == 3)
            await peer.refuse(request, "model_not_found")
        await never.wait()

    gateway.behaviour = one_fails
    async with Client(gateway.url, KEY, proxy=None) as client:
        with pytest.raises(ModelNotFound):
            await client.generate(["a", "b", "c"], model="fake-model", failover="none")
        await gateway.until(lambda: len(gateway.messages("request.cancel")) == 2)


async def test_options_travel_under_the_contracts_names_and_absent_ones_do_not(
    gateway: FakeGateway, client: Client
) -> None:
    await client.generate(["a", "b"], id="plain")
    await client.generate(
        ["a", "b"],
        id="full",
        model="fake-model",
        dimensions=8,
        input_type="query",
        task="faq",
        encoding="float16",
        failover="none",
        optimize="cost",
        truncate="end",
        deadline=2.5,
        thread="t-1",
        cache="off",
        metadata={"k": "v"},
        store=Store("docs", ["1", "2"], [{"n": 1}, {"n": 2}]),
    )
    plain, full = gateway.messages("embedding.generate")
    assert plain == {"type": "embedding.generate", "id": "plain", "input": ["a", "b"]}
    assert full == {
        "type": "embedding.generate",
        "id": "full",
        "input": ["a", "b"],
        "model": "fake-model",
        "dimensions": 8,
        "input_type": "query",
        "task": "faq",
        "encoding": "float16",
        "failover": "none",
        "optimize": "cost",
        "truncate": "end",
        "deadline_ms": 2500,
        "thread": "t-1",
        "cache": "off",
        "metadata": {"k": "v"},
        "store": {"collection": "docs", "ids": ["1", "2"], "metadata": [{"n": 1}, {"n": 2}]},
    }


async def test_the_same_id_again_is_the_same_outcome_and_one_bill(gateway: FakeGateway, client: Client) -> None:
    first, second = await asyncio.gather(client.generate("x", id="once"), client.generate("x", id="once"))
    assert (first.replayed, second.replayed) == (False, True)
    assert first.event == second.event
    assert gateway.bills == {"once": 1}


async def test_an_estimate_names_model_and_cost_and_bills_nothing(gateway: FakeGateway, client: Client) -> None:
    estimate = await client.estimate(["four", "more"])
    assert (estimate.model, estimate.tokens, estimate.nano_usd) == ("fake-model", 8, 16)
    assert [(r.model, r.reason) for r in estimate.reasons] == [("other", "too dear")]
    dry = await client.generate(["four"], dry_run=True)
    assert (dry.event, len(dry.vectors)) == (None, 0)
    assert not gateway.bills


async def test_registering_returns_the_version_of_the_preferences(gateway: FakeGateway, client: Client) -> None:
    registration = await client.register(Preferences("fixed", ["fake-model"], max_latency_ms=50))
    assert registration.version == 3
    assert gateway.messages("agent.register")[0]["preferences"] == {
        "strategy": "fixed",
        "models": ["fake-model"],
        "task_models": {},
        "max_latency_ms": 50,
    }


@pytest.mark.parametrize(
    ("texts", "code", "index"),
    [
        ([], "invalid_request", None),
        (["fine", "a\0b"], "invalid_message", 1),
        (["fine", "é\0"], "invalid_message", 1),
        (["\ud800"], "invalid_message", 0),
        (["fine", "x" * 200_001], "invalid_request", 1),
    ],
)
async def test_texts_that_could_never_be_taken_are_refused_before_they_are_sent(
    gateway: FakeGateway, client: Client, texts: list[str], code: str, index: int | None
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.generate(texts)
    assert caught.value.code == code
    assert caught.value.details.get("index") == index
    assert not gateway.messages("embedding.generate")


async def test_wrong_arguments_are_named_before_anything_is_sent(gateway: FakeGateway, client: Client) -> None:
    with pytest.raises(InvalidRequest, match="encoding"):
        await client.generate("x", encoding="float64")  # type: ignore[arg-type] # the mistake under test
    with pytest.raises(InvalidRequest, match="1 to 64"):
        await client.generate("x", id="i" * 65)
    with pytest.raises(InvalidRequest, match="one id"):
        await client.generate(["x", "y"], store=Store("docs", ["1"]))
    with pytest.raises(TypeError, match=r"texts\[1\] is int"):
        await client.generate(["x", 7])  # type: ignore[list-item] # the mistake under test
    assert not gateway.messages("embedding.generate")


async def test_a_result_with_rows_missing_is_a_protocol_violation_of_that_request_only(
    gateway: FakeGateway, client: Client
) -> None:
    async def short(peer: Peer, request: Message) -> None:
        answer = gateway.outcome(request, "fake-model", 12)
        if request["input"] == ["none"]:
            await peer.send(answer)
        elif request["input"] == ["odd"]:
            await peer.send(answer | {"vectors": b"123"})
        else:
            await gateway.answer(peer, request)

    gateway.behaviour = short
    for text in ("none", "odd"):
        with pytest.raises(ProtocolViolation):
            await client.generate([text])
    assert (await client.generate("fine")).count == 1
    assert len(gateway.messages("session.open")) == 1
