import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from domain.vectors import UnusableVectors, finished

RNG = np.random.default_rng(1)


def rows(count: int, size: int) -> NDArray[np.float32]:
    made: NDArray[np.float32] = RNG.standard_normal((count, size)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def test_vectors_that_are_as_they_should_be_are_not_copied() -> None:
    given_rows = rows(3, 8)
    assert finished(given_rows, 8, given=8, unit=True) is given_rows
    assert finished(given_rows * 7, 8, given=8, unit=False)[0] @ given_rows[0] == pytest.approx(7)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(2, 64), st.data())
def test_what_is_cut_keeps_its_direction_and_has_length_one(count: int, size: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, size))
    given_rows = rows(count, size)
    made = finished(given_rows, cut, given=size, unit=True)
    assert made.shape == (count, cut)
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-3)
    for before, after in zip(given_rows[:, :cut], made, strict=True):
        assert float(before @ after) == pytest.approx(float(np.linalg.norm(before)), rel=1e-3)


def test_only_what_is_off_by_more_than_rounding_is_brought_to_length_one() -> None:
    given_rows = rows(3, 8) * np.array([[1.0005], [1.01], [0.5]], np.float32)
    given_rows.setflags(write=False)
    made = finished(given_rows, 8, given=8, unit=True)
    np.testing.assert_array_equal(made[0], given_rows[0])
    np.testing.assert_allclose(np.linalg.norm(made[1:], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found_wherever_it_is(bad: float) -> None:
    given_rows = rows(4, 8)
    given_rows[2, 5] = bad
    with pytest.raises(UnusableVectors, match="not finite"):
        finished(given_rows, 8, given=8, unit=False)


def test_a_zero_vector_and_one_that_is_zero_once_cut_are_refused() -> None:
    given_rows = rows(2, 8)
    given_rows[1, :4] = 0
    assert finished(given_rows, 8, given=8, unit=False) is given_rows
    with pytest.raises(UnusableVectors, match="zero"):
        finished(given_rows, 4, given=8, unit=False)


@pytest.mark.parametrize("size", [4, 8, 16])
def test_vectors_of_another_size_than_was_to_come_are_refused_rather_than_cut(size: int) -> None:
    with pytest.raises(UnusableVectors, match="of 9 dimensions, expected 8"):
        finished(rows(2, 9), size, given=8, unit=True)


def test_vectors_cannot_be_made_longer() -> None:
    with pytest.raises(UnusableVectors, match="cannot be cut to 16"):
        finished(rows(1, 8), 16, given=8, unit=True)
