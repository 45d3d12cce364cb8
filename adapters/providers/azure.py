"""The `azure` provider: OpenAI's models at an Azure resource, through OpenAI's own SDK.

Azure names deployments, not models: a call's `model` is the name of the deployment. Without `api_version` the v1 API is called
(`{base_url}/openai/v1/embeddings`), with it the older one of that version (`/openai/deployments/{deployment}/embeddings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import openai

from adapters.providers.openai import OpenAIProvider
from domain.catalogue import Endpoint
from domain.ports.lists_models import Listing


class AzureProvider(OpenAIProvider):
    """One Azure resource. Endpoint options taken: `api_version`, `encoding_format`. `key` is one of the resource's two keys."""

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        self._version = endpoint.options.get("api_version")
        super().__init__(endpoint, key)
        if self._version is not None:
            self._query = {"api-version": self._version}

    def address(self, endpoint: Endpoint) -> str:
        """The resource's address, however much of the API's path was copied with it."""
        if not endpoint.base_url:
            raise ValueError(
                f"endpoint {endpoint.name!r}: azure needs base_url, the address of your resource "
                '(such as "https://YOUR-RESOURCE.openai.azure.com")'
            )
        resource = endpoint.base_url.rstrip("/").removesuffix("/v1").removesuffix("/openai")
        return f"{resource}/openai" if self._version is not None else f"{resource}/openai/v1"

    def credential(self, key: str | None) -> Mapping[str, str | openai.Omit]:
        """Azure takes keys in a header of its own."""
        return {"Authorization": openai.Omit(), "api-key": key or openai.Omit()}

    def path(self, model: str) -> str:
        """The deployment is in the path where the API has versions."""
        return "/embeddings" if self._version is None else f"/deployments/{quote(model, safe='')}/embeddings"

    async def list_models(self, timeout: float) -> Listing | None:
        """None: the resource lists the models that could be deployed there, and calls name deployments."""
        return None
