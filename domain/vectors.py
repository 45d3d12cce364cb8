"""Vectors as a space wants them, from vectors as a provider gave them: of the size that was asked for, of length 1, finite, none of them zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_UNIT_TOLERANCE = 1e-3
"""How far from 1 a length may be: providers round to few digits, and cosines that are off by as much order texts the same."""
_LEAST, _MOST = (1 - _UNIT_TOLERANCE) ** 2, (1 + _UNIT_TOLERANCE) ** 2
"""The same for squares of lengths."""


class UnusableVectors(ValueError):
    """What a provider answered with is no vector of the space; the message says why, and holds nothing of it."""


def finished(rows: NDArray[np.float32], size: int, *, given: int, unit: bool) -> NDArray[np.float32]:
    """Vectors of `size`, from rows that must be of `given` numbers each; brought to length 1 where `unit` and they are not, or were cut.

    Returns the rows as they are where nothing is to be done, else new ones. Raises `UnusableVectors`.
    """
    if rows.ndim != 2 or rows.shape[1] != given:
        raise UnusableVectors(f"vectors of {'x'.join(map(str, rows.shape[1:]))} dimensions, expected {given}")
    if size > given:
        raise UnusableVectors(f"vectors of {given} dimensions cannot be cut to {size}")
    if size != given:
        rows = np.ascontiguousarray(rows[:, :size])
    # One pass over the numbers finds all there is to find: one that is not finite makes its sum so, and the least and the most of the sums tell.
    if len(rows) == 1:
        least = most = float(np.vdot(rows, rows))
    else:
        squares = _squares(rows)
        least, most = float(squares.min()), float(squares.max())
    if not most < np.inf:  # also where it is not a number
        raise UnusableVectors("a vector has a number that is not finite, or too large")
    if least == 0:
        raise UnusableVectors("a vector is zero")
    if unit and (least < _LEAST or most > _MOST):
        squares = _squares(rows)
        off = (squares < _LEAST) | (squares > _MOST)
        rows = rows.copy()
        rows[off] /= np.sqrt(squares[off], dtype=np.float32)[:, np.newaxis]
    return rows


def _squares(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The square of each row's length. One that is too large for a number is told by its sum, which is not finite, not by a warning."""
    with np.errstate(over="ignore", invalid="ignore"):
        found: NDArray[np.float32] = np.vecdot(rows, rows)
        return found
