"""The Gemini provider against a server that speaks its API: the contract of every provider, and what is Gemini's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import aiohttp
import pytest

from adapters.catalogue import shipped
from adapters.providers.gemini import DEFAULT_BASE_URL, GeminiProvider
from adapters.providers.registry import PROVIDERS
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedCall, Provider, ProviderError, ProviderFault
from gateway.bench.faults import Fault
from gateway.bench.simulator import Simulator, SimulatorOptions
from tests.conformance.http_rig import HttpRig
from tests.conformance.provider_contract import KEY, SECRET_TEXT, ProviderContract, Usage
from tests.support.gemini_api import GeminiApi

MODEL = "gemini-embedding-001"


def opens(url: str, max_concurrency: int, key: str) -> GeminiProvider:
    return GeminiProvider(Endpoint("e", "gemini", {}, base_url=url, max_concurrency=max_concurrency), key)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    options = SimulatorOptions(key=KEY, tokens="words", max_inputs=100, max_input_tokens=2048, max_tokens=16_384)
    async with Simulator(options, GeminiApi()) as running:
        yield running


@pytest.fixture
def rig(simulator: Simulator) -> HttpRig:
    return HttpRig(simulator, MODEL, opens)


@pytest.fixture
async def provider(rig: HttpRig) -> AsyncIterator[Provider]:
    opened = rig.open()
    yield opened
    await opened.close()


class TestGeminiKeepsTheContract(ProviderContract):
    """Its errors are `google.rpc.Status` as JSON."""

    size: ClassVar[int] = 3072
    other_size: ClassVar[int | None] = 768
    max_inputs: ClassVar[int] = 100
    long_text: ClassVar[str] = "word " * 2048
    too_long_index: ClassVar[bool] = False
    usage: ClassVar[Usage] = "call"
    input_types: ClassVar[Mapping[str | None, object]] = {
        None: "RETRIEVAL_DOCUMENT",
        "query": "RETRIEVAL_QUERY",
        "document": "RETRIEVAL_DOCUMENT",
        "classification": "CLASSIFICATION",
        "clustering": "CLUSTERING",
    }
    shell: ClassVar[Mapping[str, str]] = {
        "GEMINI_API_KEY": "key-of-the-shell",
        "GOOGLE_API_KEY": "key-of-the-shell",
        "GOOGLE_GEMINI_BASE_URL": "http://of-the-shell.invalid",
        "GOOGLE_GENAI_USE_VERTEXAI": "true-of-the-shell",
        "HTTP_PROXY": "http://of-the-shell.invalid",
    }
    left_out: ClassVar[Mapping[str, str]] = {
        "test_vectors_listed_in_another_order_are_put_back_by_their_index": "embeddings have no index",
        "test_an_answer_that_is_not_what_was_asked_is_a_bad_answer[same_index]": "embeddings have no index",
    }


async def failure(rig: HttpRig, provider: Provider, body: Any, status: int, texts: int = 2) -> ProviderError:
    rig.fault(Fault("status", status=status, body=body if isinstance(body, str) else json.dumps(body)))
    with pytest.raises(ProviderError) as caught:
        await provider.embed(EmbedCall([SECRET_TEXT] * texts, MODEL, 10.0))
    assert "Karmesin" not in str(caught.value)
    return caught.value


class TestWhatGeminiSays:
    @pytest.mark.parametrize(
        ("message", "texts", "fault", "index"),
        [
            ("* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch\n", 101, ProviderFault.TOO_LARGE, None),
            ("Request payload size exceeds the limit: 4194304 bytes.", 2, ProviderFault.TOO_LARGE, None),
            ("Request payload size exceeds the limit: 36000 bytes.", 1, ProviderFault.TOO_LONG, 0),
            ("The input token count (2500) exceeds the maximum number of tokens allowed (2048).", 2, ProviderFault.TOO_LONG, None),
            ("The input token count exceeds the maximum.", 1, ProviderFault.TOO_LONG, 0),
            ("* EmbedContentRequest.content: contents is not specified\n", 2, ProviderFault.REFUSED, None),
        ],
    )  # fmt: skip
    async def test_sizes_are_told_apart_by_what_they_are_of(
        self, rig: HttpRig, provider: Provider, message: str, texts: int, fault: ProviderFault, index: int | None
    ) -> None:
        body = {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}
        error = await failure(rig, provider, body, 400, texts)
        assert (error.fault, error.index, error.status) == (fault, index, 400)

    async def test_a_wrong_key_is_a_400_and_our_credential_all_the_same(self, rig: HttpRig) -> None:
        provider = rig.open(key="AIza-wrong")
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(["a"], MODEL, 10.0))
        assert (caught.value.fault, caught.value.status) == (ProviderFault.AUTHENTICATION, 400)
        assert "reason API_KEY_INVALID" in caught.value.detail
        await provider.close()

    async def test_a_place_that_is_not_served_is_the_endpoints_matter(self, rig: HttpRig, provider: Provider) -> None:
        told = "User location is not supported for the API use."
        body = {"error": {"code": 400, "message": told, "status": "FAILED_PRECONDITION"}}
        assert (await failure(rig, provider, body, 400)).fault is ProviderFault.AUTHENTICATION

    @pytest.mark.parametrize(
        ("delay", "seconds"), [("34s", 34.0), ("0.250s", 0.25), ("34.074824224s", 34.074824224), ("soon", None), ("-1s", None)]
    )  # fmt: skip
    async def test_a_rate_limit_says_when_to_come_back_among_its_details(
        self, rig: HttpRig, provider: Provider, delay: str, seconds: float | None
    ) -> None:
        details = [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaMetric": "embed", "quotaValue": "100"}]},
            {"@type": "type.googleapis.com/google.rpc.Help", "links": [{"description": "Learn more", "url": "https://ai.google.dev"}]},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
        ]  # fmt: skip
        told = {
            "code": 429,
            "message": "You exceeded your current quota",
            "status": "RESOURCE_EXHAUSTED",
            "details": details,
        }
        error = await failure(rig, provider, {"error": told}, 429)
        assert (error.fault, error.retry_after) == (ProviderFault.RATE_LIMITED, seconds)

    @pytest.mark.parametrize("body", ["[]", '{"error": "overloaded"}', '{"error": {"details": [7]}}', "\x00", ""])
    async def test_an_error_in_another_form_still_has_its_place(
        self, rig: HttpRig, provider: Provider, body: str
    ) -> None:
        assert (await failure(rig, provider, body, 503)).fault is ProviderFault.SERVER

    async def test_a_reason_that_is_not_known_is_not_passed_on(self, rig: HttpRig, provider: Provider) -> None:
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "KARMESINROT"}]
        error = await failure(
            rig, provider, {"error": {"code": 403, "status": "PERMISSION_DENIED", "details": details}}, 403
        )
        assert error.fault is ProviderFault.AUTHENTICATION
        assert "karmesin" not in error.detail.lower()


def test_a_key_that_no_header_can_carry_is_refused_when_the_endpoint_is_opened() -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        GeminiProvider(Endpoint("e", "gemini", {}), "key\n")


def test_the_registry_knows_the_address_that_is_called() -> None:
    assert PROVIDERS["gemini"].base_url == DEFAULT_BASE_URL


GOOD: dict[str, Any] = {
    "model": f"models/{MODEL}",
    "content": {"parts": [{"text": "a"}]},
    "taskType": "RETRIEVAL_DOCUMENT",
}


@pytest.mark.parametrize(
    ("change", "key", "status"),
    [
        ({}, KEY, 200),
        ({}, "AIza-wrong", 400),
        ({"model": "models/other"}, KEY, 400),
        ({"taskType": "DOCUMENT"}, KEY, 400),
        ({"task_type": "CLUSTERING"}, KEY, 400),
        ({"outputDimensionality": 3073}, KEY, 400),
        ({"outputDimensionality": "768"}, KEY, 400),
        ({"content": {"parts": [{"text": "a"}, {"text": "b"}]}}, KEY, 400),
        ({"content": {"parts": [{"text": ""}]}}, KEY, 400),
        ({"content": "a"}, KEY, 400),
    ],
)
async def test_the_server_takes_what_is_right_and_nothing_else(
    simulator: Simulator, change: dict[str, Any], key: str, status: int
) -> None:
    url = f"{simulator.url}/v1beta/models/{MODEL}:batchEmbedContents"
    body = {"requests": [GOOD | change]}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers={"x-goog-api-key": key}) as got:
        assert got.status == status


def test_the_release_offers_the_model_here_and_at_vertex_with_the_caps_of_each() -> None:
    (entry,) = (entry for entry in shipped().models if entry.id == MODEL)
    assert {o.provider: (o.max_inputs, o.sends_dimensions) for o in entry.offerings} == {
        "vertex": (1, True),
        "gemini": (100, True),
    }
    assert entry.spec.unit, "vectors in a smaller size, which the Gemini API leaves shorter, are brought to length 1"
