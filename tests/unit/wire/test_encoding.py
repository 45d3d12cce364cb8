from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gateway.encoding import decode, encode, row_bytes

rows = st.tuples(st.integers(1, 5), st.integers(1, 33)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-4, 4, width=32, allow_subnormal=False))
)


@given(rows)
def test_float32_comes_back_as_it_was(values: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    data, scales = encode(values, "float32")
    assert scales is None
    assert data == b"".join(struct.pack("<f", v) for v in values.ravel().tolist())
    assert (decode(data, "float32", values.shape[1]) == values).all()


@given(rows)
def test_float16_is_within_half_precision(values: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    data, _ = encode(values, "float16")
    assert np.allclose(decode(data, "float16", values.shape[1]), values, rtol=1e-3, atol=1e-6)


@given(rows)
def test_int8_times_its_scale_is_within_half_a_step(values: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    data, scales = encode(values, "int8")
    assert scales is not None
    assert len(scales) == 4 * len(values)
    steps = np.abs(values).max(axis=1, keepdims=True) / 127
    assert (np.abs(decode(data, "int8", values.shape[1], scales) - values) <= steps * 0.51 + 1e-30).all()


@given(rows)
def test_ubinary_bits_are_one_above_zero_most_significant_first_zero_padded(
    values: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> None:
    data, _ = encode(values, "ubinary")
    width = row_bytes(values.shape[1], "ubinary")
    assert len(data) == width * len(values)
    for i, row in enumerate(values):
        bits = "".join("1" if v > 0 else "0" for v in row).ljust(8 * width, "0")
        assert data[i * width : (i + 1) * width] == int(bits, 2).to_bytes(width, "big")
    assert (decode(data, "ubinary", values.shape[1]) == np.where(values > 0, 1, -1)).all()


def test_rows_of_zeros_and_values_beyond_half_precision_stay_finite() -> None:
    zeros = np.zeros((2, 3), np.float32)
    data, scales = encode(zeros, "int8")
    assert (decode(data, "int8", 3, scales) == 0).all()
    large = np.array([[1e6, -1e6]], np.float32)
    assert decode(encode(large, "float16")[0], "float16", 2).tolist() == [[65504, -65504]]


def test_a_view_that_is_not_contiguous_is_encoded_like_its_copy() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6) - 11
    for encoding in ("float32", "float16", "int8", "ubinary"):
        assert encode(whole[::2, ::2], encoding) == encode(np.ascontiguousarray(whole[::2, ::2]), encoding)


def test_an_unknown_encoding_and_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        encode(np.zeros((1, 1), np.float32), "float64")
    with pytest.raises(ValueError, match="no whole number"):
        decode(b"123", "float32", 1)
    with pytest.raises(ValueError, match="0 scales"):
        decode(b"12", "int8", 2)
