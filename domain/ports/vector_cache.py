"""The vector cache port: vectors by keyed fingerprint, best effort; losing it costs money, never correctness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class VectorCache(Protocol):
    """Keys are 16-byte keyed fingerprints of (tenant, space, text); values are float32 little-endian bytes of one vector."""

    def get_many(self, keys: Sequence[bytes], done: Callable[[list[bytes | None]], object]) -> None:
        """Call `done`, later and on the loop, with the cached vectors in the order of `keys`.

        An unreachable cache answers None for all.
        """
        ...

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep these for the cache's time to live. Returns at once; a failure is counted, not raised."""
        ...

    async def close(self) -> None:
        """Release connections. Idempotent."""
        ...
