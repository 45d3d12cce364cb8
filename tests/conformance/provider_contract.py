"""What every provider adapter must do, told to a simulated server over real HTTP.

A suite for a provider subclasses `ProviderContract` and gives its `rig`: how to open the adapter, how to make its server misbehave,
and which vector each text must get.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from domain.ports.provider import EmbedAnswer, EmbedCall, Provider, ProviderError, ProviderFault
from gateway.bench.faults import Fault, FaultKind
from gateway.bench.simulator import Stats

SECRET_TEXT = "the patient's name is Ottilie Karmesin"
KEY = "sk-simulated-0123456789abcdef"
MODEL_SIZE = 1536


class Rig(Protocol):
    """A provider adapter and the simulated server behind it."""

    model: str

    def open(self, *, max_concurrency: int = 4, key: str = KEY) -> Provider: ...

    def fault(self, fault: Fault) -> None: ...

    def hold(self, on: bool) -> None: ...

    def stats(self) -> Stats: ...

    async def calls(self, count: int) -> Stats: ...

    def vector(self, text: str, dimensions: int) -> NDArray[np.float32]: ...


OpenProvider = Callable[[], Provider]


class ProviderContract:
    """The behaviours that the dispatcher relies on."""

    def call(self, rig: Rig, *texts: str, dimensions: int | None = None, timeout: float = 10.0) -> EmbedCall:
        return EmbedCall(list(texts), rig.model, timeout, dimensions)

    async def refused(self, rig: Rig, provider: Provider, fault: Fault, *, timeout: float = 10.0) -> ProviderError:
        """The error that a call with a telling text meets; proves that neither text nor key is anywhere in it."""
        rig.fault(fault)
        with pytest.raises(ProviderError) as caught:
            await provider.embed(self.call(rig, "first", SECRET_TEXT, timeout=timeout))
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)
        assert caught.value.__context__ is None
        assert "Karmesin" not in shown
        assert KEY not in shown
        return caught.value

    async def test_each_text_gets_exactly_its_own_vector_in_the_order_asked(self, rig: Rig, provider: Provider) -> None:
        texts = [f"text {i} é 漢字 \U0001f525" for i in range(300)]
        answer = await provider.embed(self.call(rig, *texts))
        self.check_shape(answer, 300, MODEL_SIZE)
        for row, text in zip(answer.vectors, texts, strict=True):
            assert np.array_equal(row, rig.vector(text, MODEL_SIZE))
        assert not np.array_equal(answer.vectors[0], answer.vectors[1])

    def check_shape(self, answer: EmbedAnswer, count: int, dimensions: int) -> None:
        assert answer.vectors.dtype == np.float32
        assert answer.vectors.shape == (count, dimensions)
        assert answer.vectors.flags.c_contiguous
        assert answer.vectors.flags.writeable

    async def test_dimensions_are_sent_only_when_they_are_asked_for(self, rig: Rig, provider: Provider) -> None:
        answer = await provider.embed(self.call(rig, "a", "b", dimensions=256))
        self.check_shape(answer, 2, 256)
        assert np.array_equal(answer.vectors[1], rig.vector("b", 256))
        self.check_shape(await provider.embed(self.call(rig, "a")), 1, MODEL_SIZE)

    async def test_vectors_listed_in_another_order_are_put_back_by_their_index(
        self, rig: Rig, provider: Provider
    ) -> None:
        rig.fault(Fault("shuffled"))
        answer = await provider.embed(self.call(rig, "a", "b", "c"))
        for row, text in zip(answer.vectors, "abc", strict=True):
            assert np.array_equal(row, rig.vector(text, MODEL_SIZE))

    async def test_the_tokens_of_the_call_are_reported_and_a_lone_text_has_its_own_count(
        self, rig: Rig, provider: Provider
    ) -> None:
        both = await provider.embed(self.call(rig, "hello world", "one two three"))
        alone = await provider.embed(self.call(rig, "hello world"))
        assert (both.tokens, both.text_tokens) == (5, None)
        assert (alone.tokens, alone.text_tokens) == (2, [2])

    async def test_an_answer_without_usage_has_no_token_count(self, rig: Rig, provider: Provider) -> None:
        rig.fault(Fault("no_usage"))
        answer = await provider.embed(self.call(rig, "a"))
        assert (answer.tokens, answer.text_tokens) == (None, None)

    @pytest.mark.parametrize(
        "kind",
        [
            "wrong_count", "too_many", "wrong_dimensions", "ragged", "nan", "infinity", "bad_base64", "same_index", "truncated",
            "html",
        ],
    )  # fmt: skip
    async def test_an_answer_that_is_not_what_was_asked_is_a_bad_answer(
        self, rig: Rig, provider: Provider, kind: FaultKind
    ) -> None:
        rig.fault(Fault(kind))
        with pytest.raises(ProviderError) as caught:
            await provider.embed(self.call(rig, "first", SECRET_TEXT, dimensions=512))
        assert caught.value.fault is ProviderFault.BAD_ANSWER
        assert caught.value.fault.retryable
        assert "Karmesin" not in caught.value.detail

    @pytest.mark.parametrize(
        ("status", "fault"),
        [
            (400, ProviderFault.REFUSED),
            (401, ProviderFault.AUTHENTICATION),
            (403, ProviderFault.AUTHENTICATION),
            (404, ProviderFault.REFUSED),
            (408, ProviderFault.SERVER),
            (409, ProviderFault.SERVER),
            (413, ProviderFault.TOO_LARGE),
            (422, ProviderFault.REFUSED),
            (429, ProviderFault.RATE_LIMITED),
            (500, ProviderFault.SERVER),
            (502, ProviderFault.SERVER),
            (503, ProviderFault.SERVER),
            (529, ProviderFault.SERVER),
        ],
    )
    async def test_each_status_has_its_place_in_the_taxonomy(
        self, rig: Rig, provider: Provider, status: int, fault: ProviderFault
    ) -> None:
        error = await self.refused(
            rig, provider, Fault("status", status=status, message=f"Cannot embed {SECRET_TEXT!r} for {KEY}.")
        )
        assert (error.fault, error.status) == (fault, status)

    async def test_an_error_page_that_is_no_json_still_has_its_place(self, rig: Rig, provider: Provider) -> None:
        page = f"<html>502 Bad Gateway {SECRET_TEXT}</html>"
        error = await self.refused(rig, provider, Fault("status", status=502, body=page))
        assert error.fault is ProviderFault.SERVER

    async def test_exactly_one_call_is_made_even_when_it_fails(self, rig: Rig, provider: Provider) -> None:
        await self.refused(rig, provider, Fault("status", status=500, count=-1))
        assert rig.stats().calls == 1

    @pytest.mark.parametrize("kind", ["drop", "reset"])
    async def test_a_connection_that_breaks_is_a_connection_error(
        self, rig: Rig, provider: Provider, kind: FaultKind
    ) -> None:
        error = await self.refused(rig, provider, Fault(kind))
        assert error.fault is ProviderFault.CONNECTION

    async def test_a_provider_that_never_answers_is_a_timeout_and_its_connection_is_given_up(
        self, rig: Rig, provider: Provider
    ) -> None:
        error = await self.refused(rig, provider, Fault("hang"), timeout=0.05)
        assert error.fault is ProviderFault.TIMEOUT
        answer = await provider.embed(self.call(rig, "after"))
        assert np.array_equal(answer.vectors[0], rig.vector("after", MODEL_SIZE))

    async def test_cancelling_a_call_passes_through_and_frees_its_connection(self, rig: Rig) -> None:
        provider = rig.open(max_concurrency=1)
        rig.fault(Fault("hang"))
        hung = asyncio.create_task(provider.embed(self.call(rig, "a")))
        await rig.calls(1)
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung
        await provider.embed(self.call(rig, "b"))
        await provider.close()

    async def test_no_more_connections_are_open_than_the_endpoint_allows(self, rig: Rig) -> None:
        provider = rig.open(max_concurrency=3)
        rig.hold(True)
        calls = [asyncio.create_task(provider.embed(self.call(rig, f"t{i}"))) for i in range(10)]
        await rig.calls(3)
        rig.hold(False)
        for i, call in enumerate(calls):
            assert np.array_equal((await call).vectors[0], rig.vector(f"t{i}", MODEL_SIZE))
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
        hung = asyncio.create_task(provider.embed(self.call(rig, "a")))
        await rig.calls(1)
        await provider.close()
        with pytest.raises(ProviderError) as caught:
            await hung
        assert caught.value.fault is ProviderFault.CONNECTION
        await provider.close()
        with pytest.raises(ProviderError) as caught:
            await provider.embed(self.call(rig, "a"))
        assert caught.value.fault is ProviderFault.CONNECTION
