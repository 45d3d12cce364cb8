"""What discovery did in this process, by provider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from domain.events import DiscoveryRan


class DiscoveryMetrics(Collector):
    """Runs by provider and outcome, and models by what came of them."""

    def __init__(self) -> None:
        self._runs: Counter[tuple[str, str]] = Counter()
        self._models: Counter[tuple[str, str]] = Counter()

    def ran(self, ran: DiscoveryRan) -> None:
        """A provider's list was held against the catalogue, or could not be."""
        self._runs[ran.provider, "success" if ran.error is None else "failure"] += 1
        for outcome in ("found", "added", "changed", "deprecated", "skipped"):
            self._models[ran.provider, outcome] += getattr(ran, outcome)

    def collect(self) -> Iterator[Metric]:
        """The samples."""
        yield _family(
            "emberlog_discovery_runs", "Lists of models that were asked for.", ["provider", "status"], self._runs
        )
        yield _family(
            "emberlog_discovery_models",
            "Models in those lists by what came of them: found are all, the others some of these, or gone from the list.",
            ["provider", "outcome"],
            self._models,
        )


def _family(name: str, text: str, labels: list[str], counts: Counter[tuple[str, str]]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in counts.items():
        family.add_metric(list(key), count)
    return family
