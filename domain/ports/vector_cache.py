"""The vector cache port: vectors by keyed fingerprint, best effort; losing it costs money, never correctness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class VectorCache(Protocol):
    """Keys are the tenant's tag (8 bytes) and a keyed fingerprint of (tenant, space, text) (16); values are float32 little-endian bytes of
    one vector.
    """

    def get_many(self, keys: Sequence[bytes], done: Callable[[list[bytes | None]], object]) -> None:
        """Call `done`, later and on the loop, with the cached vectors in the order of `keys`.

        An unreachable cache answers None for all.
        """
        ...

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep these for the cache's time to live. Returns at once; a failure is counted, not raised."""
        ...

    def drop_many(self, keys: Sequence[bytes]) -> None:
        """Forget these, those on their way too. Returns at once; best effort: a failure is counted, and they leave when their time is up."""
        ...

    async def purge(self, tag: bytes) -> None:
        """Forget every vector whose key begins with `tag`, also those on their way; none may be put meanwhile or later.

        Raises OSError when the cache is out of reach; then some may be left.
        """
        ...

    async def close(self) -> None:
        """Release connections. Idempotent."""
        ...
