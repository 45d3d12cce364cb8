"""Where an answer goes: a WebSocket session or an HTTP response. One per asker; several may wait for the same request."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domain.errors import GatewayError
from gateway.wire.messages import EmbeddingResult


class Reply(Protocol):
    """All methods are called on the loop, must not block and must not raise. `result` or `error` is called once, last."""

    def chunk(self, offset: int, rows: NDArray[np.float32]) -> None:
        """Rows `offset` onward of a streamed answer, float32 of shape (count, dimensions). Only where `stream` was asked for."""
        ...

    def result(self, result: EmbeddingResult, rows: NDArray[np.float32] | None) -> None:
        """The result, its outcome committed. `rows`: float32 (count, dimensions), None when streamed or on a dry run.

        `result.vectors` and `result.scales` are unset: the reply encodes the rows as `result.encoding` says.
        """
        ...

    def error(self, error: GatewayError) -> None:
        """The request failed."""
        ...
