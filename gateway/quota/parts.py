"""The quotas of one gateway as a whole: opened, run, bound to another instance, closed."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any

from adapters.postgres import quota_leases
from adapters.postgres.pool import UNREACHABLE, Pool, open_pool
from domain.plane import ControlPlane
from domain.ports.event_log import LogUnavailable
from gateway.quota.gate import QuotaGate
from gateway.quota.keeper import Keeper
from gateway.quota.upkeep import Upkeep
from gateway.telemetry.metrics import Gauges

_SECONDS = 5.0
"""A call takes a millisecond; one that takes longer waits for a lock."""


class QuotaParts:
    """`gate` is for the request service; `runs` are to be run beside it."""

    def __init__(self, pool: Pool, plane: ControlPlane, instance: str) -> None:
        self._pool = pool
        self.keeper = Keeper(plane.quotas, partial(quota_leases.lease, pool), instance)
        self.gate = QuotaGate(plane, self.keeper)
        self.upkeep = Upkeep(pool, plane)

    @classmethod
    async def open(cls, dsn: str, plane: ControlPlane, instance: str) -> QuotaParts:
        """With connections of their own: leases must not wait behind anything else. Raises `LogUnavailable`."""
        try:
            pool = await open_pool(dsn, "quota", max_size=3, statement_timeout=_SECONDS)
        except UNREACHABLE as error:
            raise LogUnavailable(f"the quotas are out of reach: {type(error).__name__}") from error
        return cls(pool, plane, instance)

    def runs(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on until cancelled."""
        return [self.keeper.run(), self.upkeep.run()]

    def watch(self, gauges: Gauges) -> None:
        """Add the gauges."""
        gauges.gauge(
            "embedding_quota_drift",
            "By how much the leases of quotas and the log disagreed when they were last compared; 0 is right.",
            lambda: self.upkeep.drift,
        )
        gauges.family(
            "embedding_quota_usage_ratio",
            "The used share of a quota in its present window; of several of a type, the fullest.",
            ["tenant_id", "quota_type"],
            lambda: self.upkeep.usage,
        )

    async def give_back(self) -> None:
        """Give back what is left; once what drew on it has ended."""
        await self.keeper.close()

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._pool.terminate()
