"""Processor time and cores of processes, from /proc: what a request cost the gateway, Postgres and Valkey, each apart."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> tuple[str, int, float] | None:
    """Name, parent and seconds of processor time so far; None for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may hold any character.
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return name, int(fields[1]), (int(fields[11]) + int(fields[12])) * _TICK


def _group(name: str) -> str:
    return {"postgres": "postgres", "valkey-server": "valkey"}.get(name, "gateway")


def family(pid: int) -> dict[int, str]:
    """A gateway and everything that it started, by pid: each `gateway`, `postgres` or `valkey`, by the program's name."""
    every = {
        int(entry.name): found
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        if (found := _stat(int(entry.name)))
    }
    members = {pid}
    grown = True
    while grown:
        more = {child for child, (_, parent, _) in every.items() if parent in members} - members
        members |= more
        grown = bool(more)
    return {member: _group(every[member][0]) for member in members if member in every}


def cpu_seconds(pid: int) -> dict[str, float]:
    """Processor seconds (user and system) so far of a gateway's family, by group. The resolution is a clock tick, 10 ms."""
    spent: dict[str, float] = {}
    for member, group in family(pid).items():
        if found := _stat(member):
            spent[group] = spent.get(group, 0.0) + found[2]
    return spent


def peak_memory(pid: int) -> int:
    """The most memory that the process has had resident, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


class Cores:
    """Which core each part of a bench gets: the gateway one of its own, the simulator and the load the next; services what is left.

    On two cores Postgres and Valkey may run on both, as the system sees fit; on one core everything shares it.
    """

    def __init__(self) -> None:
        self.all = sorted(os.sched_getaffinity(0))
        self.gateway = {self.all[0]}
        self.simulator = {self.all[1 % len(self.all)]}
        self.load = {self.all[2 % len(self.all)]} if len(self.all) > 3 else self.simulator
        self.services = set(self.all[3:]) if len(self.all) > 3 else set(self.all)


@contextlib.contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Processes started in this block (from this thread) run on `cores` only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move_services(pid: int, cores: set[int]) -> None:
    """Let the gateway's Postgres and Valkey run on `cores`; what they start later follows."""
    for member, group in family(pid).items():
        if group != "gateway":
            for task in Path(f"/proc/{member}/task").iterdir():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.sched_setaffinity(int(task.name), cores)
