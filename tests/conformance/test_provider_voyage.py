"""The Voyage provider against a server that speaks its API: the contract of every provider, and what is Voyage's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from adapters.providers.registry import PROVIDERS, open_provider
from adapters.providers.voyage import DEFAULT_BASE_URL, VoyageProvider
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedCall, Provider, ProviderFault
from gateway.bench.faults import Control, Fault
from gateway.bench.simulator import Simulator, SimulatorOptions
from tests.conformance.http_rig import HttpRig, failure, said
from tests.conformance.provider_contract import KEY, SECRET_TEXT, STATUSES, ProviderContract
from tests.support.http_api import check_strictness
from tests.support.voyage_api import VoyageApi

MODEL = "voyage-4"


def opens(url: str, max_concurrency: int, key: str) -> VoyageProvider:
    return VoyageProvider(Endpoint("e", "voyage", {}, base_url=f"{url}/v1", max_concurrency=max_concurrency), key)


@pytest.fixture(params=["base64", "float"])
async def simulator(request: pytest.FixtureRequest) -> AsyncIterator[Simulator]:
    """A server that gives base64 when asked, and one that answers lists of numbers whatever is asked."""
    options = SimulatorOptions(key=KEY, tokens="words", max_inputs=1000, max_input_tokens=32_000, max_tokens=320_000)
    async with Simulator(options, VoyageApi(base64=request.param == "base64")) as running:
        yield running


@pytest.fixture
def rig(simulator: Simulator) -> HttpRig:
    return HttpRig(simulator, MODEL, opens)


@pytest.fixture
async def provider(rig: HttpRig) -> AsyncIterator[Provider]:
    opened = rig.open()
    yield opened
    await opened.close()


class TestVoyageKeepsTheContract(ProviderContract):
    size: ClassVar[int] = 1024
    max_inputs: ClassVar[int] = 1000
    long_text: ClassVar[str] = "word " * 32_000
    input_types: ClassVar[Mapping[str | None, object]] = {
        None: None,
        "query": "query",
        "document": "document",
        "classification": None,
        "clustering": None,
    }
    statuses: ClassVar[Mapping[int, ProviderFault]] = {**STATUSES, 402: ProviderFault.AUTHENTICATION}
    shell: ClassVar[Mapping[str, str]] = {
        "VOYAGE_API_KEY": "sk-of-the-shell",
        "VOYAGE_API_KEY_PATH": "http://of-the-shell.invalid",
        "HTTP_PROXY": "http://of-the-shell.invalid",
    }
    left_out: ClassVar[Mapping[str, str]] = {
        "test_a_check_with_a_wrong_key_fails_as_such": "Voyage answers nothing for free that asks for the key",
    }


class TestWhatIsVoyagesOwn:
    @pytest.mark.parametrize(
        ("body", "fault", "index"),
        [
            (
                """{"detail":"Request to model 'voyage-4-large' failed. The max allowed tokens per submitted batch is 120000. Your batch has
                126899 tokens after truncation. Please lower the number of tokens in the batch.","error_code":"TOO_MANY_TOKENS_IN_BATCH"}""",
                "too_large",
                None,
            ),
            (
                '{"detail":"The max allowed tokens per submitted batch is 120000. Your batch has 121138 tokens"}',
                "too_large",
                None,
            ),
            ('{"detail":"The batch size limit is 1000. Your batch size is 1001."}', "too_large", None),
            ('{"detail":"The number of inputs exceeds the maximum of 1000 per request."}', "too_large", None),
            ('{"detail":"Told in other words","error_code":"TOO_MANY_TOKENS_IN_BATCH"}', "too_large", None),
            (
                """{"detail":"Request to model 'voyage-2' failed. The example at index 1 in your batch has too many tokens and does not fit into
                the model's context window of 4000 tokens. Please lower the number of tokens in the listed example(s) or use truncation."}""",
                "too_long",
                1,
            ),
            ('{"detail":"Input exceeds the context length."}', "too_long", None),
            ('{"detail":"Model voyage-9 is not supported."}', "refused", None),
        ],
    )
    async def test_what_its_messages_mean(
        self, rig: HttpRig, provider: Provider, body: str, fault: str, index: int | None
    ) -> None:
        told = " ".join(body.split())
        error = await failure(rig, provider, EmbedCall(["a", "b"], MODEL, 10.0), said(told))
        assert (error.fault, error.index, error.status) == (fault, index, 400)

    async def test_a_call_over_the_limit_of_all_its_texts_is_too_large_and_says_by_which_code(
        self, rig: HttpRig, provider: Provider, simulator: Simulator
    ) -> None:
        simulator.control(Control(max_tokens=10))
        error = await failure(rig, provider, EmbedCall(["one two three four five six"] * 2, MODEL, 10.0))
        assert error.fault is ProviderFault.TOO_LARGE
        assert "code TOO_MANY_TOKENS_IN_BATCH" in error.detail

    async def test_a_code_that_is_not_known_is_not_passed_on(self, rig: HttpRig, provider: Provider) -> None:
        told = Fault("status", status=400, message="no", code="KARMESIN_ROT")
        error = await failure(rig, provider, EmbedCall(["a"], MODEL, 10.0), told)
        assert "KARMESIN" not in error.detail

    async def test_texts_are_cut_only_where_the_offering_says_so(self, rig: HttpRig, provider: Provider) -> None:
        long = "word " * 32_000 + SECRET_TEXT
        answer = await provider.embed(EmbedCall([long], MODEL, 10.0, config={"truncation": "true"}))
        assert answer.tokens == 32_000
        error = await failure(rig, provider, EmbedCall([long], MODEL, 10.0, config={"truncation": "false"}))
        assert error.fault is ProviderFault.TOO_LONG

    async def test_a_check_passes_whatever_the_server_says_of_its_address_unless_it_fails(
        self, rig: HttpRig, provider: Provider
    ) -> None:
        await provider.check(10.0)
        assert rig.stats().calls == 0

    async def test_the_server_of_these_tests_is_strict(self, simulator: Simulator) -> None:
        await check_strictness(
            f"{simulator.url}/v1/embeddings",
            {"model": MODEL, "input": ["a"], "truncation": False, "output_dimension": 256},
            [
                {"model": "voyage-law-2"}, {"dimensions": 256}, {"input": None}, {"input_type": "classification"},
                {"truncation": "false"}, {"encoding_format": "float"}, {"output_dimension": 300}, {"input": ["a"] * 1001},
                {"input": [""]}, {"input": ["word " * 32_000]}, {"model": "voyage-9"}, {"truncate": False},
            ],
        )  # fmt: skip


async def test_the_registry_opens_the_adapter_at_its_own_address() -> None:
    assert PROVIDERS["voyage"].base_url == DEFAULT_BASE_URL
    opened = open_provider(Endpoint("e", "voyage", {}, api_key_env="KEY"), {"KEY": KEY}, Path())
    assert isinstance(opened, VoyageProvider)
    await opened.close()


@pytest.mark.parametrize(
    ("options", "key", "told"),
    [({"encoding_format": "int8"}, KEY, "expected 'base64' or 'float'"), ({}, "sk-\n0123", "printable ASCII")],
)
def test_what_cannot_be_sent_is_refused_when_the_endpoint_is_opened(
    options: dict[str, str], key: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        VoyageProvider(Endpoint("e", "voyage", {}, options=options), key)
    assert "0123" not in str(caught.value)
