"""Metrics of requests, counted in plain dictionaries on the hot path and turned into Prometheus samples when asked for.

Names and labels are the ones dashboards of this field already use; tenants are labels, agents never are.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from domain.events import EmbeddingFailed, EmbeddingGenerated, Failover
from domain.money import NANO_PER_USD
from gateway.dispatch.context import CallOutcome

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram, seconds."""


RECENT_WEIGHT = 0.1
"""What the latest call counts in a model's recent latency."""
RECENT_SECONDS = 600.0
KEEP_OWNED = 2_000
"""Endpoints of tenants that are counted, twice as many as there can be at once: tenants name them as they like. Beyond that the one that was
heard of first is forgotten, or counted anew.
"""


class _Served:
    """Counters of one (tenant, model, provider)."""

    __slots__ = ("buckets", "nano_usd", "seconds", "successes", "tokens")

    def __init__(self) -> None:
        self.successes = 0
        self.tokens = 0
        self.nano_usd = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)


class RequestMetrics(Collector):
    """Requests, tokens, cost, cache hits, errors and latency."""

    def __init__(self) -> None:
        self._served: dict[tuple[str, str, str], _Served] = {}
        self._failures: Counter[tuple[str, str, str]] = Counter()
        self._errors: Counter[tuple[str, str, str]] = Counter()
        self._cache_hits: Counter[tuple[str, str]] = Counter()
        self._cache_lookups: Counter[tuple[str, str]] = Counter()
        self._unpriced: Counter[tuple[str, str]] = Counter()
        self._switches: Counter[tuple[str, str, str, str]] = Counter()

    def generated(self, tenant: str, data: EmbeddingGenerated, seconds: float, looked_up: int = 0) -> None:
        """A request was answered after `seconds`; so many of its texts were looked up in the cache."""
        served = self._billed(tenant, data.provider, data)
        served.successes += 1
        served.seconds += seconds
        served.buckets[bisect_left(BUCKETS, seconds)] += 1
        if looked_up:
            self._cache_lookups[tenant, data.model] += looked_up
        if data.cached_inputs:
            self._cache_hits[tenant, data.model] += data.cached_inputs
        if data.failover is not None:
            self._switched(tenant, data.failover, data.model)

    def failed(self, tenant: str, data: EmbeddingFailed, seconds: float) -> None:
        """A request failed after it was logged; one that was cancelled or late may be billed."""
        if data.billed_tokens:
            self._billed(tenant, data.provider or "", data)
        self._failures[tenant, data.model, data.provider or ""] += 1
        self._errors[tenant, data.model, data.code] += 1
        if data.failover is not None:
            self._switched(tenant, data.failover, data.model)

    def _switched(self, tenant: str, failover: Failover, model: str) -> None:
        self._switches[tenant, failover.model, model, failover.reason] += 1

    def _billed(self, tenant: str, provider: str, data: EmbeddingGenerated | EmbeddingFailed) -> _Served:
        key = (tenant, data.model, provider)
        served = self._served.get(key)
        if served is None:
            served = self._served[key] = _Served()
        served.tokens += data.billed_tokens
        if data.nano_usd is None:
            self._unpriced[tenant, data.model] += 1
        else:
            served.nano_usd += data.nano_usd
        return served

    def refused(self, tenant: str | None, model: str | None, code: str) -> None:
        """A request was refused before it was logged: counted, not logged. `model` is a catalogue id, None where no known one was asked for."""
        self._errors[tenant or "", model or "", code] += 1

    def collect(self) -> Iterator[Metric]:
        """The samples."""
        names = ["tenant_id", "model", "provider"]
        requests = CounterMetricFamily(
            "embedding_requests", "Requests that reached an outcome.", labels=[*names, "status"]
        )
        duration = HistogramMetricFamily(
            "embedding_request_duration_seconds", "From a request's arrival to its committed outcome.", labels=names
        )
        tokens = CounterMetricFamily("embedding_tokens", "Tokens billed.", labels=names)
        cost = CounterMetricFamily(
            "embedding_cost_usd", "Charged, in US dollars; requests of unknown price are not in it.", labels=names
        )
        for key, served in self._served.items():
            requests.add_metric([*key, "success"], served.successes)
            tokens.add_metric(key, served.tokens)
            cost.add_metric(key, served.nano_usd / NANO_PER_USD)
            total, buckets = 0, []
            for bound, count in zip([*map(str, BUCKETS), "+Inf"], served.buckets, strict=True):
                total += count
                buckets.append((bound, float(total)))
            duration.add_metric(key, buckets, served.seconds)
        for key, count in self._failures.items():
            requests.add_metric([*key, "failure"], count)
        yield from (requests, duration, tokens, cost)
        yield _family(
            "embedding_errors", "Failures and refusals by code.", ["tenant_id", "model", "error_type"], self._errors
        )
        yield _family(
            "embedding_cache_hits", "Texts answered from the cache.", ["tenant_id", "model"], self._cache_hits
        )
        yield _family(
            "embedding_cache_lookups",
            "Texts looked up in the cache; hits by lookups is the hit ratio of a tenant.",
            ["tenant_id", "model"],
            self._cache_lookups,
        )
        yield _family(
            "embedding_unpriced_requests",
            "Answered or billed requests whose price is unknown.",
            ["tenant_id", "model"],
            self._unpriced,
        )
        yield _family(
            "embedding_model_switches",
            "Requests that went to another model or endpoint than the first in line.",
            ["tenant_id", "from_model", "to_model", "reason"],
            self._switches,
        )


class ProviderMetrics(Collector):
    """Provider calls: how many, how many texts they carried, how long they took, how they failed."""

    def __init__(self) -> None:
        self._calls: Counter[tuple[str, str, str]] = Counter()
        self._texts: Counter[tuple[str, str, str]] = Counter()
        self._seconds: defaultdict[tuple[str, str, str], float] = defaultdict(float)
        self._faults: Counter[tuple[str, str, str]] = Counter()
        self._recent: dict[str, tuple[float, float]] = {}
        self._owned: dict[str, None] = {}

    def call_ended(self, outcome: CallOutcome) -> None:
        """A provider call ended, well or badly."""
        if outcome.owner is not None and outcome.endpoint not in self._owned:
            self._keep_owned(outcome.endpoint)
        key = (outcome.endpoint, outcome.provider, outcome.model)
        self._calls[key] += 1
        self._texts[key] += outcome.texts
        self._seconds[key] += outcome.seconds
        if outcome.fault is not None:
            self._faults[outcome.endpoint, outcome.model, outcome.fault.value] += 1
        elif outcome.owner is None:
            before, _ = self._recent.get(outcome.model, (outcome.seconds, 0.0))
            self._recent[outcome.model] = (before + (outcome.seconds - before) * RECENT_WEIGHT, time.monotonic())

    def _keep_owned(self, endpoint: str) -> None:
        self._owned[endpoint] = None
        if len(self._owned) > KEEP_OWNED:
            oldest = next(iter(self._owned))
            del self._owned[oldest]
            for counts in (self._calls, self._texts, self._seconds, self._faults):
                for key in [key for key in counts if key[0] == oldest]:
                    del counts[key]

    def latency_ms(self) -> dict[str, int]:
        """How long good calls of each model took of late, in milliseconds to two digits: what changed less is no news.

        Every tenant's choice rests on it, so calls to endpoints that a tenant has for itself do not count.

        What was measured too long ago is forgotten, so that a model that nobody asked because it was slow is tried again.
        """
        since = time.monotonic() - RECENT_SECONDS
        return {
            model: int(float(f"{seconds * 1000:.1e}")) for model, (seconds, at) in self._recent.items() if at >= since
        }

    def collect(self) -> Iterator[Metric]:
        """The samples."""
        names = ["endpoint", "provider", "model"]
        yield _family("emberlog_provider_calls", "Provider calls that ended, well or badly.", names, self._calls)
        yield _family("emberlog_provider_texts", "Texts in those calls; by calls, the mean batch.", names, self._texts)
        yield _family("emberlog_provider_seconds", "Seconds spent in those calls.", names, self._seconds)
        yield _family(
            "emberlog_provider_faults", "Failed calls by fault.", ["endpoint", "model", "fault"], self._faults
        )


def _family(name: str, text: str, labels: list[str], counts: Mapping[Any, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in counts.items():
        family.add_metric(list(key), count)
    return family


class Gauges(Collector):
    """Values read at the moment of asking: name, help and a function each."""

    def __init__(self) -> None:
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._counters: list[tuple[str, str, Callable[[], float]]] = []
        self._labelled: list[tuple[str, str, str, Callable[[], Mapping[str, float]]]] = []
        self._families: list[tuple[str, str, list[str], Callable[[], Mapping[tuple[str, ...], float]]]] = []
        self._collectors: list[Callable[[], Metric]] = []

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge."""
        self._gauges.append((name, text, read))

    def counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a counter kept elsewhere; `name` without `_total`."""
        self._counters.append((name, text, read))

    def labelled(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Add a gauge with one label, read as a map from its value."""
        self._labelled.append((name, text, label, read))

    def family(
        self, name: str, text: str, labels: list[str], read: Callable[[], Mapping[tuple[str, ...], float]]
    ) -> None:
        """Add a gauge with several labels, read as a map from their values."""
        self._families.append((name, text, labels, read))

    def collector(self, read: Callable[[], Metric]) -> None:
        """Add samples that are made elsewhere."""
        self._collectors.append(read)

    def collect(self) -> Iterator[Metric]:
        """The samples."""
        for name, text, read in self._gauges:
            yield GaugeMetricFamily(name, text, value=read())
        for name, text, read in self._counters:
            yield CounterMetricFamily(name, text, value=read())
        for name, text, label, read_all in self._labelled:
            family = GaugeMetricFamily(name, text, labels=[label])
            for key, value in read_all().items():
                family.add_metric([key], value)
            yield family
        for name, text, labels, read_family in self._families:
            family = GaugeMetricFamily(name, text, labels=labels)
            for values, value in read_family().items():
                family.add_metric(list(values), value)
            yield family
        for collect in self._collectors:
            yield collect()
