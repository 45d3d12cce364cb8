"""Which tenants were shredded, in a file outside the database: a backup that brings a key back brings back no right to it.

One line of JSON each, only ever appended, written before anything is destroyed. A line cut short by a crash was never acted on.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import msgspec

from adapters.archive.segment import FILE_MODE, FOLDER_MODE
from adapters.embedded.files import sync_folder

LEDGER_NAME = "shredded.ndjson"


class LedgerUnusable(Exception):
    """The ledger cannot be read or written; the message says which and what to do."""


class Shred(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant that was shredded: when (ISO 8601, UTC), and the id of its `tenant.shredded`."""

    tenant: str
    time: str
    event: UUID


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Shred).decode


def read_ledger(path: Path) -> dict[str, Shred]:
    """Every shred by tenant, in order; none where there is no file. Raises `LedgerUnusable`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LedgerUnusable(f"the shred ledger {path} cannot be read: {error.strerror}") from None
    return _parse(path, content)


def note_shred(path: Path, tenant: str) -> Shred:
    """The tenant's line; one is written, and is on disk on return, unless there is one. Raises `LedgerUnusable`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(handle, "r+b") as file:
            fcntl.flock(handle, fcntl.LOCK_EX)
            content = file.read()
            if (known := _parse(path, content).get(tenant)) is None:
                whole = content.rfind(b"\n") + 1
                if whole < len(content):
                    file.truncate(whole)
                known = Shred(tenant, datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"), uuid4())
                file.write(_encode(known) + b"\n")
                file.flush()
            os.fsync(handle)
        sync_folder(path.parent)
    except OSError as error:
        raise LedgerUnusable(
            f"the shred ledger {path} cannot be written: {error.strerror}; nothing was shredded"
        ) from None
    return known


def _parse(path: Path, content: bytes) -> dict[str, Shred]:
    found: dict[str, Shred] = {}
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            shred = _decode(line)
        except msgspec.DecodeError:
            raise LedgerUnusable(
                f"the shred ledger {path} is damaged at line {number}: restore it from a copy, for it says which keys must not come back"
            ) from None
        found.setdefault(shred.tenant, shred)
    return found
