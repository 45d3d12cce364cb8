"""How much memory there is for one more model in this process."""

from __future__ import annotations

from pathlib import Path

LOCAL_MODEL_BYTES = 512 * 1024 * 1024
"""What the local model and its runtime take, with room for a batch."""

_CGROUP = Path("/sys/fs/cgroup")


def available_memory(proc: Path = Path("/proc"), cgroup: Path = _CGROUP) -> int | None:
    """Bytes that can be had before the machine, or the group of processes that this one is in, has none left; None where nobody says."""
    found = [size for size in (_of_machine(proc), _of_group(cgroup)) if size is not None]
    return min(found, default=None)


def _of_machine(proc: Path) -> int | None:
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _of_group(cgroup: Path) -> int | None:
    try:
        return int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # "max": it has no bound
        return None
