"""The Mistral provider against a server that speaks its API: the contract of every provider, and what is Mistral's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from adapters.providers.mistral import DEFAULT_BASE_URL, MistralProvider
from adapters.providers.registry import PROVIDERS, open_provider
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedCall, Provider, ProviderFault
from gateway.bench.faults import Fault
from gateway.bench.simulator import Simulator, SimulatorOptions
from tests.conformance.http_rig import HttpRig, failure, said
from tests.conformance.provider_contract import KEY, STATUSES, ProviderContract
from tests.support.http_api import check_strictness
from tests.support.mistral_api import MistralApi

MODEL = "codestral-embed"


def opens(url: str, max_concurrency: int, key: str) -> MistralProvider:
    return MistralProvider(Endpoint("e", "mistral", {}, base_url=f"{url}", max_concurrency=max_concurrency), key)


@pytest.fixture(params=["base64", "float"])
async def simulator(request: pytest.FixtureRequest) -> AsyncIterator[Simulator]:
    """A server that gives base64 when asked, and one that answers lists of numbers whatever is asked."""
    options = SimulatorOptions(key=KEY, tokens="words", max_inputs=256, max_input_tokens=8192, max_tokens=16_384)
    async with Simulator(options, MistralApi(base64=request.param == "base64")) as running:
        yield running


@pytest.fixture
def rig(simulator: Simulator) -> HttpRig:
    return HttpRig(simulator, MODEL, opens)


@pytest.fixture
async def provider(rig: HttpRig) -> AsyncIterator[Provider]:
    opened = rig.open()
    yield opened
    await opened.close()


class TestMistralKeepsTheContract(ProviderContract):
    """With `codestral-embed`, the model that has sizes. It has no input types."""

    max_inputs: ClassVar[int] = 256
    long_text: ClassVar[str] = "word " * 8192
    statuses: ClassVar[Mapping[int, ProviderFault]] = {**STATUSES, 402: ProviderFault.AUTHENTICATION}
    shell: ClassVar[Mapping[str, str]] = {
        "MISTRAL_API_KEY": "sk-of-the-shell",
        "MISTRAL_SERVER_URL": "http://of-the-shell.invalid",
        "HTTP_PROXY": "http://of-the-shell.invalid",
    }


class TestWhatIsMistralsOwn:
    @pytest.mark.parametrize(
        ("message", "fault", "index"),
        [
            ("Too many tokens in batch. Max is 16384 got 17555", "too_large", None),
            ("Too many tokens overall, split into more batches.", "too_large", None),
            ("Too many inputs in request, split into more batches.", "too_large", None),
            ("Input id 1 has 57558 tokens, exceeding max 8192 tokens.", "too_long", 1),
            ("Please provide at least one input element.", "refused", None),
        ],
    )
    async def test_what_its_messages_mean_though_their_code_is_the_same(
        self, rig: HttpRig, provider: Provider, message: str, fault: str, index: int | None
    ) -> None:
        call = EmbedCall(["a", "b"], MODEL, 10.0)
        error = await failure(rig, provider, call, Fault("status", status=400, message=message, code="3210"))
        assert (error.fault, error.index, error.status) == (fault, index, 400)

    @pytest.mark.parametrize(
        ("status", "body", "fault"),
        [
            (401, '{"detail":"Unauthorized"}', "authentication"),
            (429, '{"message":"Requests rate limit exceeded"}', "rate_limited"),
            (
                422,
                '{"detail":[{"loc":["body","input"],"msg":"field required","type":"value_error.missing"}]}',
                "refused",
            ),
            (
                422,
                '{"object":"error","message":{"detail":[{"msg":"Extra inputs are not permitted"}]},"code":null}',
                "refused",
            ),
            (
                400,
                '{"object":"error","message":"Invalid model: x","type":"invalid_model","param":null,"code":1500}',
                "refused",
            ),
        ],
    )
    async def test_its_other_error_bodies_have_their_place(
        self, rig: HttpRig, provider: Provider, status: int, body: str, fault: str
    ) -> None:
        error = await failure(rig, provider, EmbedCall(["a"], MODEL, 10.0), said(body, status))
        assert error.fault == fault

    async def test_what_a_refusal_repeats_of_the_text_is_not_taken_for_the_providers_word(
        self, rig: HttpRig, provider: Provider
    ) -> None:
        body = '{"detail":[{"msg":"Invalid","input":"Too many tokens overall, split into more batches."}]}'
        error = await failure(rig, provider, EmbedCall(["a", "b"], MODEL, 10.0), said(body, 422))
        assert error.fault is ProviderFault.REFUSED

    async def test_a_call_over_the_limit_of_all_its_texts_is_too_large(self, rig: HttpRig, provider: Provider) -> None:
        error = await failure(rig, provider, EmbedCall(["word " * 8000] * 3, MODEL, 10.0))
        assert error.fault is ProviderFault.TOO_LARGE

    async def test_the_server_of_these_tests_is_strict(self, simulator: Simulator) -> None:
        await check_strictness(
            f"{simulator.url}/v1/embeddings",
            {"model": MODEL, "input": ["a"], "output_dimension": 256},
            [
                {"model": "mistral-embed"}, {"dimensions": 256}, {"input": None}, {"inputs": ["a"]}, {"input_type": "query"},
                {"encoding_format": "int8"}, {"output_dimension": 4000}, {"input": ["a"] * 257}, {"input": [""]},
                {"input": ["word " * 8192]}, {"model": "mistral-embed-9"}, {"truncate": False},
            ],
        )  # fmt: skip


async def test_the_registry_opens_the_adapter_at_its_own_address() -> None:
    assert PROVIDERS["mistral"].base_url == DEFAULT_BASE_URL
    opened = open_provider(Endpoint("e", "mistral", {}, api_key_env="KEY"), {"KEY": KEY}, Path())
    assert isinstance(opened, MistralProvider)
    await opened.close()


@pytest.mark.parametrize(
    ("options", "key", "told"),
    [({"encoding_format": "int8"}, KEY, "expected 'base64' or 'float'"), ({}, "sk-\n0123", "printable ASCII")],
)
def test_what_cannot_be_sent_is_refused_when_the_endpoint_is_opened(
    options: dict[str, str], key: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        MistralProvider(Endpoint("e", "mistral", {}, options=options), key)
    assert "0123" not in str(caught.value)
