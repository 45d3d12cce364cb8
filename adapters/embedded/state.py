"""How another process of this machine finds the services of a running gateway: a private file in the data folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from adapters.embedded.errors import DataFolderInUse
from adapters.embedded.files import write_atomically
from adapters.embedded.lock import holder_of

STATE_NAME = "services.json"


@dataclass(frozen=True, slots=True)
class Running:
    """Connection strings of live services and the pid of the process that runs them. None: not run by it."""

    pid: int
    owner_dsn: str | None
    app_dsn: str | None
    redis_url: str | None


def write(data_dir: Path, running: Running) -> None:
    """Tell others (mode 0600)."""
    write_atomically(data_dir / STATE_NAME, json.dumps(asdict(running), indent=1).encode() + b"\n")


def remove(data_dir: Path) -> None:
    """Say that nothing runs."""
    (data_dir / STATE_NAME).unlink(missing_ok=True)


def running(data_dir: Path) -> Running | None:
    """The services of the process that holds the data folder now; None when nobody holds it, whatever files lie there.

    Raises `DataFolderInUse` when a process holds it whose services cannot be used: it is still starting, or is already stopping.
    """
    holder = holder_of(data_dir)
    if holder is None:
        return None
    try:
        found = Running(**json.loads((data_dir / STATE_NAME).read_bytes()))
    except FileNotFoundError:
        found = None
    if found is None or found.pid != holder:
        raise DataFolderInUse(
            f"the process with pid {holder} holds the data folder {data_dir} and is starting or stopping its services: try again in a moment",
            holder=holder or None,
        )
    return found
