"""The `cohere` provider: Cohere's v2 API.

An input type is required: texts without one are documents, so that every text is embedded under a type that was meant for texts to be found.
Texts over the limit are refused, never cut, unless the offering's `truncate` says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from adapters.providers.answers import Vector, answer, bad, encoding_of, parse
from adapters.providers.http import HttpApi
from adapters.providers.http_errors import Wording, status_error
from adapters.providers.lists import MAX_PAGES, Entry, integer, joined, page, text, texts, within
from domain.catalogue import Endpoint
from domain.ports.lists_models import ListedModel, Listing
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderFault, Text

DEFAULT_BASE_URL = "https://api.cohere.com"

_INPUT_TYPES = {
    None: "search_document",
    "document": "search_document",
    "query": "search_query",
    "classification": "classification",
    "clustering": "clustering",
}

_WORDING = Wording(
    too_large=re.compile(r"total number of (texts|inputs|images) must be at most|or fewer inputs", re.IGNORECASE),
    too_long=re.compile(r"too many tokens|cannot exceed \d+ tokens", re.IGNORECASE),
    index=re.compile(r"at index (\d{1,6})"),
    statuses={
        498: (ProviderFault.REFUSED, "a text holds what the provider has deny-listed"),
        499: (ProviderFault.SERVER, "the provider cancelled the call"),
    },
)


class _Body(msgspec.Struct, omit_defaults=True, gc=False):
    model: str
    texts: Sequence[Text]
    input_type: str
    embedding_types: tuple[str]
    truncate: str
    output_dimension: int | None = None


class _Embeddings(msgspec.Struct, gc=False):
    base64: list[str] | None = None
    floats: list[list[float]] | None = msgspec.field(name="float", default=None)


class _Billed(msgspec.Struct, gc=False):
    input_tokens: float | None = None


class _Meta(msgspec.Struct, gc=False):
    billed_units: _Billed | None = None


class _Answer(msgspec.Struct, gc=False):
    embeddings: _Embeddings
    meta: _Meta | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class CohereProvider:
    """One configured endpoint. Endpoint options taken: `encoding_format` (`base64`, or `float`).

    Raises `ValueError` for an option or a key that cannot be used.
    """

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        self._types = (encoding_of(endpoint),)
        self._api = HttpApi(endpoint, key, DEFAULT_BASE_URL)

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once. Raises `ProviderError` and nothing else (cancellation passes)."""
        body = _Body(
            call.model,
            call.texts,
            _INPUT_TYPES.get(call.input_type, "search_document"),
            self._types,
            call.config.get("truncate", "NONE"),
            call.dimensions,
        )
        reply = await self._api.post("/v2/embed", body, call.timeout, len(call.texts))
        if reply.status != 200:
            raise status_error(reply, _WORDING)
        told = parse(_decode, reply.body)
        vectors: Sequence[Vector] | None = told.embeddings.base64 or told.embeddings.floats
        if not vectors:
            raise bad("the answer holds neither base64 nor float vectors")
        billed = told.meta.billed_units if told.meta is not None else None
        return answer(vectors, len(call.texts), call.dimensions, billed.input_tokens if billed is not None else None)

    async def warm_up(self) -> None:
        """Nothing to get ready: the first call connects."""

    async def check(self, timeout: float) -> None:
        """List one model, which is free. Raises `ProviderError` and nothing else."""
        reply = await self._api.get("/v1/models?page_size=1", timeout)
        if reply.status != 200:
            raise status_error(reply, _WORDING)

    async def list_models(self, timeout: float) -> Listing | None:
        """The embedding models."""
        pages, path = [], "/v1/models?endpoint=embed&page_size=1000"
        async with within(timeout):
            while True:
                reply = await self._api.get(path, timeout)
                if reply.status != 200:
                    raise status_error(reply, _WORDING)
                one, whole = page(reply.body, "models", _listed)
                pages.append(one)
                token = whole.get("next_page_token")
                if not isinstance(token, str) or not token or len(pages) == MAX_PAGES:
                    return joined(pages)
                path = f"/v1/models?endpoint=embed&page_size=1000&page_token={quote(token, safe='')}"

    async def close(self) -> None:
        """Close every connection; calls in flight fail. Idempotent."""
        await self._api.close()


def _listed(entry: Entry) -> ListedModel:
    return ListedModel(
        text(entry, "name"),
        embeds="embed" in texts(entry, "endpoints"),
        max_tokens=integer(entry, "context_length"),
        deprecated=entry.get("is_deprecated") is True,
    )
