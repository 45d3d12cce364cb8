"""The Azure provider against a simulated resource: both of its APIs keep the contract, and its own errors have their places."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from adapters.providers.azure import AzureProvider
from adapters.providers.registry import EndpointError, open_provider
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedCall, Provider, ProviderError, ProviderFault
from gateway.bench.connection import Answer, Request
from gateway.bench.embeddings_api import OpenAIApi, error_answer
from gateway.bench.faults import Fault
from gateway.bench.simulator import Simulator, SimulatorOptions
from gateway.bench.tokens import Counter
from gateway.bench.wire_api import Asked, Limits, Refused
from tests.conformance.http_rig import HttpRig
from tests.conformance.provider_contract import KEY, ProviderContract, Rig

DEPLOYMENT = "our embeddings"
"""The name of a deployment is no model's name, and may need escaping in a path."""
VERSION = "2024-10-21"

Generation = Literal["v1", "versioned"]


class AzureApi(OpenAIApi):
    """A resource with one deployment of text-embedding-3-small. Only one of its two APIs is there, so that no call takes the other."""

    def __init__(self, generation: Generation) -> None:
        super().__init__({DEPLOYMENT: 1536})
        self._versioned = generation == "versioned"

    def embeds(self, target: bytes) -> bool:
        path = urlsplit(target.decode()).path
        if not self._versioned:
            return path == "/openai/v1/embeddings"
        return path.startswith("/openai/deployments/") and path.endswith("/embeddings")

    def credential(self, request: Request) -> bytes:
        assert b"authorization" not in request.headers, "two credentials in one request"
        return request.headers.get(b"api-key", b"")

    def unauthorised(self) -> Answer:
        return error_answer(
            401,
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
            "active subscription and use a correct regional API endpoint for your resource.",
            code="401",
        )

    def read(self, request: Request, limits: Limits, count: Counter) -> Asked:
        url = urlsplit(request.target.decode())
        if self._versioned:
            if parse_qs(url.query) != {"api-version": [VERSION]}:
                raise Refused(error_answer(404, "Resource not found", code="404"))
            if unquote(url.path.split("/")[3]) != DEPLOYMENT:
                message = "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, ..."
                raise Refused(error_answer(404, message, code="DeploymentNotFound"))
        else:
            assert url.query == "", "the v1 API has no version"
        return super().read(request, limits, count)

    def other(self, request: Request) -> Answer:
        models = f"/openai/models?api-version={VERSION}" if self._versioned else "/openai/v1/models"
        assert request.target == models.encode()
        return Answer(200, b'{"object":"list","data":[]}')


@pytest.fixture(params=["v1", "versioned"])
def generation(request: pytest.FixtureRequest) -> Generation:
    found: Generation = request.param
    return found


@pytest.fixture
async def rig(generation: Generation) -> AsyncIterator[HttpRig]:
    def opens(url: str, max_concurrency: int, key: str) -> AzureProvider:
        options = {"api_version": VERSION} if generation == "versioned" else {}
        return AzureProvider(
            Endpoint("e", "azure", {}, base_url=url, max_concurrency=max_concurrency, options=options), key
        )

    async with Simulator(SimulatorOptions(key=KEY, max_inputs=300), AzureApi(generation)) as simulator:
        yield HttpRig(simulator, DEPLOYMENT, opens)


@pytest.fixture
async def provider(rig: HttpRig) -> AsyncIterator[Provider]:
    opened = rig.open()
    yield opened
    await opened.close()


class TestAzureKeepsTheContract(ProviderContract):
    shell: ClassVar[dict[str, str]] = {
        "AZURE_OPENAI_API_KEY": "key-of-the-shell",
        "AZURE_OPENAI_AD_TOKEN": "token-of-the-shell",
        "AZURE_OPENAI_ENDPOINT": "http://of-the-shell.invalid",
        "OPENAI_API_VERSION": "version-of-the-shell",
        "OPENAI_API_KEY": "sk-of-the-shell",
        "OPENAI_ORG_ID": "org-of-the-shell",
        "OPENAI_CUSTOM_HEADERS": "x-account: of-the-shell",
    }


class TestWhatAzureSays:
    async def error(self, rig: Rig, provider: Provider, **said: str | int) -> ProviderError:
        rig.fault(Fault("status", **said))  # type: ignore[arg-type]  # fields of a fault, by name
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(["a", "b"], rig.model, 10.0))
        return caught.value

    async def test_a_deployment_that_is_not_there_is_named(self, rig: Rig, provider: Provider) -> None:
        error = await self.error(
            rig,
            provider,
            status=404,
            code="DeploymentNotFound",
            message="The API deployment for this resource does not exist.",
        )
        assert error.fault is ProviderFault.NOT_SERVED
        assert "DeploymentNotFound" in error.detail

    async def test_a_text_that_its_filter_refuses_is_the_callers_not_ours(self, rig: Rig, provider: Provider) -> None:
        error = await self.error(
            rig, provider, status=400, code="content_filter", message="The response was filtered due to the prompt."
        )
        assert error.fault is ProviderFault.REFUSED
        assert not error.fault.elsewhere

    async def test_its_pause_is_read_in_milliseconds_before_seconds(self, rig: Rig, provider: Provider) -> None:
        error = await self.error(rig, provider, status=429, code="429", retry_after_ms="1250", retry_after="2")
        assert (error.fault, error.retry_after) == (ProviderFault.RATE_LIMITED, 1.25)

    async def test_its_pause_is_read_from_the_message_where_no_header_says_it(
        self, rig: Rig, provider: Provider
    ) -> None:
        said = (
            "Requests to the Embeddings_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded call rate limit "
            "of your current OpenAI S0 pricing tier. Please retry after 32 seconds."
        )
        error = await self.error(rig, provider, status=429, code="429", message=said)
        assert (error.fault, error.retry_after) == (ProviderFault.RATE_LIMITED, 32.0)

    async def test_too_many_texts_for_an_old_deployment_are_too_large(self, rig: Rig, provider: Provider) -> None:
        said = "Too many inputs. The max number of inputs is 16. We hope to increase the number of inputs per request soon."
        error = await self.error(rig, provider, status=400, message=said)
        assert error.fault is ProviderFault.TOO_LARGE


@pytest.mark.parametrize("copied", ["", "/", "/openai", "/openai/v1", "/openai/v1/"])
async def test_the_resources_address_may_be_copied_with_the_path_of_its_api(copied: str) -> None:
    provider = AzureProvider(Endpoint("e", "azure", {}, base_url="https://r.openai.azure.com" + copied), KEY)
    assert str(provider._client.base_url) == "https://r.openai.azure.com/openai/v1/"
    await provider.close()


def test_a_resource_without_an_address_or_a_key_is_answered_with_what_to_set() -> None:
    with pytest.raises(EndpointError, match=r"'e': azure needs base_url.*YOUR-RESOURCE"):
        open_provider(Endpoint("e", "azure", {}), {}, Path("unused"), "key")
    with pytest.raises(EndpointError, match=r"needs a key; set api_key_env.*AZURE_OPENAI_API_KEY"):
        open_provider(Endpoint("e", "azure", {}, base_url="https://r.openai.azure.com"), {}, Path("unused"))
