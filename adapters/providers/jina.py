"""The `jina` provider: Jina AI's embeddings API.

What a text is meant for is a `task`, and which tasks there are depends on the model. Texts over the limit are refused, never cut, unless the
offering's `truncate` says otherwise. `late_chunking` is never sent: it makes a text's vector depend on the others of the call, which are
other people's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from adapters.providers.answers import Item, answer, encoding_of, in_order, parse
from adapters.providers.http import HttpApi
from adapters.providers.http_errors import Wording, status_error
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderFault, Text

DEFAULT_BASE_URL = "https://api.jina.ai/v1"

_RETRIEVAL = {"query": "retrieval.query", "document": "retrieval.passage"}
_TASKS: Mapping[str, Mapping[str, str]] = {
    "jina-embeddings-v3": {**_RETRIEVAL, "classification": "classification", "clustering": "separation"},
    "jina-embeddings-v4": {**_RETRIEVAL, "classification": "text-matching", "clustering": "text-matching"},
}
"""The tasks of each model by our input types. Models that are not listed here are sent none."""

_WORDING = Wording(
    too_large=re.compile(
        r"input list can contain at most|input length is larger than the largest allowed|batch size", re.IGNORECASE
    ),
    too_long=re.compile(r"single text cannot exceed|exceeds the model's maximum of \d+ tokens", re.IGNORECASE),
    codes={"INPUT_TOKEN_LIMIT_EXCEEDED": ProviderFault.TOO_LONG},
)


class _Body(msgspec.Struct, omit_defaults=True, gc=False):
    model: str
    input: Sequence[Text]
    embedding_type: str
    truncate: bool
    task: str | None = None
    dimensions: int | None = None
    normalized: bool | None = None


class _Usage(msgspec.Struct, gc=False):
    total_tokens: int | None = None


class _Answer(msgspec.Struct, gc=False):
    data: list[Item]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class JinaProvider:
    """One configured endpoint. Endpoint options taken: `encoding_format` (`base64`, or `float`).

    Raises `ValueError` for an option or a key that cannot be used.
    """

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        self._encoding = encoding_of(endpoint)
        self._api = HttpApi(endpoint, key, DEFAULT_BASE_URL)

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once. Raises `ProviderError` and nothing else (cancellation passes)."""
        config = call.config
        body = _Body(
            call.model,
            call.texts,
            self._encoding,
            config.get("truncate") == "true",
            None if call.input_type is None else _TASKS.get(call.model, {}).get(call.input_type),
            call.dimensions,
            config["normalized"] == "true" if "normalized" in config else None,
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
        """Reach the server: Jina documents nothing that is free and asks for the key, so that a wrong key is not noticed here."""
        reply = await self._api.get("", timeout)
        if reply.status in (401, 403) or reply.status >= 500:
            raise status_error(reply, _WORDING)

    async def close(self) -> None:
        """Close every connection; calls in flight fail. Idempotent."""
        await self._api.close()
