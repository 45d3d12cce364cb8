"""The `mistral` provider: Mistral's embeddings API.

It has no input types: what a text is meant for is not sent. Nor does it cut: a text over the limit is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from adapters.providers.answers import Item, answer, encoding_of, in_order, parse
from adapters.providers.http import HttpApi
from adapters.providers.http_errors import Wording, status_error
from adapters.providers.lists import Entry, integer, page, text, texts
from domain.catalogue import Endpoint
from domain.ports.lists_models import ListedModel, Listing
from domain.ports.provider import EmbedAnswer, EmbedCall, Text

DEFAULT_BASE_URL = "https://api.mistral.ai"

# Code 3210 stands for all of these, so that the message decides: what it says of one text comes with the text's place.
_WORDING = Wording(
    too_large=re.compile(r"too many (tokens|inputs) (overall|in batch|in request)|into more batches", re.IGNORECASE),
    too_long=re.compile(r"exceeding max \d+ tokens", re.IGNORECASE),
    index=re.compile(r"Input id (\d{1,6}) "),
)


class _Body(msgspec.Struct, omit_defaults=True, gc=False):
    model: str
    input: Sequence[Text]
    encoding_format: str
    output_dimension: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None


class _Answer(msgspec.Struct, gc=False):
    data: list[Item]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class MistralProvider:
    """One configured endpoint. Endpoint options taken: `encoding_format` (`base64`, or `float`); Mistral may answer numbers to both.

    Raises `ValueError` for an option or a key that cannot be used.
    """

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        self._encoding = encoding_of(endpoint)
        self._api = HttpApi(endpoint, key, DEFAULT_BASE_URL)

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once. Raises `ProviderError` and nothing else (cancellation passes)."""
        reply = await self._api.post(
            "/v1/embeddings",
            _Body(call.model, call.texts, self._encoding, call.dimensions),
            call.timeout,
            len(call.texts),
        )
        if reply.status != 200:
            raise status_error(reply, _WORDING)
        told = parse(_decode, reply.body)
        count = len(call.texts)
        tokens = told.usage.prompt_tokens if told.usage is not None else None
        return answer(in_order(told.data, count), count, call.dimensions, tokens)

    async def warm_up(self) -> None:
        """Nothing to get ready: the first call connects."""

    async def check(self, timeout: float) -> None:
        """List the models, which is free. Raises `ProviderError` and nothing else."""
        reply = await self._api.get("/v1/models", timeout)
        if reply.status != 200:
            raise status_error(reply, _WORDING)

    async def list_models(self, timeout: float) -> Listing | None:
        """All models; what embeds is told by the names alone."""
        reply = await self._api.get("/v1/models", timeout)
        if reply.status != 200:
            raise status_error(reply, _WORDING)
        return page(reply.body, "data", _listed)[0]

    async def close(self) -> None:
        """Close every connection; calls in flight fail. Idempotent."""
        await self._api.close()


def _listed(entry: Entry) -> ListedModel:
    # `created` is the time of the request.
    return ListedModel(
        text(entry, "id"),
        max_tokens=integer(entry, "max_context_length"),
        aliases=tuple(texts(entry, "aliases")),
        deprecated=entry.get("deprecation") is not None,
    )
