"""Each provider's list of models, as its API answers it: read entry by entry, page by page, and named where it is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from adapters.providers.azure import AzureProvider
from adapters.providers.bedrock import BedrockProvider
from adapters.providers.bedrock_client import _control_address
from adapters.providers.cohere import CohereProvider
from adapters.providers.gemini import GeminiProvider
from adapters.providers.jina import JinaProvider
from adapters.providers.lists import MAX_PAGES
from adapters.providers.local.provider import LocalProvider
from adapters.providers.mistral import MistralProvider
from adapters.providers.openai import OpenAIProvider
from adapters.providers.vertex import VertexProvider
from adapters.providers.voyage import VoyageProvider
from domain.catalogue import Endpoint
from domain.ports.lists_models import ListedModel, Listing, ListsModels
from domain.ports.provider import ProviderError, ProviderFault
from gateway.bench.connection import Answer, Request
from gateway.bench.embeddings_api import OpenAIApi
from gateway.bench.simulator import Simulator, SimulatorOptions
from gateway.bench.wire_api import WireApi
from tests.conformance.provider_contract import KEY
from tests.support.bedrock import REGION, BedrockApi
from tests.support.bedrock_sigv4 import Account
from tests.support.cohere_api import CohereApi
from tests.support.gemini_api import GeminiApi
from tests.support.mistral_api import MistralApi

ACCOUNT = Account("AKIASIMULATED", KEY)
SECRET = json.dumps({"aws_access_key_id": ACCOUNT.key, "aws_secret_access_key": KEY})
Page = dict[str, Any] | list[Any] | bytes


class Lists:
    """A server that answers its list of models with these pages, in turn, and says which were asked for."""

    def __init__(self, provider: str, *pages: Page) -> None:
        self.provider = provider
        self.pages = [*pages]
        self.asked: list[str] = []
        self.status = 200
        self.api: WireApi = {
            "openai": OpenAIApi,
            "cohere": CohereApi,
            "mistral": MistralApi,
            "gemini": GeminiApi,
            "bedrock": lambda: BedrockApi(ACCOUNT),
        }[provider]()

    def other(self, request: Request) -> Answer:
        if isinstance(self.api, BedrockApi):
            self.api._authorise(request)
        self.asked.append(request.target.decode())
        page = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
        return Answer(self.status, page if isinstance(page, bytes) else json.dumps(page).encode())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ListsModels]:
        self.api.other = self.other  # type: ignore[method-assign]
        async with Simulator(
            SimulatorOptions(key=None if self.provider == "bedrock" else KEY, tokens="words"), self.api
        ) as simulator:
            url = simulator.base_url if self.provider == "openai" else simulator.url
            endpoint = Endpoint("e", self.provider, {}, base_url=url, options={})
            opened: Any
            if self.provider == "bedrock":
                opened = BedrockProvider(
                    Endpoint("e", "bedrock", {}, base_url=url, options={"region": REGION}), {}, SECRET
                )
            else:
                made: dict[str, Callable[[Endpoint, str], Any]] = {
                    "openai": OpenAIProvider,
                    "cohere": CohereProvider,
                    "mistral": MistralProvider,
                    "gemini": GeminiProvider,
                }
                opened = made[self.provider](endpoint, KEY)
            try:
                yield opened
            finally:
                await opened.close()

    async def listing(self, timeout: float = 10.0) -> Listing:
        async with self.open() as provider:
            found = await provider.list_models(timeout)
        assert found is not None
        return found


OPENAI: Page = {
    "object": "list",
    "data": [
        {"id": "text-embedding-3-large", "object": "model", "created": 1705953180, "owned_by": "system"},
        {"id": "gpt-4o", "object": "model", "created": 1715367049, "owned_by": "system"},
        {"id": "served", "object": "model", "created": 1, "max_model_len": 512},
        {"object": "model"},
        "gpt-5",
    ],
}
COHERE: Page = {
    "models": [
        {"name": "embed-v4.0", "endpoints": ["embed"], "context_length": 128000, "is_deprecated": False},
        {"name": "embed-english-v2.0", "endpoints": ["embed"], "context_length": 512.0, "is_deprecated": True},
        {"name": "", "endpoints": ["embed"]},
    ],
}
MISTRAL: Page = {
    "object": "list",
    "data": [
        {"id": "mistral-embed-2312", "created": 99, "aliases": ["mistral-embed", 7], "max_context_length": 8192},
        {"id": "old-embed", "aliases": [], "deprecation": "2026-11-30T12:00:00Z"},
        {"id": None},
    ],
}
GEMINI: Page = {
    "models": [
        {
            "name": "models/gemini-embedding-001",
            "inputTokenLimit": 2048,
            "supportedGenerationMethods": ["embedContent", "countTokens"],
        },
        {
            "name": "models/gemini-2.5-pro",
            "inputTokenLimit": 1048576,
            "supportedGenerationMethods": ["generateContent"],
        },
        {"name": 1},
    ],
}
BEDROCK: Page = {
    "modelSummaries": [
        {
            "modelId": "amazon.titan-embed-text-v2:0",
            "outputModalities": ["EMBEDDING"],
            "inferenceTypesSupported": ["ON_DEMAND"],
            "modelLifecycle": {"status": "ACTIVE"},
        },
        {
            "modelId": "amazon.titan-embed-g1-text-02",
            "outputModalities": ["EMBEDDING"],
            "inferenceTypesSupported": ["ON_DEMAND"],
            "modelLifecycle": {"status": "LEGACY"},
        },
        {
            "modelId": "amazon.titan-embed-text-v2:0:8k",
            "outputModalities": ["EMBEDDING"],
            "inferenceTypesSupported": ["PROVISIONED"],
        },
    ],
}

EXPECTED = {
    "openai": (OPENAI, 2, [
        ListedModel("text-embedding-3-large", created=1705953180),
        ListedModel("gpt-4o", created=1715367049),
        ListedModel("served", created=1, max_tokens=512),
    ]),
    "cohere": (COHERE, 1, [
        ListedModel("embed-v4.0", embeds=True, max_tokens=128000),
        ListedModel("embed-english-v2.0", embeds=True, max_tokens=512, deprecated=True),
    ]),
    "mistral": (MISTRAL, 1, [
        ListedModel("mistral-embed-2312", max_tokens=8192, aliases=("mistral-embed",)),
        ListedModel("old-embed", deprecated=True),
    ]),
    "gemini": (GEMINI, 1, [
        ListedModel("gemini-embedding-001", embeds=True, max_tokens=2048),
        ListedModel("gemini-2.5-pro", embeds=False, max_tokens=1048576),
    ]),
    "bedrock": (BEDROCK, 0, [
        ListedModel("amazon.titan-embed-text-v2:0", embeds=True),
        ListedModel("amazon.titan-embed-g1-text-02", embeds=True, deprecated=True),
    ]),
}  # fmt: skip
PATHS = {
    "openai": "/v1/models",
    "cohere": "/v1/models?endpoint=embed&page_size=1000",
    "mistral": "/v1/models",
    "gemini": "/v1beta/models?pageSize=1000",
    "bedrock": "/foundation-models?byOutputModality=EMBEDDING",
}


@pytest.mark.parametrize("provider", EXPECTED)
async def test_a_list_is_read_as_the_provider_has_it_and_what_is_garbled_in_it_is_counted(provider: str) -> None:
    page, garbled, models = EXPECTED[provider]
    lists = Lists(provider, page)
    assert await lists.listing() == Listing(models, garbled)
    assert lists.asked == [PATHS[provider]]


@pytest.mark.parametrize("provider", EXPECTED)
@pytest.mark.parametrize("body", [b"<html>no</html>", b'{"data":', b'{"data":{},"models":7,"modelSummaries":"x"}'])
async def test_what_is_no_list_is_a_bad_answer_and_no_empty_list(provider: str, body: bytes) -> None:
    async with Lists(provider, body).open() as opened:
        with pytest.raises(ProviderError) as caught:
            await opened.list_models(10.0)
    assert caught.value.fault is ProviderFault.BAD_ANSWER


@pytest.mark.parametrize("provider", EXPECTED)
async def test_a_list_that_is_refused_is_told_as_any_other_call(provider: str) -> None:
    lists = Lists(provider, b"{}")
    lists.status = 503
    async with lists.open() as opened:
        with pytest.raises(ProviderError) as caught:
            await opened.list_models(10.0)
    assert caught.value.fault is ProviderFault.SERVER
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("provider", "name", "asked"),
    [("cohere", "next_page_token", "page_token"), ("gemini", "nextPageToken", "pageToken")],
)
async def test_the_pages_of_a_list_are_one_list(provider: str, name: str, asked: str) -> None:
    page, garbled, models = EXPECTED[provider]
    assert isinstance(page, dict)
    lists = Lists(provider, page | {name: "a/b&c"}, page)
    assert await lists.listing() == Listing(models * 2, garbled * 2)
    assert parse_qs(urlsplit(lists.asked[1]).query)[asked] == ["a/b&c"]
    endless = Lists(provider, page | {name: "again"})
    assert len((await endless.listing()).models) == MAX_PAGES * len(models)


@pytest.mark.parametrize("provider", ["cohere", "gemini"])
async def test_the_deadline_is_for_all_pages_together(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = Lists(provider, EXPECTED[provider][0])
    async with lists.open() as opened:

        async def hang(path: str, timeout: float) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(opened._api, "get", hang)  # type: ignore[attr-defined]
        with pytest.raises(ProviderError) as caught:
            await opened.list_models(0.01)
    assert caught.value.fault is ProviderFault.TIMEOUT


async def test_a_server_that_answers_a_bare_list_is_understood() -> None:
    assert (await Lists("openai", [{"id": "BAAI/bge-base-en-v1.5"}]).listing()).models == [
        ListedModel("BAAI/bge-base-en-v1.5")
    ]


async def test_the_local_provider_lists_its_one_model(tmp_path: Path) -> None:
    provider = LocalProvider(tmp_path)
    assert await provider.list_models(1.0) == Listing([ListedModel("all-MiniLM-L6-v2", embeds=True, dimensions=384)])
    await provider.close()


async def test_a_resource_of_azure_has_deployments_and_no_list() -> None:
    provider = AzureProvider(Endpoint("e", "azure", {}, base_url="https://ours.openai.azure.com"), KEY)
    assert await provider.list_models(1.0) is None
    await provider.close()


@pytest.mark.parametrize("made", [JinaProvider, VoyageProvider, VertexProvider])
def test_providers_without_a_list_are_known_by_the_shipped_catalogue_alone(made: type) -> None:
    assert not hasattr(made, "list_models")


@pytest.mark.parametrize(
    ("runtime", "control"),
    [
        (None, None),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com", "https://bedrock.eu-west-1.amazonaws.com"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
    ],
)
def test_bedrocks_models_are_listed_at_its_control_plane(runtime: str | None, control: str | None) -> None:
    assert _control_address(runtime) == control
