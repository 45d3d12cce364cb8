"""What a scenario gave, as numbers for machines and as a table for people."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from gateway.bench.latency import Latency
from gateway.bench.load import LoadResult
from gateway.bench.scenarios import Scenario
from gateway.bench.simulator import Stats


class Measured(msgspec.Struct, kw_only=True):
    """One scenario's raw figures. `cpu`: seconds within the measured time by group; `events`: written to the log for `answered`."""

    scenario: Scenario
    load: LoadResult
    cpu: dict[str, float]
    provider: Stats
    events: int | None
    peak_memory: int

    def figures(self) -> dict[str, Any]:
        """The figures of `emberlog bench --json`. Processor time is in microseconds a request; rates are per second."""
        load, scenario = self.load, self.scenario
        requests = max(load.requests, 1)
        per_request = {group: self.cpu.get(group, 0.0) / requests * 1e6 for group in ("gateway", "postgres", "valkey")}
        events = None if self.events is None or not load.answered else self.events / load.answered
        return {
            "scenario": scenario.name,
            "agents": scenario.agents,
            "texts_per_request": scenario.texts,
            "provider_ms": scenario.provider_ms,
            "offered_per_s": scenario.rate,
            "requests": load.requests,
            "seconds": load.seconds,
            "requests_per_s": load.rate,
            "texts_per_s": load.rate * scenario.texts,
            "mark_requests_per_s": scenario.mark,
            "latency": load.latency.summary(),
            "timings_mean": msgspec.structs.asdict(load.timings),
            "cpu_us_per_request": {**per_request, "whole": sum(per_request.values())},
            "cpu_share": {group: spent / load.seconds for group, spent in self.cpu.items()},
            "load_cpu_share": load.cpu_seconds / load.seconds,
            "provider_calls_at_once": self.provider.max_in_flight,
            "texts_per_provider_call": self.provider.inputs / max(self.provider.calls, 1),
            "provider_calls": self.provider.calls,
            "events_per_request": events,
            "events_per_s": None if events is None else events * load.rate,
            "errors": load.errors,
            "wrong": load.wrong,
            "verified": load.verified,
            "unanswered": load.unanswered,
            "gateway_peak_bytes": self.peak_memory,
            "histogram_us": _bounds(load.latency),
        }


def _bounds(latency: Latency) -> list[list[float]]:
    """The histogram as pairs of upper bound in microseconds and count."""
    return [[round(bound, 1), count] for bound, count in latency.bounds()]


def show(figures: list[dict[str, Any]], machine: dict[str, Any], console: Console) -> None:
    """Print the table, the marks, and whatever went wrong."""
    table = Table(title="emberlog bench", caption=_caption(machine), caption_justify="left")
    table.add_column("scenario", no_wrap=True)
    for heading in ("req/s", "p50 ms", "p99 ms", "gateway\nµs/req", "system\nµs/req", "texts\n/call", "events\n/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in figures:
        table.add_row(
            row["scenario"],
            _number(row["requests_per_s"]),
            _number(row["latency"]["p50_ms"], 1),
            _number(row["latency"]["p99_ms"], 1),
            _number(row["cpu_us_per_request"]["gateway"]),
            _number(row["cpu_us_per_request"]["whole"]),
            _number(row["texts_per_provider_call"], 1),
            _number(row["events_per_s"]),
        )
    console.print(table)
    for row in figures:
        if row["mark_requests_per_s"] is not None:
            reached = row["requests_per_s"] >= row["mark_requests_per_s"]
            verdict = "[green]reached[/green]" if reached else "[red]not reached[/red]"
            console.print(f"mark: {row['scenario']}: at least {row['mark_requests_per_s']:,.0f} requests/s: {verdict}")
        if row["errors"] or row["wrong"] or row["unanswered"]:
            console.print(
                f"[red]{row['scenario']}: {row['wrong']} wrong answers, {row['unanswered']} unanswered, errors {row['errors']}[/red]"
            )


def _caption(machine: dict[str, Any]) -> str:
    return (
        f"gateway on core {machine['gateway_cores']}, simulated provider on {machine['simulator_cores']}, load on "
        f"{machine['load_cores']}, Postgres and Valkey on {machine['service_cores']}; fsync {machine['fsync']}; "
        "µs/req: processor time a request, of the gateway alone and of gateway, Postgres and Valkey; texts/call: texts per provider call"
    )


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
