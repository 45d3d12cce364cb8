"""The process's own vector cache: least recently used out first, bounded in bytes, each entry with a time to live."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

OVERHEAD = 200
"""Bytes counted per entry beside its vector: key, tuple and table slot, roughly."""


class LruVectorCache:
    """Key (see `VectorCache`) -> float32 little-endian bytes of one vector. `clock` is in seconds; one thread only."""

    def __init__(self, max_bytes: int, ttl_seconds: float, clock: Callable[[], float]) -> None:
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._max_bytes = max_bytes
        self._ttl = ttl_seconds
        self._clock = clock
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> bytes | None:
        """The vector, or None when it is not here or has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] < self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key: bytes, vector: bytes) -> None:
        """Keep a vector; the least recently used leave until all fit."""
        if len(vector) + OVERHEAD > self._max_bytes:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = (self._clock() + self._ttl, vector)
        self.bytes += len(vector) + OVERHEAD
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def drop(self, key: bytes) -> None:
        """Forget a vector, where it is here."""
        if key in self._entries:
            self._drop(key)

    def resize(self, max_bytes: int, ttl_seconds: float) -> None:
        """Other bounds from now on; what is here keeps its time, and leaves where there is no room any more."""
        self._max_bytes, self._ttl = max_bytes, ttl_seconds
        while self.bytes > max_bytes:
            self._drop(next(iter(self._entries)))

    def purge(self, tag: bytes) -> None:
        """Forget every vector whose key begins with `tag`. It looks at all keys."""
        for key in [key for key in self._entries if key.startswith(tag)]:
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        self.bytes -= len(self._entries.pop(key)[1]) + OVERHEAD
