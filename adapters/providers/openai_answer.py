"""OpenAI's answer to an embedding call, and that of the servers that imitate it, as vectors in the order of the texts.

Vectors come as base64 of float32 or as lists of numbers; with an index each or without; with the tokens of the call or without.
"""

from __future__ import annotations

import msgspec

from adapters.providers.answers import Item, answer, foreign, in_order
from adapters.providers.openai_errors import error_of, read_error
from adapters.providers.sizes import UNREADABLE
from domain.ports.provider import EmbedAnswer, ProviderError


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(msgspec.Struct, gc=False):
    data: list[Item]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def read_answer(content: bytes, texts: int, dimensions: int | None) -> EmbedAnswer:
    """The answer in a body, to a call with so many texts. Raises `ProviderError`."""
    told = _parse(content)
    return answer(in_order(told.data, texts), texts, dimensions, _tokens(told.usage))


def _parse(content: bytes) -> _Answer:
    try:
        return _decode(content)
    except UNREADABLE:
        pass
    raise _foreign(content)


def _foreign(content: bytes) -> ProviderError:
    """What a body that holds no vectors stands for: a router (OpenRouter) answers 200 with the error of the place behind it."""
    try:
        error = msgspec.json.decode(content).get("error")
        status = error.get("code")
    except (*UNREADABLE, AttributeError):
        status = None
    if isinstance(status, int) and 400 <= status < 600:
        return error_of(status, read_error(content), {})
    return foreign(content)


def _tokens(usage: _Usage | None) -> int | None:
    if usage is None:
        return None
    return usage.prompt_tokens if usage.prompt_tokens is not None else usage.total_tokens
