"""From the bytes of an answer to numpy arrays and back to float32.

Rows are little-endian and row-major. A row of `d` dimensions is 4d bytes in `float32`, 2d in `float16`, d in `int8` (value =
int8 × the row's scale) and ⌈d/8⌉ in `ubinary` (bit = value > 0, most significant first, zero-padded).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ProtocolViolation
from .types import Encoding

Array = npt.NDArray[Any]
"""Vectors in the encoding asked for: float32, float16 or int8 of shape (n, d), or uint8 of shape (n, ⌈d/8⌉)."""

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
    "ubinary": np.dtype("u1"),
}


def row_bytes(dimensions: int, encoding: Encoding) -> int:
    """Bytes of one row on the wire."""
    return -(-dimensions // 8) if encoding == "ubinary" else dimensions * DTYPES[encoding].itemsize


def decode(data: object, count: int, encoding: Encoding) -> Array:
    """`count` rows of `data` without copying; read-only. Raises `ProtocolViolation` when the bytes do not divide into rows."""
    if not isinstance(data, bytes) or count < 1:
        raise ProtocolViolation("the gateway sent vectors that are not bytes, or for no text")
    dtype = DTYPES[encoding]
    if not data or len(data) % (count * dtype.itemsize):
        raise ProtocolViolation(f"the gateway sent {len(data)} bytes, which do not divide into {count} {encoding} rows")
    return np.frombuffer(data, dtype=dtype).reshape(count, -1)


def decode_scales(data: object, count: int) -> npt.NDArray[np.float32]:
    """The scales of `count` int8 rows. They come as one `bin` of little-endian float32, or as a list of numbers."""
    if isinstance(data, bytes) and len(data) == 4 * count:
        return np.frombuffer(data, dtype=DTYPES["float32"])
    if isinstance(data, list) and len(data) == count:
        return np.array(data, dtype=DTYPES["float32"])
    raise ProtocolViolation(f"the gateway sent int8 vectors without one scale for each of {count} rows")


def to_float32(
    vectors: Array, dimensions: int, encoding: Encoding, scales: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    """Rows as float32, shape (n, dimensions). `ubinary` gives +1 where the bit is set and -1 where it is not."""
    if encoding == "int8":
        if scales is None:
            raise ValueError("int8 vectors can be decoded only with their scales")
        return vectors.astype(np.float32) * scales[:, np.newaxis]
    if encoding == "ubinary":
        bits = np.unpackbits(vectors, axis=1, count=dimensions, bitorder="big")
        return bits.astype(np.float32) * 2 - 1
    return vectors.astype(np.float32, copy=False)


def alike(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> bool:
    """Whether two vectors of one text can come from one space: a provider's noise passes, another model does not."""
    if one.shape != other.shape:
        return False
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return scale == 0 or float(one @ other) >= 0.9 * scale
