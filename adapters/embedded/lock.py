"""One process per data folder: an flock that the kernel releases however its holder ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from adapters.embedded.errors import DataFolderInUse, ServiceFailed

LOCK_NAME = "lock"
_PATIENCE_S = 0.25
"""How long an exclusive attempt is repeated: a reader that asks whether the folder is held takes the lock for microseconds."""


class FolderLock:
    """The exclusive right to run services in a data folder. Held from `acquire` to `release`, or to the death of the process."""

    def __init__(self, handle: int) -> None:
        self._handles = [handle]

    @classmethod
    def acquire(cls, data_dir: Path) -> FolderLock:
        """Take the lock and write our pid into it. Raises `DataFolderInUse`, naming the holder."""
        return cls(_lock(data_dir))

    def also(self, home: Path) -> None:
        """Take a second folder: a home elsewhere, which the copy of a data folder would name, too. Raises `DataFolderInUse`."""
        self._handles.append(_lock(home))

    def release(self) -> None:
        """Give the folders back. Idempotent. The files stay: removing one would let two processes lock two files of one name."""
        while self._handles:
            handle = self._handles.pop()
            os.ftruncate(handle, 0)
            os.close(handle)


def _lock(folder: Path) -> int:
    path = folder / LOCK_NAME
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _not_ours(path, error) from None
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() < give_up:
                time.sleep(0.005)
                continue
            holder = _read_pid(handle)
            os.close(handle)
            raise in_use(folder, holder) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def holder_of(data_dir: Path) -> int | None:
    """The pid of the process that holds the folder; 0 when it is held by one that has not written its pid; None when nobody does."""
    try:
        handle = os.open(data_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _not_ours(data_dir / LOCK_NAME, error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(handle) or 0
    else:
        return None
    finally:
        os.close(handle)


def in_use(data_dir: Path, holder: int | None) -> DataFolderInUse:
    """The refusal for a folder that is held by `holder`."""
    who = f"the process with pid {holder}" if holder else "another process"
    stop = f"stop that process (kill -TERM {holder})" if holder else "stop that process"
    return DataFolderInUse(
        f"the data folder {data_dir} is in use by {who}: {stop}, or set EMBERLOG_DATA_DIR to another folder",
        holder=holder,
    )


def _not_ours(path: Path, error: OSError) -> ServiceFailed:
    return ServiceFailed(
        f"{path} cannot be opened ({error.strerror}): run as the user that owns the data folder, "
        "or set EMBERLOG_DATA_DIR to a folder of your own"
    )


def _read_pid(handle: int) -> int | None:
    text = os.pread(handle, 32, 0).strip()
    return int(text) if text.isdigit() else None
