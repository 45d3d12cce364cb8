"""The HTTP client and the reading of answers that providers without an SDK share."""

from __future__ import annotations

import asyncio
import re
import time
from email.utils import formatdate

import msgspec
import numpy as np
import pytest

from adapters.providers.answers import Item, answer, in_order
from adapters.providers.http import HttpApi, Reply
from adapters.providers.http_errors import Wording, retry_after, status_error
from domain.catalogue import Endpoint
from domain.ports.provider import ProviderError, ProviderFault


class Body(msgspec.Struct):
    text: str


class Server:
    """Answers every request with the same bytes, or never."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.requests = 0
        self.head = b""
        self.asked = asyncio.Event()
        self._taken: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._taken:
            task.cancel()
        await asyncio.gather(*self._taken, return_exceptions=True)
        await self._server.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._taken.append(task)
        try:
            self.head = await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            self.asked.set()
            if self.answer is not None:
                writer.write(self.answer)
            while await reader.read(65536):
                pass
        finally:
            writer.close()


def api(server: Server, most: int = 4) -> HttpApi:
    return HttpApi(Endpoint("e", "x", {}, base_url=server.url, max_concurrency=most), "sk-1", "http://unused.invalid")


async def test_closing_fails_the_call_in_flight_and_the_one_that_waits_for_its_connection() -> None:
    async with Server(None) as server:
        opened = api(server, most=1)
        calls = [asyncio.create_task(opened.post("/", Body("a"), 30.0, 1)) for _ in range(2)]
        await server.asked.wait()
        await opened.close()
        for call in calls:
            with pytest.raises(ProviderError) as caught:
                await call
            assert caught.value.fault is ProviderFault.CONNECTION
            assert caught.value.__context__ is None
        assert server.requests == 1


async def test_cancelling_a_call_is_a_cancellation_and_no_failure() -> None:
    async with Server(None) as server:
        opened = api(server)
        call = asyncio.create_task(opened.post("/", Body("a"), 30.0, 1))
        await server.asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await opened.close()


async def test_waiting_for_a_connection_counts_against_the_deadline() -> None:
    async with Server(None) as server:
        opened = api(server, most=1)
        hung = asyncio.create_task(opened.post("/", Body("a"), 30.0, 1))
        await server.asked.wait()
        with pytest.raises(ProviderError) as caught:
            await opened.post("/", Body("b"), 0.05, 1)
        assert caught.value.fault is ProviderFault.TIMEOUT
        hung.cancel()
        await asyncio.gather(hung, return_exceptions=True)
        await opened.close()


async def test_a_lone_surrogate_is_refused_before_anything_is_sent() -> None:
    async with Server(None) as server:
        opened = api(server)
        with pytest.raises(ProviderError) as caught:
            await opened.post("/", Body("\ud800"), 5.0, 1)
        assert (caught.value.fault, caught.value.__context__) == (ProviderFault.REFUSED, None)
        assert server.requests == 0
        await opened.close()


async def test_vectors_are_asked_for_as_they_are_since_unpacking_them_costs_more_than_reading_them() -> None:
    async with Server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as server:
        opened = api(server)
        assert (await opened.get("/", 5.0)).body == b"{}"
        sent = server.head.lower()
        assert b"accept-encoding: identity\r\n" in sent
        assert sent.count(b"accept-encoding") == 1
        assert b"authorization: bearer sk-1\r\n" in sent
        await opened.close()


async def test_a_body_that_cannot_be_decompressed_is_a_bad_answer() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 8\r\n\r\n"
    async with Server(head + b"not gzip") as server:
        opened = api(server)
        with pytest.raises(ProviderError) as caught:
            await opened.post("/", Body("a"), 5.0, 1)
        assert caught.value.fault is ProviderFault.BAD_ANSWER
        await opened.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "350", "retry-after": "9"}, 0.35),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({}, None),
    ],
)
def test_when_to_come_back_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_when_to_come_back_may_be_an_hour_of_the_day() -> None:
    assert retry_after({"retry-after": formatdate(time.time() + 90, usegmt=True)}) == pytest.approx(89.5, abs=1.5)


WORDING = Wording(
    too_large=re.compile("too many"),
    too_long=re.compile("too long"),
    codes={"LONG": ProviderFault.TOO_LONG},
    index=re.compile(r"text (\d+)"),
)


@pytest.mark.parametrize(
    ("body", "fault", "index"),
    [
        (b'{"message":"text 3 is too long"}', "too_long", 3),
        (b'{"detail":[{"msg":"other"},{"msg":"text 4 is too long"}]}', "too_long", 4),
        (b'{"detail":{"message":"in other words","code":"LONG"}}', "too_long", None),
        (b'{"message":{"detail":[{"msg":"too many"}]}}', "too_large", None),
        (b'{"detail":"too many","code":"LONG"}', "too_long", None),
        (b'{"detail":["too many"]}', "refused", None),
        (b'{"error":"too many"}', "refused", None),
        (b"too many", "refused", None),
        (b"\xff\xfe", "refused", None),
        (b"[]", "refused", None),
        (b"", "refused", None),
    ],
)
def test_errors_are_told_by_code_and_message_wherever_the_body_has_them(
    body: bytes, fault: str, index: int | None
) -> None:
    error = status_error(Reply(400, {}, body), WORDING)
    assert (error.fault, error.index, error.status) == (fault, index, 400)
    assert "text 3" not in str(error)


def test_what_a_500_says_is_not_taken_for_a_refusal_of_the_text() -> None:
    assert status_error(Reply(500, {}, b'{"message":"too long"}'), WORDING).fault is ProviderFault.SERVER


def test_numbers_beyond_float32_and_none_at_all_are_bad_answers() -> None:
    with pytest.raises(ProviderError, match="NaN or infinity"):
        answer([[1e39, 0.0]], 1, None, None)
    with pytest.raises(ProviderError, match="empty"):
        answer([""], 1, None, None)
    with pytest.raises(ProviderError, match="some vectors have an index"):
        in_order([Item([1.0], 0), Item([1.0])], 2)
    with pytest.raises(ProviderError, match="no number of tokens"):
        answer([[1.0]], 1, None, -1)


def test_a_usage_of_zero_is_none_since_no_text_has_no_tokens() -> None:
    told = answer([[1.0, 0.0]], 1, 2, 0)
    assert (told.tokens, told.text_tokens) == (None, None)
    assert np.array_equal(told.vectors, [[1.0, 0.0]])
