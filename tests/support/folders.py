"""Data folders for tests: reachable for the user that runs the servers, and gone afterwards with everything that ran in them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapters.embedded.account import Account
from adapters.embedded.layout import PLACE_NAME, Layout
from adapters.embedded.processes import find, send

_IN_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 4 << 30
"""Four processes of tests have servers with less than half of it; what else is kept there is somebody else's."""


def fast_place() -> Path:
    """Where the folders of tests lie: in memory where it has room, else /tmp.

    Tests make and drop databases of a thousand files each. ext4 looks at every inode that was freed in the last seconds before it
    hands one out, which was most of what the whole suite took. Of killed processes both keep the same.
    """
    try:
        room = shutil.disk_usage(_IN_MEMORY).free
    except OSError:
        room = 0
    return _IN_MEMORY if room >= _ENOUGH_BYTES else Path("/tmp")


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of ours that every user may pass (pytest's own are closed to all but their owner)."""
    folder = Path(tempfile.mkdtemp(prefix="emberlog-test-", dir=fast_place()))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def temporary_data_dir(parent: Path) -> Iterator[Path]:
    """A data folder below `parent` that does not exist yet. Afterwards its servers are ended and its files removed, wherever they are."""
    data_dir = parent / "data"
    try:
        yield data_dir
    finally:
        end_servers(data_dir)
        for place in noted_places(data_dir).values():
            shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(data_dir, ignore_errors=True)


def noted_places(data_dir: Path) -> dict[str, str]:
    """What the data folder's note says lies elsewhere; empty when everything is in it."""
    try:
        note = json.loads((data_dir / PLACE_NAME).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def servers_of(data_dir: Path) -> list[int]:
    """Pids of the Postgres and Valkey processes of a data folder, found by their command lines."""
    note = noted_places(data_dir)
    home = Path(note.get("home", data_dir.resolve()))
    sockets = Path(note.get("sockets", home / "run"))
    layout = Layout(data_dir, home, sockets, Account(os.getuid(), os.getgid(), switch=False))

    def is_server(argv: Sequence[str]) -> bool:
        if argv[0].startswith(f"postgres: {layout.cluster_name}: "):
            return True
        known = {str(layout.cluster), str(layout.valkey_socket)}
        return Path(argv[0]).name in ("postgres", "valkey-server") and not known.isdisjoint(argv)

    return find(is_server)


def end_servers(data_dir: Path, patience: float = 5.0) -> None:
    """Wait for the servers of a folder to end (a dead supervisor's do by themselves), then end what is left."""
    give_up = time.monotonic() + patience
    while servers_of(data_dir) and time.monotonic() < give_up:
        time.sleep(0.01)
    while left := servers_of(data_dir):
        send(left, signal.SIGKILL)
        time.sleep(0.01)
