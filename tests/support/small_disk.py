"""A file system of a few megabytes that a test can fill to the last byte and free again."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """`folder` is its root. `fill` leaves no free byte, `free` gives back what `fill` took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Take every free byte. Can be called again, for what was given back meanwhile."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(_Full):
                    while True:
                        _write(file.fileno(), bytes(size))

    def free(self) -> None:
        """Give back what was taken."""
        self._ballast.unlink()


class _Full(Exception):
    pass


def _write(file: int, data: bytes) -> None:
    try:
        written = os.write(file, data)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _Full from None
    if written < len(data):
        raise _Full


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A file system in memory, mounted on a new folder in `folder`. Skips the test where this user may mount none."""
    root = folder / "disk"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0711", "emberlog-test", str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(root)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)
