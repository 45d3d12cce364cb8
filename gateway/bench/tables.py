"""The figures of `emberlog bench log` and `bench projections` as tables for people, with the marks they are held against."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show_log(found: dict[str, Any], console: Console) -> None:
    """Print the document of `bench log`."""
    table = Table("batches of at most", "events/s", "client CPU, µs", "Postgres CPU, µs", "p50 ms", "p99 ms", box=None)
    for each in found["batches"]:
        table.add_row(
            str(each["max_batch"]), *_cost(each), f"{each['batch_p50_ms']:.1f}", f"{each['batch_p99_ms']:.1f}"
        )
    console.print(table)
    offered, several, read = found["offered"], found["several"], found["read"]
    console.print(
        f"{offered['events_per_s']:,} events/s offered: p50 {offered['p50_ms']:.2f} ms, p99 {offered['p99_ms']:.2f} ms (mark: 5), "
        f"{offered['events_per_batch']:.1f} events a batch"
    )
    console.print(f"{several['processes']} processes at once: {several['events_per_s']:,.0f} events/s (mark: 45,000)")
    console.print(
        f"read by cursor, pages of {read['page']:,}: {read['events_per_s']:,.0f} events/s over {read['events']:,} (mark: 250,000)"
    )
    if found["growth"]:
        table = Table("rows in the log", "events/s", "client CPU, µs", "Postgres CPU, µs", box=None)
        for each in found["growth"]:
            table.add_row(f"{each['rows']:,}", *_cost(each))
        console.print(table)


def show_projections(found: dict[str, Any], console: Console) -> None:
    """Print the document of `bench projections`."""
    table = Table(
        "rebuild of", "events", "events/s", "Postgres CPU, µs an event", "peak memory, MiB", "equal", box=None
    )
    for each in found["rebuilds"]:
        table.add_row(
            each["projection"], f"{each['events']:,}", f"{each['events_per_s']:,.0f}", f"{each['server_cpu_us']:.2f}",
            f"{each['peak_bytes'] / 2**20:.0f}", "yes" if each["equal"] else "NO",
        )  # fmt: skip
    console.print(table)
    alone, beside, lag, first = (
        found[name] for name in ("append_alone", "append_beside_a_rebuild", "lag", "first_fold")
    )
    console.print(f"first fold of {' and '.join(first['projections'])} at once: {first['events_per_s']:,.0f} events/s")
    console.print(
        f"append p99 at {alone['events_per_s']:,} events/s: {alone['p99_ms']:.2f} ms, beside a rebuild {beside['p99_ms']:.2f} ms: "
        f"{found['append_p99_ratio']:.2f} times (mark: 2)"
    )
    console.print(
        f"lag of usage at {lag['offered_per_s']:,} events/s: p50 {lag['p50_ms']:.0f} ms, p99 {lag['p99_ms']:.0f} ms (mark: 250)"
    )


def show_changes(found: dict[str, Any], console: Console) -> None:
    """Print the document of `bench config`."""
    table = Table(f"{found['changes']} changes", "p50 ms", "p99 ms", "max ms", box=None)
    for name, what in (("answered", "answered"), ("in_force_elsewhere", "in force in another process (mark: 1,000)")):
        each = found[name]
        table.add_row(what, *(f"{each[n]:.1f}" for n in ("p50_ms", "p99_ms", "max_ms")))
    console.print(table)


def _cost(each: dict[str, Any]) -> tuple[str, str, str]:
    return f"{each['events_per_s']:,.0f}", f"{each['client_cpu_us']:.1f}", f"{each['server_cpu_us']:.1f}"
