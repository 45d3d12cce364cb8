"""What every provider adapter must do, told to a server that speaks the provider's real protocol.

How a suite for a provider is written:

1. A rig (`Rig`): the provider's protocol served on a local port, and the adapter opened at it. For HTTP with JSON bodies subclass
   `tests.conformance.http_rig.HttpRig`; for another transport write the few methods of `Rig`.
2. Fixtures `rig` and `provider` (the adapter opened with `rig.open()`, closed afterwards).
3. `class TestXKeepsTheContract(ProviderContract)` with the facts below set where they differ: the model's sizes, the caps that the
   server of the rig enforces, how usage is told, what the provider makes of input types, which status means what.
4. What the provider cannot do or cannot suffer goes into `left_out` with a reason: the test is then shown as skipped with it. A key is
   a test's name, or `name[value]` for one value of a parametrised test. A name that no test has is an error.
5. What is this provider's alone (its error bodies, its settings) is tested beside, in the same file.

Texts and vectors: `rig.vector(text, size)` is what the server gives for a text, so that each caller can be seen to get its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from domain.ports.provider import EmbedAnswer, EmbedCall, Provider, ProviderError, ProviderFault
from gateway.bench.faults import Fault, FaultKind
from gateway.bench.simulator import Stats
from gateway.encoding import ENCODINGS, decode, encode

SECRET_TEXT = "the patient's name is Ottilie Karmesin"
KEY = "sk-simulated-0123456789abcdef"
MODEL_SIZE = 1536

Usage = Literal["call", "text", "none"]
"""Whether a provider tells the tokens of a call, of each text, or nothing."""


class Rig(Protocol):
    """A provider adapter and the simulated server behind it."""

    model: str

    def open(self, *, max_concurrency: int = 4, key: str = KEY, port: int | None = None) -> Provider:
        """The adapter at the rig's server, or at another `port` of 127.0.0.1. The server takes no key but `KEY`."""
        ...

    def fault(self, fault: Fault) -> None:
        """What the next embedding calls meet."""
        ...

    def hold(self, on: bool) -> None:
        """Keep answers back, or let them go."""
        ...

    def stats(self) -> Stats:
        """Of embedding calls alone: `check` is none."""
        ...

    async def calls(self, count: int) -> Stats:
        """Returns when the server has received so many calls."""
        ...

    async def abandoned(self, count: int) -> None:
        """Returns when the server has seen so many calls given up by us before they were answered."""
        ...

    def vector(self, text: str, dimensions: int) -> NDArray[np.float32]:
        """What the server gives for a text."""
        ...

    def tokens(self, text: str) -> int:
        """What the server counts for a text."""
        ...

    def input_type(self) -> object:
        """What the last call said of the input type, in the provider's words; None where it said nothing."""
        ...


STATUSES: Mapping[int, ProviderFault] = {
    400: ProviderFault.REFUSED,
    401: ProviderFault.AUTHENTICATION,
    403: ProviderFault.AUTHENTICATION,
    404: ProviderFault.NOT_SERVED,
    408: ProviderFault.SERVER,
    409: ProviderFault.SERVER,
    413: ProviderFault.TOO_LARGE,
    422: ProviderFault.REFUSED,
    429: ProviderFault.RATE_LIMITED,
    500: ProviderFault.SERVER,
    502: ProviderFault.SERVER,
    503: ProviderFault.SERVER,
    529: ProviderFault.SERVER,
}
"""What an HTTP status means that comes with a message which says nothing more."""

BAD_ANSWERS: tuple[FaultKind, ...] = (
    "wrong_count", "too_many", "wrong_dimensions", "ragged", "nan", "infinity", "bad_base64", "same_index", "truncated", "html",
)  # fmt: skip


class ProviderContract:
    """The behaviours that the dispatcher relies on."""

    size: ClassVar[int] = MODEL_SIZE
    """The model's own size."""
    other_size: ClassVar[int | None] = 256
    """Another that can be asked for; None where there is none."""
    max_inputs: ClassVar[int] = 300
    """The most texts of a call that the rig's server takes: one more and it refuses."""
    long_text: ClassVar[str] = "word " * 9000
    """More than the rig's server takes as one text."""
    too_long_index: ClassVar[bool] = True
    """Whether the provider says which text was too long."""
    usage: ClassVar[Usage] = "call"
    input_types: ClassVar[Mapping[str | None, object]] = dict.fromkeys(
        [None, "query", "document", "classification", "clustering"]
    )
    """What the provider is told for each input type of ours: nothing, where it knows none."""
    statuses: ClassVar[Mapping[int, ProviderFault]] = STATUSES
    shell: ClassVar[Mapping[str, str]] = {}
    """Variables that the SDK would take from the environment, with values that hold `of-the-shell`: none may be sent."""
    left_out: ClassVar[Mapping[str, str]] = {}
    """Tests that make no sense here, each with the reason."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in cls.left_out:
            test = name.partition("[")[0]
            assert callable(getattr(cls, test, None)), f"{cls.__name__}.left_out: there is no test {test}"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "status" in metafunc.fixturenames:
            metafunc.parametrize("status", sorted(self.statuses))
        if "input_type" in metafunc.fixturenames:
            metafunc.parametrize("input_type", list(self.input_types), ids=str)

    @pytest.fixture(autouse=True)
    def _leave_out(self, request: pytest.FixtureRequest) -> None:
        node: Any = request.node
        values = node.callspec.params.values() if hasattr(node, "callspec") else ()
        for name in (node.originalname, *(f"{node.originalname}[{value}]" for value in values)):
            if name in self.left_out:
                pytest.skip(f"left out of {type(self).__name__}: {self.left_out[name]}")

    def call(self, rig: Rig, *texts: str, dimensions: int | None = None, timeout: float = 10.0) -> EmbedCall:
        """A call with these texts, or with the last ones where fewer fit in a call."""
        return EmbedCall(list(texts[-self.max_inputs :]), rig.model, timeout, dimensions)

    async def refused(
        self, rig: Rig, provider: Provider, fault: Fault | None, *texts: str, timeout: float = 10.0
    ) -> ProviderError:
        """The error that one call with a telling text meets; proves that neither text nor key is anywhere in it."""
        before = rig.stats().calls
        if fault is not None:
            rig.fault(fault)
        with pytest.raises(ProviderError) as caught:
            await provider.embed(self.call(rig, *(texts or ("first", SECRET_TEXT)), timeout=timeout))
        self.tells_nothing(caught.value)
        assert rig.stats().calls == before + 1, "an adapter makes one call: retries are the dispatcher's"
        return caught.value

    def tells_nothing(self, error: ProviderError) -> None:
        shown = "".join(traceback.format_exception(error)) + repr(error.__dict__)
        assert error.__context__ is None
        assert error.__cause__ is None
        assert "Karmesin" not in shown
        assert KEY not in shown

    def check_shape(self, answer: EmbedAnswer, count: int, dimensions: int) -> None:
        assert answer.vectors.dtype == np.float32
        assert answer.vectors.shape == (count, dimensions)
        assert answer.vectors.flags.c_contiguous
        assert answer.vectors.flags.writeable

    # What is answered.

    async def test_each_text_gets_exactly_its_own_vector_in_the_order_asked(self, rig: Rig, provider: Provider) -> None:
        texts = [f"text {i} é 漢字 \U0001f525" for i in range(self.max_inputs)]
        answer = await provider.embed(self.call(rig, *texts))
        self.check_shape(answer, len(texts), self.size)
        for row, text in zip(answer.vectors, texts, strict=True):
            assert np.array_equal(row, rig.vector(text, self.size))
        assert not np.array_equal(rig.vector("a", self.size), rig.vector("b", self.size))

    async def test_more_texts_than_a_call_may_have_are_too_large(self, rig: Rig, provider: Provider) -> None:
        texts = [f"text {i}" for i in range(self.max_inputs)]
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall([*texts, SECRET_TEXT], rig.model, 10.0))
        assert caught.value.fault is ProviderFault.TOO_LARGE
        self.tells_nothing(caught.value)

    async def test_a_text_over_the_models_limit_is_too_long_with_its_index_where_it_is_told(
        self, rig: Rig, provider: Provider
    ) -> None:
        error = await self.refused(rig, provider, None, "short", SECRET_TEXT + " " + self.long_text)
        last = min(2, self.max_inputs) - 1
        assert (error.fault, error.index) == (ProviderFault.TOO_LONG, last if self.too_long_index else None)

    async def test_dimensions_are_sent_only_when_they_are_asked_for(self, rig: Rig, provider: Provider) -> None:
        assert self.other_size is not None, "a model with one size leaves this out"
        call = self.call(rig, "a", "b", dimensions=self.other_size)
        answer = await provider.embed(call)
        self.check_shape(answer, len(call.texts), self.other_size)
        assert np.array_equal(answer.vectors[-1], rig.vector("b", self.other_size))
        self.check_shape(await provider.embed(self.call(rig, "a")), 1, self.size)

    async def test_vectors_listed_in_another_order_are_put_back_by_their_index(
        self, rig: Rig, provider: Provider
    ) -> None:
        rig.fault(Fault("shuffled"))
        answer = await provider.embed(self.call(rig, "a", "b", "c"))
        for row, text in zip(answer.vectors, "abc", strict=True):
            assert np.array_equal(row, rig.vector(text, self.size))

    async def test_tokens_are_reported_as_the_provider_tells_them(self, rig: Rig, provider: Provider) -> None:
        call = self.call(rig, "hello world", "one two three four")
        counts = [rig.tokens(str(text)) for text in call.texts]
        several = await provider.embed(call)
        alone = await provider.embed(self.call(rig, "hello world"))
        if self.usage == "none":
            assert (several.tokens, several.text_tokens, alone.tokens, alone.text_tokens) == (None, None, None, None)
            return
        exact = self.usage == "text" or len(counts) == 1
        assert (several.tokens, several.text_tokens) == (sum(counts), counts if exact else None)
        assert (alone.tokens, alone.text_tokens) == (rig.tokens("hello world"), [rig.tokens("hello world")])

    async def test_an_answer_without_usage_has_no_token_count(self, rig: Rig, provider: Provider) -> None:
        rig.fault(Fault("no_usage"))
        answer = await provider.embed(self.call(rig, "a"))
        assert (answer.tokens, answer.text_tokens) == (None, None)

    async def test_each_input_type_is_told_in_the_providers_words(
        self, rig: Rig, provider: Provider, input_type: str | None
    ) -> None:
        await provider.embed(EmbedCall(["a"], rig.model, 10.0, input_type=input_type))
        assert rig.input_type() == self.input_types[input_type]

    @pytest.mark.parametrize("encoding", ENCODINGS)
    async def test_what_is_answered_comes_out_right_in_every_encoding(
        self, rig: Rig, provider: Provider, encoding: str
    ) -> None:
        call = self.call(rig, "a", "b", "c")
        rows = (await provider.embed(call)).vectors
        expected = np.array([rig.vector(str(text), self.size) for text in call.texts])
        data, scales = encode(rows, encoding)
        back = decode(data, encoding, self.size, scales)
        if encoding == "float32":
            assert data == expected.astype("<f4").tobytes()
        elif encoding == "float16":
            assert data == expected.astype("<f2").tobytes()
        elif encoding == "int8":
            steps = np.abs(expected).max(axis=1, keepdims=True) / 127
            assert (np.abs(back - expected) <= steps * 0.501).all()
        else:
            assert np.array_equal(back > 0, expected > 0)

    @pytest.mark.parametrize("kind", BAD_ANSWERS)
    async def test_an_answer_that_is_not_what_was_asked_is_a_bad_answer(
        self, rig: Rig, provider: Provider, kind: FaultKind
    ) -> None:
        rig.fault(Fault(kind))
        with pytest.raises(ProviderError) as caught:
            await provider.embed(self.call(rig, "first", SECRET_TEXT, dimensions=self.other_size))
        assert caught.value.fault is ProviderFault.BAD_ANSWER
        assert caught.value.fault.retryable
        self.tells_nothing(caught.value)

    # What is refused.

    async def test_a_text_that_is_no_unicode_is_refused_before_anything_is_sent(
        self, rig: Rig, provider: Provider
    ) -> None:
        with pytest.raises(ProviderError) as caught:
            await provider.embed(self.call(rig, "first", f"{SECRET_TEXT} \ud800"))
        assert caught.value.fault is ProviderFault.REFUSED
        self.tells_nothing(caught.value)
        assert rig.stats().calls == 0

    async def test_each_status_has_its_place_in_the_taxonomy(self, rig: Rig, provider: Provider, status: int) -> None:
        said = f"Cannot embed {SECRET_TEXT!r} for {KEY}."
        error = await self.refused(rig, provider, Fault("status", status=status, message=said))
        assert (error.fault, error.status) == (self.statuses[status], status)

    async def test_an_error_page_that_is_not_the_providers_still_has_its_place(
        self, rig: Rig, provider: Provider
    ) -> None:
        page = f"<html>502 Bad Gateway {SECRET_TEXT}</html>"
        error = await self.refused(rig, provider, Fault("status", status=502, body=page))
        assert error.fault is ProviderFault.SERVER

    @pytest.mark.parametrize(("told", "seconds"), [("7", 7.0), (None, None)])
    async def test_a_rate_limit_says_when_to_come_back_where_the_provider_does(
        self, rig: Rig, provider: Provider, told: str | None, seconds: float | None
    ) -> None:
        error = await self.refused(rig, provider, Fault("status", status=429, retry_after=told))
        assert (error.fault, error.retry_after) == (ProviderFault.RATE_LIMITED, seconds)

    async def test_a_provider_that_is_overloaded_says_when_to_come_back(self, rig: Rig, provider: Provider) -> None:
        error = await self.refused(rig, provider, Fault("status", status=503, retry_after="3"))
        assert (error.fault, error.retry_after) == (ProviderFault.SERVER, 3.0)

    async def test_a_wrong_key_is_our_credential_not_the_callers_request(self, rig: Rig) -> None:
        provider = rig.open(key="sk-wrong-0123456789")
        error = await self.refused(rig, provider, None)
        assert error.fault is ProviderFault.AUTHENTICATION
        assert not error.fault.retryable
        assert "sk-wrong-0123456789" not in "".join(traceback.format_exception(error))
        await provider.close()

    async def test_a_redirect_is_not_followed_and_carries_nothing_away(self, rig: Rig, provider: Provider) -> None:
        async with listener("babbles") as elsewhere:
            there = f"http://127.0.0.1:{elsewhere.port}/v1/embeddings"
            for status in (301, 302, 307, 308):
                error = await self.refused(rig, provider, Fault("status", status=status, headers={"location": there}))
                assert (error.fault, error.status) == (ProviderFault.NOT_SERVED, status)
            assert elsewhere.heard == []

    async def test_neither_text_nor_key_is_logged_by_the_sdk(
        self, rig: Rig, provider: Provider, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        await provider.embed(self.call(rig, SECRET_TEXT))
        await self.refused(rig, provider, Fault("status", status=500, message=SECRET_TEXT))
        shown = "\n".join(r.getMessage() + repr(r.__dict__) for r in caplog.records)
        assert "Karmesin" not in shown
        assert KEY not in shown

    async def test_no_credential_or_account_of_the_environment_is_sent(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.shell, "name the variables that the SDK reads, or leave this out with a reason"
        for name, value in self.shell.items():
            assert "of-the-shell" in value
            monkeypatch.setenv(name, value)
        async with listener("babbles") as recorder:
            provider = rig.open(port=recorder.port)
            with pytest.raises(ProviderError):
                await provider.embed(self.call(rig, "a"))
            await provider.close()
            sent = b"".join(recorder.heard)
        assert sent, "the adapter called elsewhere"
        assert b"of-the-shell" not in sent

    # The connection.

    @pytest.mark.parametrize("kind", ["drop", "reset"])
    async def test_a_connection_that_breaks_is_a_connection_error(
        self, rig: Rig, provider: Provider, kind: FaultKind
    ) -> None:
        error = await self.refused(rig, provider, Fault(kind))
        assert error.fault is ProviderFault.CONNECTION

    async def test_a_server_that_is_not_there_is_a_connection_error(self, rig: Rig) -> None:
        async with listener("never") as gone:
            port = gone.port
        provider = rig.open(port=port)
        with pytest.raises(ProviderError) as caught:
            await provider.embed(self.call(rig, SECRET_TEXT))
        assert caught.value.fault is ProviderFault.CONNECTION
        self.tells_nothing(caught.value)
        await provider.close()

    async def test_a_peer_that_speaks_another_protocol_is_a_connection_error(self, rig: Rig) -> None:
        async with listener("babbles") as mail:
            provider = rig.open(port=mail.port)
            with pytest.raises(ProviderError) as caught:
                await provider.embed(self.call(rig, SECRET_TEXT))
            assert caught.value.fault is ProviderFault.CONNECTION
            self.tells_nothing(caught.value)
            await provider.close()

    @pytest.mark.parametrize("kind", ["hang", "stall"])
    async def test_no_call_takes_longer_than_its_timeout_and_its_connection_is_given_up(
        self, rig: Rig, provider: Provider, kind: FaultKind
    ) -> None:
        begun = time.monotonic()
        error = await self.refused(rig, provider, Fault(kind), timeout=0.1)
        assert time.monotonic() - begun < 5, "a busy machine has its time, an adapter that waits for the answer has not"
        assert error.fault is ProviderFault.TIMEOUT
        await rig.abandoned(1)
        answer = await provider.embed(self.call(rig, "after"))
        assert np.array_equal(answer.vectors[0], rig.vector("after", self.size))

    async def test_waiting_for_a_connection_counts_towards_the_timeout_and_sends_nothing(self, rig: Rig) -> None:
        provider = rig.open(max_concurrency=1)
        rig.hold(True)
        first = asyncio.create_task(provider.embed(self.call(rig, "a")))
        await rig.calls(1)
        with pytest.raises(ProviderError) as caught:
            await provider.embed(self.call(rig, SECRET_TEXT, timeout=0.1))
        assert caught.value.fault is ProviderFault.TIMEOUT
        self.tells_nothing(caught.value)
        rig.hold(False)
        assert np.array_equal((await first).vectors[0], rig.vector("a", self.size))
        assert rig.stats().calls == 1
        await provider.close()

    async def test_cancelling_a_call_passes_through_and_frees_its_connection(self, rig: Rig) -> None:
        provider = rig.open(max_concurrency=1)
        rig.fault(Fault("hang"))
        hung = asyncio.create_task(provider.embed(self.call(rig, "a")))
        await rig.calls(1)
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung
        await rig.abandoned(1)
        await provider.embed(self.call(rig, "b"))
        await provider.close()

    async def test_no_more_connections_are_open_than_the_endpoint_allows(self, rig: Rig) -> None:
        provider = rig.open(max_concurrency=3)
        rig.hold(True)
        calls = [asyncio.create_task(provider.embed(self.call(rig, f"t{i}"))) for i in range(10)]
        await rig.calls(3)
        rig.hold(False)
        for i, call in enumerate(calls):
            assert np.array_equal((await call).vectors[0], rig.vector(f"t{i}", self.size))
        stats = rig.stats()
        assert (stats.calls, stats.max_connections, stats.max_in_flight) == (10, 3, 3)
        await provider.close()

    async def test_connections_are_kept_alive_between_calls(self, rig: Rig, provider: Provider) -> None:
        for _ in range(5):
            await provider.embed(self.call(rig, "a"))
        assert rig.stats().connections == 1

    async def test_close_fails_what_is_in_flight_refuses_new_calls_and_may_be_called_again(
        self, rig: Rig, provider: Provider
    ) -> None:
        rig.fault(Fault("hang"))
        hung = asyncio.create_task(provider.embed(self.call(rig, SECRET_TEXT)))
        await rig.calls(1)
        await provider.close()
        with pytest.raises(ProviderError) as caught:
            await hung
        assert caught.value.fault is ProviderFault.CONNECTION
        self.tells_nothing(caught.value)
        await provider.close()
        with pytest.raises(ProviderError) as caught:
            await provider.embed(self.call(rig, "a"))
        assert caught.value.fault is ProviderFault.CONNECTION
        with pytest.raises(ProviderError) as caught:
            await provider.check(5.0)
        assert caught.value.fault is ProviderFault.CONNECTION

    async def test_close_fails_calls_that_still_wait_for_a_connection(self, rig: Rig) -> None:
        provider = rig.open(max_concurrency=1)
        rig.hold(True)
        calls = [asyncio.create_task(provider.embed(self.call(rig, SECRET_TEXT))) for _ in range(3)]
        await rig.calls(1)
        await provider.close()
        for call in calls:
            with pytest.raises(ProviderError) as caught:
                await call
            assert caught.value.fault is ProviderFault.CONNECTION
            self.tells_nothing(caught.value)
        assert rig.stats().calls == 1

    # The sign of life.

    async def test_a_check_embeds_nothing_and_passes_where_the_provider_takes_our_key(
        self, rig: Rig, provider: Provider
    ) -> None:
        await provider.check(10.0)
        assert rig.stats().calls == 0

    async def test_a_check_with_a_wrong_key_fails_as_such(self, rig: Rig) -> None:
        provider = rig.open(key="sk-wrong-0123456789")
        with pytest.raises(ProviderError) as caught:
            await provider.check(10.0)
        assert caught.value.fault is ProviderFault.AUTHENTICATION
        assert "sk-wrong-0123456789" not in "".join(traceback.format_exception(caught.value))
        await provider.close()

    async def test_a_check_of_a_server_that_is_not_there_is_a_connection_error(self, rig: Rig) -> None:
        async with listener("never") as gone:
            port = gone.port
        provider = rig.open(port=port)
        with pytest.raises(ProviderError) as caught:
            await provider.check(10.0)
        assert caught.value.fault is ProviderFault.CONNECTION
        assert caught.value.__context__ is None
        await provider.close()

    async def test_a_check_of_a_server_that_never_answers_ends_in_time(self, rig: Rig) -> None:
        async with listener("never") as mute:
            provider = rig.open(port=mute.port)
            begun = time.monotonic()
            with pytest.raises(ProviderError) as caught:
                await provider.check(0.1)
            assert time.monotonic() - begun < 5
            assert caught.value.fault is ProviderFault.TIMEOUT
            assert caught.value.__context__ is None
            await provider.close()


class Listener:
    """A local port and what came in at it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.heard: list[bytes] = []


@asynccontextmanager
async def listener(kind: Literal["never", "babbles"]) -> AsyncIterator[Listener]:
    """A server that takes connections and never answers, or that answers in no protocol of ours. Gone at the end."""
    found = Listener(0)
    writers: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(65536):
            found.heard.append(data)
            if kind == "babbles":
                writer.write(b"220 mail.example ESMTP\r\n\r\n")
                break
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()
