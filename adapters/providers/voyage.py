"""The `voyage` provider: Voyage AI's embeddings API.

It knows queries and documents; for classification and clustering no type is sent, as Voyage advises. Texts over the limit are refused,
never cut, unless the offering's `truncation` says otherwise: Voyage's own default is to cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from adapters.providers.answers import Item, answer, encoding_of, in_order, parse
from adapters.providers.http import HttpApi
from adapters.providers.http_errors import Wording, status_error
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderFault, Text

DEFAULT_BASE_URL = "https://api.voyageai.com/v1"

_WORDING = Wording(
    too_large=re.compile(r"max allowed tokens per submitted batch|batch size|number of inputs exceeds", re.IGNORECASE),
    too_long=re.compile(r"does not fit into the model's context window|exceeds the context length", re.IGNORECASE),
    codes={"TOO_MANY_TOKENS_IN_BATCH": ProviderFault.TOO_LARGE},
    index=re.compile(r"at ind(?:ex|ices) \[?(\d{1,6})"),
)


class _Body(msgspec.Struct, omit_defaults=True, gc=False):
    model: str
    input: Sequence[Text]
    truncation: bool
    input_type: str | None = None
    output_dimension: int | None = None
    encoding_format: str | None = None


class _Usage(msgspec.Struct, gc=False):
    total_tokens: int | None = None


class _Answer(msgspec.Struct, gc=False):
    data: list[Item]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class VoyageProvider:
    """One configured endpoint. Endpoint options taken: `encoding_format` (`base64`, or `float`).

    Raises `ValueError` for an option or a key that cannot be used.
    """

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        self._encoding = (
            "base64" if encoding_of(endpoint) == "base64" else None
        )  # numbers are had by asking for nothing
        self._api = HttpApi(endpoint, key, DEFAULT_BASE_URL)

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once. Raises `ProviderError` and nothing else (cancellation passes)."""
        body = _Body(
            call.model,
            call.texts,
            call.config.get("truncation") == "true",
            call.input_type if call.input_type in ("query", "document") else None,
            call.dimensions,
            self._encoding,
        )
        reply = await self._api.post("/embeddings", body, call.timeout, len(call.texts))
        if reply.status != 200:
            raise status_error(reply, _WORDING)
        told = parse(_decode, reply.body)
        count = len(call.texts)
        tokens = told.usage.total_tokens if told.usage is not None else None
        return answer(in_order(told.data, count), count, call.dimensions, tokens)

    async def warm_up(self) -> None:
        """Nothing to get ready: the first call connects."""

    async def check(self, timeout: float) -> None:
        """Reach the server: Voyage has nothing that is free and asks for the key, so that a wrong key is not noticed here."""
        reply = await self._api.get("", timeout)
        if reply.status in (401, 403) or reply.status >= 500:
            raise status_error(reply, _WORDING)

    async def close(self) -> None:
        """Close every connection; calls in flight fail. Idempotent."""
        await self._api.close()
