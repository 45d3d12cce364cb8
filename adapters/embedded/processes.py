"""Finding and ending the processes of a cluster by what they say they are, never by a pid somebody once wrote down.

A pid file can outlive its process and name another one by then; the command line of a live process cannot.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Match = Callable[[Sequence[str]], bool]


def command_line(pid: int) -> list[str]:
    """The arguments of a live process; empty for one that is gone, a zombie or a kernel thread."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return os.fsdecode(raw.rstrip(b"\0")).split("\0") if raw else []


def find(match: Match) -> list[int]:
    """Pids, ascending, of the live processes whose command line matches."""
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if (argv := command_line(pid)) and match(argv)]


def alive(pid: int) -> bool:
    """Whether a process of that pid exists, ours or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Signal each; those gone meanwhile are fine."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


async def until_gone(match: Match, timeout: float) -> bool:
    """Wait until no process matches. False when some still do after `timeout` seconds.

    They are not our children (or no longer), so nobody tells us of their end: this polls, 5 ms growing to 50.
    """
    give_up = time.monotonic() + timeout
    pause = 0.005
    while find(match):
        if time.monotonic() >= give_up:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return True
