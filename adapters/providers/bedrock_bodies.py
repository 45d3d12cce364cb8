"""What Bedrock's embedding models are asked and what they answer: Amazon's Titan and Cohere's Embed, by InvokeModel."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from adapters.providers.sizes import UNREADABLE
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault

Family = Literal["titan", "cohere"]

USAGE_HEADER = "x-amzn-bedrock-input-token-count"
"""Cohere's models tell the tokens of a call here and nowhere else."""

# Cohere's models always want one; a text of no stated use is most often one to be found.
_INPUT_TYPES: Mapping[str | None, str] = {
    None: "search_document",
    "document": "search_document",
    "query": "search_query",
    "classification": "classification",
    "clustering": "clustering",
}
_FLAGS: Mapping[str | None, bool | None] = {"true": True, "false": False, None: None}


class _TitanBody(msgspec.Struct, omit_defaults=True, rename="camel", gc=False):
    input_text: str
    dimensions: int | None = None
    normalize: bool | None = None


class _CohereBody(msgspec.Struct, omit_defaults=True, gc=False):
    texts: list[str]
    input_type: str
    truncate: str
    output_dimension: int | None = None


class _TitanAnswer(msgspec.Struct, rename="camel", gc=False):
    embedding: list[float]
    input_text_token_count: int | None = None


class _ByType(msgspec.Struct, gc=False):
    floats: list[list[float]] = msgspec.field(name="float")


class _CohereAnswer(msgspec.Struct, gc=False):
    embeddings: list[list[float]] | _ByType


_encode = msgspec.json.Encoder().encode
_titan = msgspec.json.Decoder(_TitanAnswer).decode
_cohere = msgspec.json.Decoder(_CohereAnswer).decode


def family_of(call: EmbedCall) -> Family:
    """Whose API the model speaks: what the offering's `config` says, or else the model's id. Raises `ProviderError` where neither tells."""
    said = call.config.get("family")
    if said == "titan" or (said is None and "titan-embed" in call.model):
        return "titan"
    if said == "cohere" or (said is None and "cohere.embed" in call.model):
        return "cohere"
    raise _unsent("the offering's config must name the family of this model, 'titan' or 'cohere'")


def request(call: EmbedCall) -> bytes:
    """The body of the request. Raises `ProviderError` for what cannot be said in it."""
    body = _body(call)
    with contextlib.suppress(UnicodeEncodeError):
        return _encode(body)
    raise _unsent("a text holds a lone surrogate and cannot be sent as UTF-8")


def _body(call: EmbedCall) -> _TitanBody | _CohereBody:
    texts = [text for text in call.texts if isinstance(text, str)]
    if len(texts) != len(call.texts):
        raise _unsent("Bedrock's models take strings, no token lists")
    if family_of(call) == "cohere":
        use = _INPUT_TYPES.get(call.input_type)
        if use is None:
            raise _unsent("Cohere's models have no such input type")
        return _CohereBody(texts, use, call.config.get("truncate", "NONE"), call.dimensions)
    if len(texts) != 1:
        raise ProviderError(
            ProviderFault.TOO_LARGE,
            f"nothing was sent: Titan takes one text a call, not {len(texts)}; set max_inputs to 1",
        )
    normalize = call.config.get("normalize")
    if normalize not in _FLAGS:
        raise _unsent("normalize in the offering's config must be 'true' or 'false'")
    return _TitanBody(texts[0], call.dimensions, _FLAGS[normalize])


def answer(call: EmbedCall, content: bytes, header: str | None) -> EmbedAnswer:
    """The answer to `call` in a body and in the header with the usage. Raises `ProviderError` (`BAD_ANSWER`)."""
    tokens = int(header) if header is not None and header.isascii() and header.isdecimal() else None
    rows: list[list[float]] | None = None
    with contextlib.suppress(*UNREADABLE):
        if family_of(call) == "titan":
            titan = _titan(content)
            rows = [titan.embedding]
            if titan.input_text_token_count is not None:
                tokens = titan.input_text_token_count
        else:
            embeddings = _cohere(content).embeddings
            rows = embeddings if isinstance(embeddings, list) else embeddings.floats
    if rows is None:
        raise _bad(_shape_of(content))
    if len(rows) != len(call.texts):
        raise _bad(f"{len(rows)} vectors for {len(call.texts)} texts")
    if tokens is not None and tokens < 0:
        raise _bad("the usage is a negative number of tokens")
    return EmbedAnswer(
        _matrix(rows, call.dimensions), tokens, [tokens] if tokens is not None and len(rows) == 1 else None
    )


def _matrix(rows: list[list[float]], dimensions: int | None) -> NDArray[np.float32]:
    size = len(rows[0])
    if any(len(row) != size for row in rows):
        raise _bad("the vectors differ in size")
    if size == 0:
        raise _bad("the vectors are empty")
    if dimensions is not None and size != dimensions:
        raise _bad(f"vectors of {size} dimensions, {dimensions} were asked for")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which is refused below
        vectors = np.array(rows, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise _bad("a vector holds NaN or infinity")
    return vectors


def _shape_of(content: bytes) -> str:
    if content.lstrip()[:1] == b"<":
        return "the body is HTML or XML, not JSON: is base_url right, or does a proxy answer?"
    return f"the body ({len(content)} bytes) is not an embeddings answer: truncated or of another shape"


def _unsent(reason: str) -> ProviderError:
    return ProviderError(ProviderFault.REFUSED, f"nothing was sent: {reason}")


def _bad(detail: str) -> ProviderError:
    return ProviderError(ProviderFault.BAD_ANSWER, detail, status=200)
