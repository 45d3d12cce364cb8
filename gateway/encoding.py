"""Vectors as bytes: float32, float16, int8 with scales and ubinary, row-major and little-endian, and back.

Rows are float32 of shape (count, dimensions), finite. Nothing here knows of spaces or models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ENCODINGS = ("float32", "float16", "int8", "ubinary")
_FLOAT16_MAX = np.float32(65504)
_F32, _F16 = np.dtype("<f4"), np.dtype("<f2")


def encode(rows: NDArray[np.float32], encoding: str) -> tuple[bytes, bytes | None]:
    """The rows as bytes, and for `int8` their scales: one little-endian float32 a row, value = int8 × scale.

    `float16` clips to its largest finite value. `ubinary` rows take ⌈dimensions/8⌉ bytes: a bit is 1 where the value is above 0,
    most significant bit first, zero-padded. Raises ValueError for an encoding that is not one of `ENCODINGS`.
    """
    if encoding == "float32":
        return rows.astype(_F32, copy=False).tobytes(), None
    if encoding == "float16":
        return np.clip(rows, -_FLOAT16_MAX, _FLOAT16_MAX).astype(_F16).tobytes(), None
    if encoding == "int8":
        return _int8(rows)
    if encoding == "ubinary":
        return np.packbits(rows > 0, axis=1).tobytes(), None
    raise ValueError(f"encoding {encoding!r}: expected one of {', '.join(ENCODINGS)}")


def _int8(rows: NDArray[np.float32]) -> tuple[bytes, bytes]:
    scales = np.abs(rows).max(axis=1, initial=0.0).astype(np.float32) / np.float32(127)
    divisors = np.where(scales > 0, scales, np.float32(1))
    values = np.clip(np.rint(rows / divisors[:, None]), -127, 127).astype(np.int8)
    return values.tobytes(), scales.astype(_F32, copy=False).tobytes()


def row_bytes(dimensions: int, encoding: str) -> int:
    """The bytes one row takes, its scale not counted. Raises ValueError for an unknown encoding."""
    match encoding:
        case "float32":
            return 4 * dimensions
        case "float16":
            return 2 * dimensions
        case "int8":
            return dimensions
        case "ubinary":
            return -(-dimensions // 8)
        case _:
            raise ValueError(f"encoding {encoding!r}: expected one of {', '.join(ENCODINGS)}")


def decode(data: bytes, encoding: str, dimensions: int, scales: bytes | None = None) -> NDArray[np.float32]:
    """Rows of shape (count, dimensions) from their bytes. `ubinary` gives +1 and -1. Raises ValueError where sizes do not fit."""
    width = row_bytes(dimensions, encoding)
    if len(data) % width:
        raise ValueError(f"{len(data)} bytes are no whole number of rows of {width} bytes")
    if encoding == "float32":
        return np.frombuffer(data, _F32).reshape(-1, dimensions).astype(np.float32)
    if encoding == "float16":
        return np.frombuffer(data, _F16).reshape(-1, dimensions).astype(np.float32)
    if encoding == "int8":
        factors = np.frombuffer(scales or b"", _F32)
        if len(factors) != len(data) // width:
            raise ValueError(f"{len(factors)} scales for {len(data) // width} rows")
        values = np.frombuffer(data, np.int8).reshape(-1, dimensions).astype(np.float32)
        return values * factors[:, None].astype(np.float32)
    bits = np.unpackbits(np.frombuffer(data, np.uint8).reshape(-1, width), axis=1, count=dimensions)
    return bits.astype(np.float32) * 2 - 1
