"""Vectors that depend on the text alone, so that a test can tell whether a caller got exactly its own.

The first three components place the text's hash on a sphere (about 46 bits survive in float32: two texts never share a vector by
accident), the others are one of 64 fixed rows chosen by the hash. Both halves have a squared length of one half, so every vector
is a unit vector. Head and tail meet at byte 12, where base64 has no remainder: an encoded vector is two encoded pieces side by side.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from hashlib import blake2b, shake_128

import msgspec
import numpy as np
import pybase64
from numpy.typing import NDArray

_ROWS = 64
_HEAD = 3
_HALF = math.sqrt(0.5)
_ANGLE = 2 * math.pi / 2**32
_HEIGHT = 2.0 / (2**32 - 1)
_pack_head = struct.Struct("<3f").pack


def _place(text: str | bytes, radius: float) -> tuple[int, float, float, float]:
    """The row and the point on the sphere of `radius` that a text's hash names."""
    raw = blake2b(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text, digest_size=9).digest()
    z = (int.from_bytes(raw[0:4], "little") * _HEIGHT - 1.0) * radius
    angle = int.from_bytes(raw[4:8], "little") * _ANGLE
    flat = math.sqrt(max(radius * radius - z * z, 0.0))
    return raw[8] % _ROWS, flat * math.cos(angle), flat * math.sin(angle), z


class VectorTable:
    """Vectors of one size, as numbers, as base64 and as JSON. Sizes below four are the hash alone, cut and scaled to length 1."""

    def __init__(self, dimensions: int) -> None:
        if dimensions < 1:
            raise ValueError(f"dimensions {dimensions}: expected at least 1")
        self.dimensions = dimensions
        width = dimensions - _HEAD
        self._tails = np.empty((0, 0), dtype=np.float32)
        if width > 0:
            noise = shake_128(f"rows of {dimensions}".encode()).digest(4 * _ROWS * width)
            rows = np.frombuffer(noise, dtype="<u4").reshape(_ROWS, width) / 2.0**31 - 1.0
            rows *= _HALF / np.linalg.norm(rows, axis=1, keepdims=True)
            self._tails = rows.astype("<f4")
        self._base64 = [pybase64.b64encode(row.tobytes()) for row in self._tails]
        self._json = [b"," + msgspec.json.encode(row.tolist())[1:] for row in self._tails]

    def vector(self, text: str | bytes) -> NDArray[np.float32]:
        """The text's vector: float32, shape (dimensions,), length 1."""
        if self.dimensions <= _HEAD:
            _, *head = _place(text, 1.0)
            short = np.array(head[: self.dimensions], dtype=np.float64)
            short /= np.linalg.norm(short) or 1.0
            return short.astype(np.float32)
        row, *head = _place(text, _HALF)
        out = np.empty(self.dimensions, dtype=np.float32)
        out[:_HEAD] = head
        out[_HEAD:] = self._tails[row]
        return out

    def base64(self, text: str | bytes) -> tuple[bytes, bytes]:
        """The vector's little-endian float32 bytes in base64, in two pieces: the second is shared, so that it is copied only once."""
        if self.dimensions <= _HEAD:
            return pybase64.b64encode(self.vector(text).astype("<f4").tobytes()), b""
        row, x, y, z = _place(text, _HALF)
        return pybase64.b64encode(_pack_head(x, y, z)), self._base64[row]

    def json(self, text: str | bytes) -> bytes:
        """The vector as a JSON array whose numbers give back the same float32 values."""
        if self.dimensions <= _HEAD:
            return msgspec.json.encode(self.vector(text).tolist())
        row, *head = _place(text, _HALF)
        return msgspec.json.encode(np.array(head, dtype=np.float32).tolist())[:-1] + self._json[row]


@lru_cache(maxsize=32)
def table_of(dimensions: int) -> VectorTable:
    """The table of a size, made once."""
    return VectorTable(dimensions)


def vector_of(text: str | bytes, dimensions: int) -> NDArray[np.float32]:
    """The vector that the simulator gives for a text: float32, shape (dimensions,), length 1, the same in every process."""
    return table_of(dimensions).vector(text)
