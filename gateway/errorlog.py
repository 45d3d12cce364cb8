"""One structured line per error that a client is told about: trace id, code, tenant. Never a text, a key or a token."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import structlog
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from domain.errors import GatewayError
from gateway.trace import new_trace_id

_log = structlog.get_logger("emberlog.errors")
_PER_SECOND = 50
_told: Counter[tuple[str, str, str]] = Counter()
"""Errors of this process by source, tenant and code: refusals are counted even where they leave no other trace."""


class ToldErrors(Collector):
    """The errors that clients were told about."""

    def collect(self) -> Iterator[Metric]:
        """The samples."""
        family = CounterMetricFamily(
            "emberlog_errors_told",
            "Errors told to clients, by where they came in.",
            labels=["source", "tenant_id", "error_type"],
        )
        for key, count in _told.items():
            family.add_metric(list(key), count)
        yield family


class ErrorLog:
    """Writes the lines of one source (a session, the HTTP routes): at most 50 a second, then a count of those left out.

    A peer that sends nothing but errors would otherwise make its neighbours pay for the log.
    """

    __slots__ = ("_count", "_second", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self._second = 0
        self._count = 0

    def note(
        self,
        error: GatewayError,
        *,
        tenant: str | None,
        trace: str | None = None,
        cause: BaseException | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Log the error; return the details for its sender, the trace id among them."""
        details = dict(error.details) if error.details else {}
        trace = details.setdefault("trace", trace or new_trace_id())
        _told[self.source, tenant or "", error.code] += 1
        second = int(time.monotonic())
        if second != self._second:
            if self._count > _PER_SECOND:
                _log.warning(
                    "errors left out of the log", source=self.source, tenant=tenant, count=self._count - _PER_SECOND
                )
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= _PER_SECOND:
            write = _log.error if error.status >= 500 else _log.info
            write("error", source=self.source, code=error.code, tenant=tenant, trace=trace, exc_info=cause, **fields)
        return details
