"""The `gemini` provider: Google's embedding models at the Gemini API, with an API key.

Over HTTP and not through the SDK, which costs 190 µs more a vector and listens to the process's environment (docs/decisions/0023).
What the API does with a text over the model's limit is not documented, and it has no setting for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from adapters.providers.answers import answer, parse
from adapters.providers.google_errors import json_error
from adapters.providers.google_tasks import task_of
from adapters.providers.http import HttpApi
from adapters.providers.lists import MAX_PAGES, Entry, integer, joined, page, text, texts, within
from domain.catalogue import Endpoint
from domain.ports.lists_models import ListedModel, Listing
from domain.ports.provider import EmbedAnswer, EmbedCall, Text

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"


class _Part(msgspec.Struct, gc=False):
    text: Text


class _Content(msgspec.Struct, gc=False):
    parts: tuple[_Part]


class _Request(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    model: str
    content: _Content
    task_type: str
    output_dimensionality: int | None = None


class _Body(msgspec.Struct, gc=False):
    requests: Sequence[_Request]


class _Embedding(msgspec.Struct, gc=False):
    values: list[float]


class _Usage(msgspec.Struct, rename="camel", gc=False):
    prompt_token_count: int | None = None


class _Answer(msgspec.Struct, rename="camel", gc=False):
    embeddings: list[_Embedding]
    usage_metadata: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class GeminiProvider:
    """One configured endpoint. Raises `ValueError` for a key that cannot be used."""

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        self._api = HttpApi(endpoint, key, DEFAULT_BASE_URL, key_header="x-goog-api-key")

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once. Raises `ProviderError` and nothing else (cancellation passes)."""
        model, task, count = f"models/{call.model}", task_of(call.input_type), len(call.texts)
        requests = [_Request(model, _Content((_Part(text),)), task, call.dimensions) for text in call.texts]
        path = f"/v1beta/models/{quote(call.model, safe='')}:batchEmbedContents"
        reply = await self._api.post(path, _Body(requests), call.timeout, len(call.texts))
        if reply.status != 200:
            raise json_error(reply, count)
        told = parse(_decode, reply.body)
        tokens = told.usage_metadata.prompt_token_count if told.usage_metadata is not None else None
        return answer([embedding.values for embedding in told.embeddings], count, call.dimensions, tokens)

    async def warm_up(self) -> None:
        """Nothing to get ready: the first call connects."""

    async def check(self, timeout: float) -> None:
        """Ask for the first of the models, which is free. Raises `ProviderError` and nothing else."""
        reply = await self._api.get("/v1beta/models?pageSize=1", timeout)
        if reply.status != 200:
            raise json_error(reply, 1)

    async def list_models(self, timeout: float) -> Listing | None:
        """All models, with what each is for."""
        pages, path = [], "/v1beta/models?pageSize=1000"
        async with within(timeout):
            while True:
                reply = await self._api.get(path, timeout)
                if reply.status != 200:
                    raise json_error(reply, 1)
                one, whole = page(reply.body, "models", _listed)
                pages.append(one)
                token = whole.get("nextPageToken")
                if not isinstance(token, str) or not token or len(pages) == MAX_PAGES:
                    return joined(pages)
                path = f"/v1beta/models?pageSize=1000&pageToken={quote(token, safe='')}"

    async def close(self) -> None:
        """Close every connection; calls in flight fail. Idempotent."""
        await self._api.close()


def _listed(entry: Entry) -> ListedModel:
    return ListedModel(
        text(entry, "name").removeprefix("models/"),
        embeds="embedContent" in texts(entry, "supportedGenerationMethods"),
        max_tokens=integer(entry, "inputTokenLimit"),
    )
