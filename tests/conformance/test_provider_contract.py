"""The contract of providers finds adapters that break it: each of these errs in one way, and the test of that way fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from adapters.providers.openai import OpenAIProvider
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault
from gateway.bench.simulator import Simulator, SimulatorOptions
from tests.conformance.http_rig import HttpRig
from tests.conformance.provider_contract import KEY, ProviderContract


class Swaps(OpenAIProvider):
    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        answer = await super().embed(call)
        return EmbedAnswer(np.ascontiguousarray(answer.vectors[::-1]), answer.tokens, answer.text_tokens)


class CutsToSize(OpenAIProvider):
    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        answer = await super().embed(EmbedCall(call.texts, call.model, call.timeout))
        return EmbedAnswer(np.ascontiguousarray(answer.vectors[:, : call.dimensions]), answer.tokens)


class Miscounts(OpenAIProvider):
    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        answer = await super().embed(call)
        return EmbedAnswer(answer.vectors, None if answer.tokens is None else answer.tokens + 1, answer.text_tokens)


class Rounds(OpenAIProvider):
    """Rounds as float16 does: right to the eye, and not what the provider gave."""

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        answer = await super().embed(call)
        return EmbedAnswer(answer.vectors.astype("<f2").astype("<f4"), answer.tokens, answer.text_tokens)


class Retries(OpenAIProvider):
    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        try:
            return await super().embed(call)
        except ProviderError:
            pass
        return await super().embed(call)


class Quotes(OpenAIProvider):
    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        try:
            return await super().embed(call)
        except ProviderError as error:
            fault = error.fault
        raise ProviderError(fault, f"could not embed {call.texts[-1]!r}", status=500)


class Chains(OpenAIProvider):
    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        try:
            return await super().embed(call)
        except ProviderError as error:
            raise ProviderError(error.fault, error.detail, status=error.status) from error


class Hurries(OpenAIProvider):
    """Gives up for its caller and lets the call go on."""

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        inner = asyncio.ensure_future(super().embed(EmbedCall(call.texts, call.model, 3600.0)))
        # Nobody is told how it ends: asked for here, lest the loop complains of that in whichever test comes next.
        inner.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception())
        done, _ = await asyncio.wait({inner}, timeout=call.timeout)
        if done:
            return inner.result()
        raise ProviderError(ProviderFault.TIMEOUT, "no answer")


class Follows(OpenAIProvider):
    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        super().__init__(endpoint, key)
        self._client._client.follow_redirects = True


class TakesTheShells(OpenAIProvider):
    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        from os import environ

        super().__init__(endpoint, key)
        self._client.organization = environ.get("OPENAI_ORG_ID")


class Logs(OpenAIProvider):
    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        logging.getLogger("careless").debug("asking", extra={"texts": call.texts})
        return await super().embed(call)


class ChecksByEmbedding(OpenAIProvider):
    async def check(self, timeout: float) -> None:
        await self.embed(EmbedCall(["ping"], "text-embedding-3-small", timeout))


class Resurrects(OpenAIProvider):
    async def close(self) -> None:
        await super().close()
        self._closed = False


class OneFault(OpenAIProvider):
    """Every error is the server's."""

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        error: ProviderError
        try:
            return await super().embed(call)
        except ProviderError as caught:
            error = ProviderError(ProviderFault.SERVER, caught.detail, status=caught.status)
        raise error


C = ProviderContract
BROKEN: list[tuple[type[OpenAIProvider], Callable[..., Any], dict[str, Any]]] = [
    (Swaps, C.test_each_text_gets_exactly_its_own_vector_in_the_order_asked, {}),
    (Rounds, C.test_each_text_gets_exactly_its_own_vector_in_the_order_asked, {}),
    (Rounds, C.test_what_is_answered_comes_out_right_in_every_encoding, {"encoding": "float32"}),
    (Swaps, C.test_what_is_answered_comes_out_right_in_every_encoding, {"encoding": "ubinary"}),
    (CutsToSize, C.test_dimensions_are_sent_only_when_they_are_asked_for, {}),
    (Miscounts, C.test_tokens_are_reported_as_the_provider_tells_them, {}),
    (Retries, C.test_each_status_has_its_place_in_the_taxonomy, {"status": 500}),
    (Retries, C.test_a_connection_that_breaks_is_a_connection_error, {"kind": "drop"}),
    (Quotes, C.test_each_status_has_its_place_in_the_taxonomy, {"status": 500}),
    (Chains, C.test_each_status_has_its_place_in_the_taxonomy, {"status": 500}),
    (OneFault, C.test_each_status_has_its_place_in_the_taxonomy, {"status": 401}),
    (OneFault, C.test_a_text_over_the_models_limit_is_too_long_with_its_index_where_it_is_told, {}),
    (OneFault, C.test_more_texts_than_a_call_may_have_are_too_large, {}),
    (OneFault, C.test_an_answer_that_is_not_what_was_asked_is_a_bad_answer, {"kind": "nan"}),
    (OneFault, C.test_a_rate_limit_says_when_to_come_back_where_the_provider_does, {"told": "7", "seconds": 7.0}),
    (OneFault, C.test_a_server_that_is_not_there_is_a_connection_error, {}),
    (Follows, C.test_a_redirect_is_not_followed_and_carries_nothing_away, {}),
    (TakesTheShells, C.test_no_credential_or_account_of_the_environment_is_sent, {}),
    (Logs, C.test_neither_text_nor_key_is_logged_by_the_sdk, {}),
    (ChecksByEmbedding, C.test_a_check_embeds_nothing_and_passes_where_the_provider_takes_our_key, {}),
    (Resurrects, C.test_close_fails_what_is_in_flight_refuses_new_calls_and_may_be_called_again, {}),
]


class Contract(ProviderContract):
    shell: ClassVar[dict[str, str]] = {"OPENAI_ORG_ID": "org-of-the-shell"}


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorOptions(key=KEY, max_inputs=Contract.max_inputs)) as running:
        yield running


def rig_of(kind: type[OpenAIProvider], simulator: Simulator, opened: list[OpenAIProvider]) -> HttpRig:
    def opens(url: str, max_concurrency: int, key: str) -> OpenAIProvider:
        endpoint = Endpoint("e", "openai", {}, base_url=f"{url}/v1", max_concurrency=max_concurrency)
        opened.append(kind(endpoint, key))
        return opened[-1]

    return HttpRig(simulator, "text-embedding-3-small", opens)


@pytest.mark.parametrize(("kind", "test", "values"), BROKEN, ids=lambda v: getattr(v, "__name__", None))
async def test_an_adapter_that_errs_is_found_out(
    kind: type[OpenAIProvider],
    test: Callable[..., Any],
    values: dict[str, Any],
    simulator: Simulator,
    request: pytest.FixtureRequest,
) -> None:
    opened: list[OpenAIProvider] = []
    rig = rig_of(kind, simulator, opened)
    names = test.__code__.co_varnames[: test.__code__.co_argcount]
    given: dict[str, Any] = {"rig": rig, **values}
    if "provider" in names:
        given["provider"] = rig.open()
    given |= {name: request.getfixturevalue(name) for name in ("monkeypatch", "caplog") if name in names}
    with pytest.raises(
        (AssertionError, pytest.fail.Exception, RuntimeError)
    ):  # the last is the SDK's, of a closed client
        async with asyncio.timeout(20):
            await test(Contract(), **given)
    for provider in opened:
        await OpenAIProvider.close(provider)
        await provider._client.close()


async def test_a_call_that_goes_on_after_its_time_is_found_out(simulator: Simulator) -> None:
    opened: list[OpenAIProvider] = []
    rig = rig_of(Hurries, simulator, opened)
    test = Contract().test_no_call_takes_longer_than_its_timeout_and_its_connection_is_given_up
    running = asyncio.create_task(test(rig, rig.open(), "hang"))
    await rig.calls(1)
    done, _ = await asyncio.wait({running}, timeout=0.5)  # it waits for the server to see the call given up
    assert not done
    running.cancel()
    await asyncio.wait({running})
    await opened[0].close()


def test_a_test_that_is_left_out_must_be_there() -> None:
    with pytest.raises(AssertionError, match="there is no test test_of_something"):
        type("Sloppy", (ProviderContract,), {"left_out": {"test_of_something": "why"}})
