"""OpenAI's answer to an embedding call, and that of the servers that imitate it, as vectors in the order of the texts.

Vectors come as base64 of float32 or as lists of numbers; with an index each or without; with the tokens of the call or without.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pybase64
from numpy.typing import NDArray

from adapters.providers.openai_errors import error_of, read_error
from domain.ports.provider import EmbedAnswer, ProviderError, ProviderFault


class _Item(msgspec.Struct, gc=False):
    embedding: str | list[float]
    index: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(msgspec.Struct, gc=False):
    data: list[_Item]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def read_answer(content: bytes, texts: int, dimensions: int | None) -> EmbedAnswer:
    """The answer in a body, to a call with so many texts. Raises `ProviderError`."""
    answer = _parse(content)
    vectors = _matrix(_in_order(answer.data, texts), dimensions)
    tokens = _tokens(answer.usage)
    return EmbedAnswer(vectors, tokens, [tokens] if texts == 1 and tokens is not None else None)


def _bad(detail: str) -> ProviderError:
    return ProviderError(ProviderFault.BAD_ANSWER, detail, status=200)


def _parse(content: bytes) -> _Answer:
    try:
        return _decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    raise _foreign(content)


def _foreign(content: bytes) -> ProviderError:
    """What a body that holds no vectors stands for: a router (OpenRouter) answers 200 with the error of the place behind it."""
    if content.lstrip()[:1] == b"<":
        return _bad("the body is HTML or XML, not JSON: is base_url right, or does a proxy answer?")
    try:
        error = msgspec.json.decode(content).get("error")
        status = error.get("code")
    except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError):
        status = None
    if isinstance(status, int) and 400 <= status < 600:
        return error_of(status, read_error(content), {})
    return _bad(f"the body ({len(content)} bytes) is not an embeddings answer: truncated or of another shape")


def _tokens(usage: _Usage | None) -> int | None:
    if usage is None:
        return None
    tokens = usage.prompt_tokens if usage.prompt_tokens is not None else usage.total_tokens
    if tokens is not None and tokens < 0:
        raise _bad("the usage is a negative number of tokens")
    return tokens or None  # 0 for texts that are not empty: the server does not count (LM Studio)


def _in_order(items: list[_Item], count: int) -> list[_Item]:
    """The items by their index; an answer without any index is taken in its own order."""
    if len(items) != count:
        raise _bad(f"{len(items)} vectors for {count} texts")
    ordered: list[_Item | None] = [None] * count
    unnumbered = 0
    for position, item in enumerate(items):
        index = item.index
        if index is None:
            unnumbered += 1
            index = position
        if not 0 <= index < count or ordered[index] is not None:
            raise _bad(f"the indices are not 0 to {count - 1}, each once")
        ordered[index] = item
    if 0 < unnumbered < count:
        raise _bad("some vectors have an index and some have none")
    return ordered  # type: ignore[return-value]  # count distinct indices fill every place


def _matrix(items: list[_Item], dimensions: int | None) -> NDArray[np.float32]:
    """The vectors as one float32 array of shape (len(items), dimensions), finite."""
    if isinstance(items[0].embedding, str):
        vectors = _from_base64(items, dimensions)
    else:
        vectors = _from_numbers(items, dimensions)
    if not np.isfinite(vectors).all():
        raise _bad("a vector holds NaN or infinity")
    return vectors


def _from_base64(items: list[_Item], dimensions: int | None) -> NDArray[np.float32]:
    rows: list[bytes] = []
    for item in items:
        if not isinstance(item.embedding, str):
            raise _bad("some vectors are base64 and some are lists")
        try:
            rows.append(pybase64.b64decode(item.embedding, validate=True))
        except ValueError:
            break
    if len(rows) < len(items):
        raise _bad("a vector is not base64")
    size = len(rows[0])
    if size % 4 or any(len(row) != size for row in rows):
        raise _bad("the vectors differ in size or are not whole float32 numbers")
    _check_size(size // 4, dimensions)
    return np.frombuffer(bytearray().join(rows), dtype="<f4").reshape(len(rows), size // 4)


def _from_numbers(items: list[_Item], dimensions: int | None) -> NDArray[np.float32]:
    rows = [item.embedding for item in items]
    size = len(rows[0])
    if any(isinstance(row, str) for row in rows):
        raise _bad("some vectors are base64 and some are lists")
    if any(len(row) != size for row in rows):
        raise _bad("the vectors differ in size")
    _check_size(size, dimensions)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which the caller refuses
        return np.array(rows, dtype=np.float32)


def _check_size(size: int, dimensions: int | None) -> None:
    if size == 0:
        raise _bad("the vectors are empty")
    if dimensions is not None and size != dimensions:
        raise _bad(f"vectors of {size} dimensions, {dimensions} were asked for")
