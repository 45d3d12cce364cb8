"""The shared vector cache in Redis or Valkey: all look-ups of one turn of the loop become one MGET, all writes one script.

Best effort by design: while the server cannot be reached every look-up misses, writes are dropped and counted, and nothing waits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from importlib.resources import files

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

Found = Callable[[list[bytes | None]], object]
PREFIX = b"emberlog:vector:"
_DOWN_SECONDS = 1.0
"""After a failure nothing is asked for this long, so that a dead server costs each request nothing."""
_MAX_PENDING_WRITES = 20_000
_MAX_KEYS_PER_CALL = 1_000
_SCANNED_PER_CALL = 1_000
_MAX_VECTORS_PER_CALL = 256
"""A script holds the server up while it runs: 256 vectors of 6 KB take it about a millisecond."""


class RedisVectorCache:
    """Implements the `VectorCache` port. `timeout` in seconds bounds each round trip."""

    def __init__(self, url: str, ttl_seconds: int, *, timeout: float = 0.25, max_connections: int = 4) -> None:
        self.ttl_seconds = ttl_seconds
        self._timeout = timeout
        self._redis = Redis(
            connection_pool=BlockingConnectionPool.from_url(
                url,
                max_connections=max_connections,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
            )
        )
        self._put = self._redis.register_script(files("adapters.redis").joinpath("put_vectors.lua").read_text("utf-8"))
        self._loop = asyncio.get_running_loop()
        self._down_until = 0.0
        self._wanted: list[tuple[Sequence[bytes], Found]] = []
        self._writes: dict[bytes, bytes] = {}
        self._drops: list[bytes] = []
        self._writing: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._reading: set[asyncio.Task[None]] = set()
        self.failures = 0
        self.dropped_writes = 0

    @property
    def healthy(self) -> bool:
        """Whether the server answered when it was last asked."""
        return self._loop.time() >= self._down_until

    def get_many(self, keys: Sequence[bytes], done: Found) -> None:
        """See `VectorCache.get_many`."""
        if self._loop.time() < self._down_until:
            nothing: list[bytes | None] = [None] * len(keys)
            self._loop.call_soon(done, nothing)
            return
        if not self._wanted:
            self._loop.call_soon(self._start_reading)
        self._wanted.append((keys, done))

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """See `VectorCache.put_many`."""
        if self._loop.time() < self._down_until or len(self._writes) + len(items) > _MAX_PENDING_WRITES:
            self.dropped_writes += len(items)
            return
        self._writes.update(items)
        if self._writing is None:
            self._writing = self._loop.create_task(self._write())

    def drop_many(self, keys: Sequence[bytes]) -> None:
        """See `VectorCache.drop_many`."""
        for key in keys:
            self._writes.pop(key, None)
        if self._loop.time() < self._down_until:
            return
        self._drops += keys
        if self._writing is None:
            self._writing = self._loop.create_task(self._write())

    async def purge(self, tag: bytes) -> None:
        """See `VectorCache.purge`."""
        for key in [key for key in self._writes if key.startswith(tag)]:
            del self._writes[key]
        async with self._sending:  # what was being sent has arrived
            pass
        pattern = PREFIX + _literally(tag) + b"*"
        cursor = None
        try:
            while cursor != 0:
                cursor, keys = await self._redis.scan(cursor or 0, match=pattern, count=_SCANNED_PER_CALL)
                if keys:
                    await self._redis.unlink(*keys)
        except (RedisError, TimeoutError) as error:
            raise OSError(f"the vector cache is out of reach: {type(error).__name__}") from error

    async def close(self) -> None:
        """See `VectorCache.close`."""
        if self._writing is not None:
            await self._writing
        if self._reading:
            await asyncio.gather(*self._reading)
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    def _start_reading(self) -> None:
        wanted, self._wanted = self._wanted, []
        task = self._loop.create_task(self._read(wanted))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _read(self, wanted: list[tuple[Sequence[bytes], Found]]) -> None:
        keys = [PREFIX + key for group, _ in wanted for key in group]
        found: list[bytes | None] = []
        try:
            async with asyncio.timeout(self._timeout * 2):
                for start in range(0, len(keys), _MAX_KEYS_PER_CALL):
                    values = await self._redis.mget(keys[start : start + _MAX_KEYS_PER_CALL])
                    found += [value if isinstance(value, bytes) else None for value in values]
        except (RedisError, OSError, TimeoutError):
            self._failed()
            found = [None] * len(keys)
        start = 0
        for group, done in wanted:
            done(found[start : start + len(group)])
            start += len(group)

    async def _write(self) -> None:
        try:
            while self._writes or self._drops:
                async with self._sending:
                    if self._drops:  # what was put before them has arrived
                        drops, self._drops = self._drops, []
                        async with asyncio.timeout(self._timeout * 4):
                            await self._redis.unlink(*(PREFIX + key for key in drops))
                    batch, self._writes = list(self._writes.items()), {}
                    for start in range(0, len(batch), _MAX_VECTORS_PER_CALL):
                        part = batch[start : start + _MAX_VECTORS_PER_CALL]
                        async with asyncio.timeout(self._timeout * 4):
                            await self._put(
                                keys=[PREFIX + key for key, _ in part], args=[self.ttl_seconds, *(v for _, v in part)]
                            )
        except (RedisError, OSError, TimeoutError):
            self._failed()
            self.dropped_writes += len(self._writes)
            self._writes, self._drops = {}, []
        finally:
            self._writing = None

    def _failed(self) -> None:
        self.failures += 1
        self._down_until = self._loop.time() + _DOWN_SECONDS


def _literally(raw: bytes) -> bytes:
    """A pattern that matches `raw` and nothing else."""
    return re.sub(rb"[*?\[\]\\]", rb"\\\g<0>", raw)
