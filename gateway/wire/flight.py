"""A request of a session between its message and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.errors import GatewayError
from gateway.encoding import encode as encode_rows
from gateway.wire import checks
from gateway.wire.codec import encode
from gateway.wire.messages import EmbeddingChunk, EmbeddingResult
from gateway.wire.service import Ticket

if TYPE_CHECKING:
    from gateway.wire.session import Session

CHUNK_BYTES = 4 * 1024 * 1024
"""Streamed rows leave in frames of at most about this size, whatever a provider call returned at once."""


class Flight:
    """The `Reply` of one request on a session. `twin` is an earlier request in flight under the same id."""

    __slots__ = ("done", "encoding", "id", "inputs", "session", "ticket", "twin")

    def __init__(self, session: Session, request_id: str, inputs: int, encoding: str) -> None:
        self.session = session
        self.id = request_id
        self.inputs = inputs
        self.encoding = encoding
        self.ticket: Ticket | None = None
        self.twin: Flight | None = None
        self.done = False

    def chunk(self, offset: int, rows: NDArray[np.float32]) -> None:
        """Rows `offset` onward, in as many frames as their size asks for."""
        if self.done:
            return
        try:
            self._write_chunks(offset, rows)
        except Exception as failure:
            self._broken(failure)

    def result(self, result: EmbeddingResult, rows: NDArray[np.float32] | None) -> None:
        """The answer."""
        if self.done:
            return
        session = self.session
        try:
            payload = _encode_result(result, rows)
        except Exception as failure:
            self._broken(failure)
            return
        if len(payload) <= session.max_message_bytes:
            session.link.write(payload)
        else:
            session.send_error(_too_large(len(payload), session.max_message_bytes), self.id)
        session.finish(self)

    def error(self, error: GatewayError) -> None:
        """The request failed."""
        if not self.done:
            self.session.send_error(error, self.id)
            self.session.finish(self)

    def cancel(self) -> None:
        """The client gave it up; the service answers."""
        if not self.done and self.ticket is not None:
            self.ticket.cancel()

    def _write_chunks(self, offset: int, rows: NDArray[np.float32]) -> None:
        step = max(1, CHUNK_BYTES // (4 * rows.shape[1]))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            vectors, scales = encode_rows(part, self.encoding)
            chunk = EmbeddingChunk(self.id, offset + start, len(part), vectors)
            if scales is not None:
                chunk.scales = scales
            self.session.link.write(encode(chunk))

    def _broken(self, failure: Exception) -> None:
        """A reply may not raise: whoever calls it serves other requests too."""
        self.session.send_error(checks.internal(), self.id, cause=failure)
        self.session.finish(self)

    def vanish(self) -> None:
        """The connection is gone: nothing more is sent."""
        self.done = True
        if self.ticket is not None:
            self.ticket.vanish()


def _encode_result(result: EmbeddingResult, rows: NDArray[np.float32] | None) -> bytes:
    """The message. `result` may be shared with other repliers, so the vectors are taken out of it again."""
    if rows is None:
        return encode(result)
    result.vectors, scales = encode_rows(rows, result.encoding)
    if scales is not None:
        result.scales = scales
    payload = encode(result)
    result.vectors = result.scales = msgspec.UNSET
    return payload


def _too_large(size: int, limit: int) -> GatewayError:
    return GatewayError(
        "invalid_request",
        f"the answer takes {size} bytes, over the {limit} of one message: send the same id with `stream: true`, or fewer texts",
        details={"field": "stream"},
    )
