"""Forgetting what is kept of a shredded tenant beside the log: the vectors in the caches, and what its webhooks had."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from adapters.memory.vector_cache import LruVectorCache
from adapters.redis.vector_cache import RedisVectorCache
from domain.fingerprint import tenant_tag
from domain.ports.vector_cache import VectorCache

_log = structlog.get_logger("emberlog.purge")
_RETRY_SECONDS = 1.0


class Purge:
    """Purges the caches of a process. Nothing may be put into them for the tenant any more when it is called.

    `database` forgets what stands of the tenant in the database; it raises OSError where that is out of reach.
    """

    def __init__(
        self,
        lru: LruVectorCache,
        shared: VectorCache | None,
        database: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._lru = lru
        self._shared = shared
        self._database = database

    async def once(self, tenant: str) -> None:
        """Raises OSError where something is out of reach; what is in reach is purged by then."""
        tag = tenant_tag(tenant)
        self._lru.purge(tag)
        if self._shared is not None:
            await self._shared.purge(tag)
        if self._database is not None:
            await self._database(tenant)

    async def keep_trying(self, tenant: str) -> None:
        """The same until it is done."""
        while True:
            try:
                await self.once(tenant)
            except OSError as error:
                _log.warning("purge_postponed", tenant=tenant, reason=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return


async def purge_redis(url: str, tenant: str) -> None:
    """Purge the shared vector cache alone, of no process. Raises OSError."""
    cache = RedisVectorCache(url, 1, timeout=5.0)
    try:
        await cache.purge(tenant_tag(tenant))
    finally:
        await cache.close()
