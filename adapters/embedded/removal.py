"""Removing a data folder that was made to be thrown away, with what its note says lies elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

from adapters.embedded.layout import is_private, prepare, whose
from adapters.embedded.lock import FolderLock
from adapters.embedded.postgres import PostgresService
from adapters.embedded.valkey import ValkeyService


async def remove_data_folder(data_dir: Path) -> None:
    """Remove the folder, its cluster and its sockets for good, wherever they are; servers left by a killed process end first.

    Nothing happens when the folder does not exist. Raises `DataFolderInUse` while a live process holds it. A noted place is
    removed only when it names this folder as its own, so a copied note takes nobody else's data away.
    """
    folder = _existing(data_dir)
    if folder is None:
        return
    lock = FolderLock.acquire(folder)
    try:
        layout = prepare(folder)
        home = layout.home
        if home != folder:
            lock.also(home)
        await PostgresService(layout, Path(), {}, None).end_orphans()
        await ValkeyService(layout, Path(), 0, None).end_orphans()
        if layout.sockets.parent != home and is_private(layout.sockets, layout.account):
            shutil.rmtree(layout.sockets)
        if home != folder and whose(home) == folder:
            shutil.rmtree(home)
        shutil.rmtree(folder)
    finally:
        lock.release()


def _existing(data_dir: Path) -> Path | None:
    return data_dir.resolve(strict=True) if data_dir.is_dir() else None
