"""From the body of an answer to one float32 array, for providers that answer JSON with vectors as base64 or as lists of numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import numpy as np
import pybase64
from numpy.typing import NDArray

from adapters.providers.sizes import UNREADABLE
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedAnswer, ProviderError, ProviderFault

Vector = str | list[float]
"""A vector as JSON has it: little-endian float32 in base64, or numbers."""

T = TypeVar("T")


class Item(msgspec.Struct, gc=False):
    """One entry of `data`, in the form that OpenAI gave the world."""

    embedding: Vector
    index: int | None = None


def encoding_of(endpoint: Endpoint) -> str:
    """The option `encoding_format`: how vectors are asked for, `base64` where nothing is said. Raises `ValueError`."""
    told = endpoint.options.get("encoding_format", "base64")
    if told not in ("base64", "float"):
        raise ValueError(
            f"endpoint {endpoint.name!r}: option encoding_format is {told!r}; expected 'base64' or 'float'"
        )
    return told


def bad(detail: str) -> ProviderError:
    """An answer that is not what was asked for."""
    return ProviderError(ProviderFault.BAD_ANSWER, detail, status=200)


def parse(decode: Callable[[bytes], T], content: bytes) -> T:
    """The answer in a body. Raises `ProviderError`."""
    try:
        return decode(content)
    except UNREADABLE:
        pass
    raise foreign(content)


def foreign(content: bytes) -> ProviderError:
    """A body that holds no vectors."""
    if content.lstrip()[:1] == b"<":
        return bad("the body is HTML or XML, not JSON: is base_url right, or does a proxy answer?")
    return bad(f"the body ({len(content)} bytes) is not an embeddings answer: truncated or of another shape")


def in_order(items: Sequence[Item], count: int) -> list[Vector]:
    """The vectors by their index; an answer without any index is taken in its own order."""
    if len(items) != count:
        raise bad(f"{len(items)} vectors for {count} texts")
    ordered: list[Vector | None] = [None] * count
    unnumbered = 0
    for position, item in enumerate(items):
        index = item.index
        if index is None:
            unnumbered += 1
            index = position
        if not 0 <= index < count or ordered[index] is not None:
            raise bad(f"the indices are not 0 to {count - 1}, each once")
        ordered[index] = item.embedding
    if 0 < unnumbered < count:
        raise bad("some vectors have an index and some have none")
    return ordered  # type: ignore[return-value]  # count distinct indices fill every place


def answer(vectors: Sequence[Vector], count: int, dimensions: int | None, tokens: float | None) -> EmbedAnswer:
    """The answer to a call of `count` texts, checked: as many vectors, of one size, of `dimensions` where they were asked for, finite."""
    if len(vectors) != count:
        raise bad(f"{len(vectors)} vectors for {count} texts")
    if tokens is not None and not 0 <= tokens < 2**53:
        raise bad("the usage is no number of tokens")
    rows = _from_base64(vectors, dimensions) if isinstance(vectors[0], str) else _from_numbers(vectors, dimensions)
    if not np.isfinite(rows).all():
        raise bad("a vector holds NaN or infinity")
    told = int(tokens) if tokens else None  # 0 for texts that are not empty: whoever says so does not count (LM Studio)
    return EmbedAnswer(rows, told, [told] if told is not None and count == 1 else None)


def _from_base64(vectors: Sequence[Vector], dimensions: int | None) -> NDArray[np.float32]:
    if not all(isinstance(vector, str) for vector in vectors):
        raise bad("some vectors are base64 and some are lists")
    rows: list[bytes] = []
    with contextlib.suppress(ValueError):  # said below, where the decoder's own exception is out of the way
        rows = [pybase64.b64decode(vector, validate=True) for vector in vectors]  # type: ignore[arg-type]  # texts
    if not rows:
        raise bad("a vector is not base64")
    size = len(rows[0])
    if size % 4 or any(len(row) != size for row in rows):
        raise bad("the vectors differ in size or are not whole float32 numbers")
    _check_size(size // 4, dimensions)
    return np.frombuffer(bytearray().join(rows), dtype="<f4").reshape(len(rows), size // 4)


def _from_numbers(vectors: Sequence[Vector], dimensions: int | None) -> NDArray[np.float32]:
    size = len(vectors[0])
    if any(isinstance(vector, str) for vector in vectors):
        raise bad("some vectors are base64 and some are lists")
    if any(len(vector) != size for vector in vectors):
        raise bad("the vectors differ in size")
    _check_size(size, dimensions)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which the caller refuses
        return np.array(vectors, dtype=np.float32)


def _check_size(size: int, dimensions: int | None) -> None:
    if size == 0:
        raise bad("the vectors are empty")
    if dimensions is not None and size != dimensions:
        raise bad(f"vectors of {size} dimensions, {dimensions} were asked for")
