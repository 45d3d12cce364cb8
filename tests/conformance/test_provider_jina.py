"""The Jina provider against a server that speaks its API: the contract of every provider, and what is Jina's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from adapters.providers.jina import DEFAULT_BASE_URL, JinaProvider
from adapters.providers.registry import PROVIDERS, open_provider
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedCall, Provider, ProviderFault
from gateway.bench.faults import Control
from gateway.bench.simulator import Simulator, SimulatorOptions
from tests.conformance.http_rig import HttpRig, failure, said
from tests.conformance.provider_contract import KEY, SECRET_TEXT, STATUSES, ProviderContract
from tests.support.http_api import check_strictness
from tests.support.jina_api import JinaApi

MODEL = "jina-embeddings-v4"


def opens(url: str, max_concurrency: int, key: str) -> JinaProvider:
    return JinaProvider(Endpoint("e", "jina", {}, base_url=f"{url}/v1", max_concurrency=max_concurrency), key)


@pytest.fixture(params=["base64", "float"])
async def simulator(request: pytest.FixtureRequest) -> AsyncIterator[Simulator]:
    """A server that gives base64 when asked, and one that answers lists of numbers whatever is asked."""
    options = SimulatorOptions(key=KEY, tokens="words", max_inputs=512, max_input_tokens=32_768, max_tokens=1_000_000)
    async with Simulator(options, JinaApi(base64=request.param == "base64")) as running:
        yield running


@pytest.fixture
def rig(simulator: Simulator) -> HttpRig:
    return HttpRig(simulator, MODEL, opens)


@pytest.fixture
async def provider(rig: HttpRig) -> AsyncIterator[Provider]:
    opened = rig.open()
    yield opened
    await opened.close()


class TestJinaKeepsTheContract(ProviderContract):
    """With `jina-embeddings-v4`."""

    size: ClassVar[int] = 2048
    max_inputs: ClassVar[int] = 512
    long_text: ClassVar[str] = "word " * 32_768
    too_long_index: ClassVar[bool] = False
    input_types: ClassVar[Mapping[str | None, object]] = {
        None: None,
        "query": "retrieval.query",
        "document": "retrieval.passage",
        "classification": "text-matching",
        "clustering": "text-matching",
    }
    statuses: ClassVar[Mapping[int, ProviderFault]] = {**STATUSES, 402: ProviderFault.AUTHENTICATION}
    shell: ClassVar[Mapping[str, str]] = {
        "JINA_API_KEY": "sk-of-the-shell",
        "JINA_BASE_URL": "http://of-the-shell.invalid",
        "HTTP_PROXY": "http://of-the-shell.invalid",
    }
    left_out: ClassVar[Mapping[str, str]] = {
        "test_a_check_with_a_wrong_key_fails_as_such": "Jina answers nothing for free that asks for the key",
    }


class TestWhatIsJinasOwn:
    @pytest.mark.parametrize(
        ("status", "body", "fault"),
        [
            (
                400,
                """{"detail":{"message":"Input text exceeds the model's maximum of 8194 tokens. Use 'truncate: true' to automatically
                truncate, or split into smaller chunks.","request_id":"r","code":"INPUT_TOKEN_LIMIT_EXCEEDED"}}""",
                "too_long",
            ),
            (
                422,
                """{"detail":"ValidationError(model='TextDoc', errors=[{'loc': ('text',), 'msg': 'Single text cannot exceed 8192 tokens.
                10454 tokens given.', 'type': 'value_error'}])"}""",
                "too_long",
            ),
            (
                400,
                """{"detail":"[RID: ec42] Validation error: 'body -> jina-embeddings-v4' Each input list can contain at most 512 items..
                Field errors: : Invalid value"}""",
                "too_large",
            ),
            (400, '{"detail":"input length is larger than the largest allowed size 2048"}', "too_large"),
            (400, '{"detail":"Batch size exceeds the limit"}', "too_large"),
            (401, '{"detail":"Failed to authenticate with the provided api key."}', "authentication"),
            (402, '{"detail":"Account balance not enough to run this query, please recharge"}', "authentication"),
            (
                422,
                '{"detail":[{"loc":["body","model"],"msg":"field required","type":"value_error.missing"}]}',
                "refused",
            ),
        ],
    )
    async def test_what_its_error_bodies_mean(
        self, rig: HttpRig, provider: Provider, status: int, body: str, fault: str
    ) -> None:
        error = await failure(rig, provider, EmbedCall(["a", "b"], MODEL, 10.0), said(" ".join(body.split()), status))
        assert (error.fault, error.index, error.status) == (fault, None, status)

    @pytest.mark.parametrize(
        ("model", "input_type", "task"),
        [
            ("jina-embeddings-v3", "query", "retrieval.query"),
            ("jina-embeddings-v3", "document", "retrieval.passage"),
            ("jina-embeddings-v3", "classification", "classification"),
            ("jina-embeddings-v3", "clustering", "separation"),
            ("jina-embeddings-v3", None, None),
            ("jina-embeddings-v2-base-en", "query", None),
        ],
    )
    async def test_tasks_are_those_of_the_model(
        self, rig: HttpRig, provider: Provider, model: str, input_type: str | None, task: str | None
    ) -> None:
        await provider.embed(EmbedCall(["a"], model, 10.0, input_type=input_type))
        assert rig.input_type() == task

    @pytest.mark.parametrize(
        ("config", "told"), [({"normalized": "true"}, True), ({"normalized": "false"}, False), ({}, None)]
    )
    async def test_unit_length_is_asked_for_where_the_offering_says_so(
        self, simulator: Simulator, provider: Provider, config: dict[str, str], told: bool | None
    ) -> None:
        await provider.embed(EmbedCall(["a"], "jina-embeddings-v3", 10.0, config=config))
        assert simulator.asked is not None
        assert simulator.asked.request == (True, told)

    async def test_late_chunking_which_mixes_the_texts_of_a_call_is_never_asked_for(
        self, rig: HttpRig, provider: Provider
    ) -> None:
        await provider.embed(EmbedCall(["a", "b"], MODEL, 10.0, config={"late_chunking": "true"}))
        assert rig.stats().statuses == {200: 1}, "the server refuses a field that it does not know"

    async def test_texts_are_cut_only_where_the_offering_says_so(self, rig: HttpRig, provider: Provider) -> None:
        long = "word " * 32_768 + SECRET_TEXT
        answer = await provider.embed(EmbedCall([long], MODEL, 10.0, config={"truncate": "true"}))
        assert answer.tokens == 32_768
        error = await failure(rig, provider, EmbedCall([long], MODEL, 10.0, config={"truncate": "false"}))
        assert error.fault is ProviderFault.TOO_LONG

    async def test_a_call_over_the_limit_of_all_its_texts_is_too_large(
        self, rig: HttpRig, provider: Provider, simulator: Simulator
    ) -> None:
        simulator.control(Control(max_tokens=10))
        error = await failure(rig, provider, EmbedCall(["one two three four five six"] * 2, MODEL, 10.0))
        assert error.fault is ProviderFault.TOO_LARGE

    async def test_the_server_of_these_tests_is_strict(self, simulator: Simulator) -> None:
        await check_strictness(
            f"{simulator.url}/v1/embeddings",
            {"model": MODEL, "input": ["a"], "truncate": False, "dimensions": 256},
            [
                {"output_dimension": 256}, {"input": None}, {"input_type": "query"}, {"task": "separation"}, {"task": "query"},
                {"truncate": "false"}, {"embedding_type": "int8"}, {"dimensions": 3000}, {"input": ["a"] * 513},
                {"normalized": True}, {"late_chunking": True}, {"encoding_format": "base64"}, {"model": "jina-9"},
                {"input": ["word " * 32_768]},
            ],
        )  # fmt: skip


async def test_the_registry_opens_the_adapter_at_its_own_address() -> None:
    assert PROVIDERS["jina"].base_url == DEFAULT_BASE_URL
    opened = open_provider(Endpoint("e", "jina", {}, api_key_env="KEY"), {"KEY": KEY}, Path())
    assert isinstance(opened, JinaProvider)
    await opened.close()


@pytest.mark.parametrize(
    ("options", "key", "told"),
    [({"encoding_format": "int8"}, KEY, "expected 'base64' or 'float'"), ({}, "sk-\n0123", "printable ASCII")],
)
def test_what_cannot_be_sent_is_refused_when_the_endpoint_is_opened(
    options: dict[str, str], key: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        JinaProvider(Endpoint("e", "jina", {}, options=options), key)
    assert "0123" not in str(caught.value)
