"""The Cohere provider against a server that speaks its v2 API: the contract of every provider, and what is Cohere's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from adapters.providers.cohere import DEFAULT_BASE_URL, CohereProvider
from adapters.providers.registry import PROVIDERS, open_provider
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedCall, Provider, ProviderFault
from gateway.bench.faults import Control, Fault
from gateway.bench.simulator import Simulator, SimulatorOptions
from tests.conformance.http_rig import HttpRig, failure, said
from tests.conformance.provider_contract import KEY, SECRET_TEXT, STATUSES, ProviderContract
from tests.support.cohere_api import CohereApi
from tests.support.http_api import check_strictness

MODEL = "embed-v4.0"


def opens(url: str, max_concurrency: int, key: str) -> CohereProvider:
    return CohereProvider(Endpoint("e", "cohere", {}, base_url=f"{url}", max_concurrency=max_concurrency), key)


@pytest.fixture(params=["base64", "float"])
async def simulator(request: pytest.FixtureRequest) -> AsyncIterator[Simulator]:
    """A server that gives base64 when asked, and one that answers lists of numbers whatever is asked."""
    options = SimulatorOptions(key=KEY, tokens="words", max_inputs=96, max_input_tokens=128_000, max_tokens=1_000_000)
    async with Simulator(options, CohereApi(base64=request.param == "base64")) as running:
        yield running


@pytest.fixture
def rig(simulator: Simulator) -> HttpRig:
    return HttpRig(simulator, MODEL, opens)


@pytest.fixture
async def provider(rig: HttpRig) -> AsyncIterator[Provider]:
    opened = rig.open()
    yield opened
    await opened.close()


class TestCohereKeepsTheContract(ProviderContract):
    max_inputs: ClassVar[int] = 96
    long_text: ClassVar[str] = "word " * 128_000
    too_long_index: ClassVar[bool] = False
    input_types: ClassVar[Mapping[str | None, object]] = {
        None: "search_document",
        "document": "search_document",
        "query": "search_query",
        "classification": "classification",
        "clustering": "clustering",
    }
    statuses: ClassVar[Mapping[int, ProviderFault]] = {
        **STATUSES,
        402: ProviderFault.AUTHENTICATION,
        498: ProviderFault.REFUSED,
        499: ProviderFault.SERVER,
    }
    shell: ClassVar[Mapping[str, str]] = {
        "CO_API_KEY": "sk-of-the-shell",
        "CO_API_URL": "http://of-the-shell.invalid",
        "HTTP_PROXY": "http://of-the-shell.invalid",
    }
    left_out: ClassVar[Mapping[str, str]] = {
        "test_vectors_listed_in_another_order_are_put_back_by_their_index": "Cohere's vectors have no index",
        "test_an_answer_that_is_not_what_was_asked_is_a_bad_answer[same_index]": "Cohere's vectors have no index",
    }


class TestWhatIsCoheresOwn:
    @pytest.mark.parametrize(
        ("message", "fault", "index"),
        [
            ("invalid request: total number of texts must be at most 96 - received 131", "too_large", None),
            (
                "too many tokens: size limit exceeded by 11326 tokens. Try using shorter or fewer inputs.",
                "too_large",
                None,
            ),
            (
                "too many tokens: total number of tokens in the prompt cannot exceed 512 - received 513.",
                "too_long",
                None,
            ),
            ("invalid request: inputs contains an element that is the empty string at index 0", "refused", None),
            ("invalid request: valid input_type must be provided with the provided model", "refused", None),
        ],
    )
    async def test_what_its_messages_mean(
        self, rig: HttpRig, provider: Provider, message: str, fault: str, index: int | None
    ) -> None:
        error = await failure(
            rig, provider, EmbedCall(["a", "b"], MODEL, 10.0), Fault("status", status=400, message=message)
        )
        assert (error.fault, error.index, error.status) == (fault, index, 400)

    async def test_a_call_over_the_limit_of_all_its_texts_is_too_large(
        self, rig: HttpRig, provider: Provider, simulator: Simulator
    ) -> None:
        simulator.control(Control(max_tokens=10))
        error = await failure(rig, provider, EmbedCall(["one two three four five six"] * 2, MODEL, 10.0))
        assert error.fault is ProviderFault.TOO_LARGE

    async def test_texts_are_cut_only_where_the_offering_says_so(self, rig: HttpRig, provider: Provider) -> None:
        long = "word " * 128_000 + SECRET_TEXT
        answer = await provider.embed(EmbedCall([long], MODEL, 10.0, config={"truncate": "END"}))
        assert answer.tokens == 128_000
        error = await failure(rig, provider, EmbedCall([long], MODEL, 10.0, config={"truncate": "NONE"}))
        assert error.fault is ProviderFault.TOO_LONG

    async def test_a_model_that_is_not_there_is_refused(self, rig: HttpRig, provider: Provider) -> None:
        error = await failure(rig, provider, EmbedCall(["a"], "embed-v9", 10.0))
        assert (error.fault, error.status) == (ProviderFault.NOT_SERVED, 404)

    async def test_vectors_in_no_form_that_was_asked_for_are_a_bad_answer(
        self, rig: HttpRig, provider: Provider
    ) -> None:
        body = '{"id":"1","embeddings":{"int8":[[1,2]]},"meta":{}}'
        error = await failure(rig, provider, EmbedCall(["a"], MODEL, 10.0), said(body, 200))
        assert error.fault is ProviderFault.BAD_ANSWER

    async def test_the_server_of_these_tests_is_strict(self, simulator: Simulator) -> None:
        good = {"model": MODEL, "texts": ["a"], "input_type": "search_query", "embedding_types": ["float"]}
        await check_strictness(
            f"{simulator.url}/v2/embed",
            good,
            [
                {"input_type": None}, {"input_type": "query"}, {"embedding_types": None}, {"texts": None}, {"input": ["a"]},
                {"truncate": False}, {"output_dimension": 100}, {"output_dimension": "256"}, {"texts": "a"}, {"texts": [""]},
                {"texts": ["a"] * 97}, {"model": "embed-v9"}, {"encoding_format": "base64"},
            ],
        )  # fmt: skip


async def test_the_registry_opens_the_adapter_at_its_own_address() -> None:
    assert PROVIDERS["cohere"].base_url == DEFAULT_BASE_URL
    opened = open_provider(Endpoint("e", "cohere", {}, api_key_env="KEY"), {"KEY": KEY}, Path())
    assert isinstance(opened, CohereProvider)
    await opened.close()


@pytest.mark.parametrize(
    ("options", "key", "told"),
    [({"encoding_format": "int8"}, KEY, "expected 'base64' or 'float'"), ({}, "sk-\n0123", "printable ASCII")],
)
def test_what_cannot_be_sent_is_refused_when_the_endpoint_is_opened(
    options: dict[str, str], key: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        CohereProvider(Endpoint("e", "cohere", {}, options=options), key)
    assert "0123" not in str(caught.value)
