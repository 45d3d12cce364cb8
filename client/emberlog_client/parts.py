"""Where rows go as they arrive: into one array, or out to the caller of a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import ProtocolViolation, SpaceChanged
from .results import Chunk
from .types import Encoding
from .vectors import DTYPES, Array, alike, decode, decode_scales, to_float32

Scales = npt.NDArray[np.float32]


class Rows(Protocol):
    """Takes the rows of a call. `start` is the index of the first among all texts of the call, `part` names the request."""

    def take(self, part: int, start: int, rows: Array, scales: Scales | None) -> None:
        """Rows arrived, perhaps not for the first time."""
        ...

    def restart(self) -> None:
        """A part is sent again; its rows will all come again."""
        ...


class Part:
    """One request's share of a call: checks what arrives and passes it on.

    A resend streams again from offset 0, so `restart` forgets what had arrived; `arrived` counts each text once.
    """

    __slots__ = ("_encoding", "_moved", "_rows", "_seen", "arrived", "count", "start")

    def __init__(
        self, rows: Rows, start: int, count: int, encoding: Encoding, moved: Callable[[], None] | None = None
    ) -> None:
        self._rows = rows
        self._encoding = encoding
        self._moved = moved
        self._seen: npt.NDArray[np.bool_] | None = None
        self.start = start
        self.count = count
        self.arrived = 0

    def restart(self) -> None:
        """The request goes out once more."""
        if self.arrived:
            self._rows.restart()
        self._seen = None
        self.arrived = 0

    def chunk(self, message: Mapping[str, Any]) -> None:
        """An `embedding.chunk`, or an `embedding.result` that carries vectors."""
        offset = message.get("offset", 0)
        count = message.get("count")
        if not isinstance(offset, int) or not isinstance(count, int) or not 0 <= offset < offset + count <= self.count:
            raise ProtocolViolation(f"the gateway sent texts {offset}+{count} of a request of {self.count}")
        rows = decode(message.get("vectors"), count, self._encoding)
        scales = decode_scales(message.get("scales"), count) if self._encoding == "int8" else None
        if count == self.count:
            self.arrived = count
        else:
            if self._seen is None:
                self._seen = np.zeros(self.count, dtype=np.bool_)
            self._seen[offset : offset + count] = True
            self.arrived = int(np.count_nonzero(self._seen))
        self._rows.take(self.start, self.start + offset, rows, scales)
        if self._moved is not None:
            self._moved()

    def result(self, message: Mapping[str, Any]) -> None:
        """The `embedding.result`. Raises `ProtocolViolation` when texts are still missing."""
        if "vectors" in message:
            self.chunk({**message, "offset": 0})
        if self.arrived != self.count:
            raise ProtocolViolation(f"the gateway ended an answer after {self.arrived} of {self.count} texts")


class Gathered:
    """All rows of a call in one array. An answer that came whole is not copied."""

    __slots__ = ("_encoding", "_parts", "_total", "scales", "vectors")

    def __init__(self, total: int, parts: int, encoding: Encoding) -> None:
        self._total = total
        self._parts = parts
        self._encoding = encoding
        self.vectors: Array = np.empty((0, 0), dtype=DTYPES[encoding])
        self.scales: Scales | None = np.empty(0, dtype=np.float32) if encoding == "int8" else None

    def take(self, part: int, start: int, rows: Array, scales: Scales | None) -> None:
        """Put rows in their place."""
        if len(rows) == self._total:
            self.vectors, self.scales = rows, scales
            return
        if not len(self.vectors):
            self.vectors = np.empty((self._total, rows.shape[1]), dtype=rows.dtype)
            if scales is not None:
                self.scales = np.empty(self._total, dtype=np.float32)
        if self.vectors.shape[1] != rows.shape[1]:
            raise SpaceChanged("parts of the answer have different dimensions; name a model and call again")
        self.vectors[start : start + len(rows)] = rows
        if scales is not None and self.scales is not None:
            self.scales[start : start + len(rows)] = scales

    def restart(self) -> None:
        """A lone part may come back in another space, with another width: nothing of the old stays."""
        if self._parts == 1:
            self.vectors = self.vectors[:0]

    def freeze(self) -> None:
        """No more rows come; the caller gets arrays that nobody changes."""
        self.vectors.flags.writeable = False
        if self.scales is not None:
            self.scales.flags.writeable = False


class Given:
    """Rows handed to a stream's caller, each once.

    After a resend, rows come again and could come from another space, which a chunk does not name. One row of each
    request is kept to compare with when it comes again: a caller must never hold a mixture.
    """

    __slots__ = ("_encoding", "_give", "_given", "_samples", "width")

    def __init__(self, total: int, encoding: Encoding, give: Callable[[Chunk], None]) -> None:
        self._encoding = encoding
        self._give = give
        self._given = np.zeros(total, dtype=np.bool_)
        self._samples: dict[int, tuple[int, npt.NDArray[np.float32]]] = {}
        self.width = 0

    def take(self, part: int, start: int, rows: Array, scales: Scales | None) -> None:
        """Hand on the rows that were not given before."""
        self.width = self.width or rows.shape[1]
        if rows.shape[1] != self.width:
            raise SpaceChanged("the answer changed its dimensions after part of it was given; call again")
        if part not in self._samples:
            self._samples[part] = (start, self._row(rows, scales, 0))
        else:
            at, sample = self._samples[part]
            if start <= at < start + len(rows) and not alike(sample, self._row(rows, scales, at - start)):
                raise SpaceChanged("the answer changed its vector space after part of it was given; call again")
        old = self._given[start : start + len(rows)]
        if not old.any():
            self._give(Chunk(start, rows, scales, self._encoding))
        else:
            edges = np.flatnonzero(np.diff(np.concatenate(([True], old, [True])).astype(np.int8)))
            for low, high in edges.reshape(-1, 2).tolist():
                piece = None if scales is None else scales[low:high]
                self._give(Chunk(start + low, rows[low:high], piece, self._encoding))
        old[:] = True

    def restart(self) -> None:
        """What was given stays given."""

    def _row(self, rows: Array, scales: Scales | None, at: int) -> npt.NDArray[np.float32]:
        bits = 8 if self._encoding == "ubinary" else 1
        one = None if scales is None else scales[at : at + 1]
        row: npt.NDArray[np.float32] = to_float32(rows[at : at + 1], rows.shape[1] * bits, self._encoding, one)[0]
        return row
