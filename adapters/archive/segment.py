"""A segment file: events as lines of JSON in a row of gzip members, each of which can be read and checked alone."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from adapters.archive.lines import BadLine, checked, decode_line, encode_line
from domain.ports.event_log import LogDamaged, StoredEvent

MEMBER_EVENTS = 10_000
_LEVEL = 6
FOLDER_MODE, FILE_MODE = 0o750, 0o640
"""What lies in the archive folder names tenants and agents: no business of other users of the machine. A group may share it."""


class Member(msgspec.Struct, frozen=True):
    """A gzip member: its first position, the byte it begins at, and the SHA-256 of its bytes."""

    position: int
    offset: int
    sha256: bytes


class Segment(msgspec.Struct, frozen=True):
    """What is known of a segment file. `file` is its name within the archive folder, `size` its bytes."""

    first_position: int
    last_position: int
    file: str
    size: int
    sha256: bytes
    members: tuple[Member, ...]

    def member_end(self, index: int) -> tuple[int, int]:
        """The last position of a member and the byte behind it."""
        if index + 1 < len(self.members):
            return self.members[index + 1].position - 1, self.members[index + 1].offset
        return self.last_position, self.size

    def damaged(self, folder: Path, position: int, why: str) -> LogDamaged:
        """The error that says so, and what to do. `position` is the first that cannot be read."""
        return LogDamaged(
            position,
            f"the archived events {self.first_position} to {self.last_position} cannot be read: {folder / self.file} {why}. Put the file back "
            f"from a backup: {self.size} bytes with SHA-256 {self.sha256.hex()}",
        )


class SegmentWriter:
    """Writes a file of its own, member by member; nothing refers to it until `finish` has given it its name.

    Blocks: call it in a thread.
    """

    def __init__(self, folder: Path, scratch: str) -> None:
        _make(folder)
        self._folder = folder
        self._path = folder / scratch
        self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "wb")
        self._digest = sha256()
        self._offset = 0
        self._members: list[Member] = []
        self._next = 0

    def add(self, events: Sequence[StoredEvent]) -> None:
        """Write a member of these events, which follow those before. Raises `LogDamaged` where one is not what the log promises."""
        lines = []
        position = self._next or events[0].position
        for event in events:
            try:
                lines.append(encode_line(checked(event, position)))
            except BadLine as error:
                raise LogDamaged(
                    position,
                    f"nothing was archived, for of the event that follows position {position - 1}, {error}: see `emberlog log verify`",
                ) from None
            position += 1
        # Neither time nor name, so that the same events give the same file.
        member = gzip.compress(b"".join(lines), _LEVEL, mtime=0)
        self._members.append(Member(events[0].position, self._offset, sha256(member).digest()))
        self._digest.update(member)
        self._offset += len(member)
        self._next = position
        self._file.write(member)

    def finish(self) -> Segment:
        """Bring the file to disk under its final name, which holds the positions and the beginning of its digest."""
        first, last, digest = self._members[0].position, self._next - 1, self._digest.digest()
        name = f"events-{first:012}-{last:012}-{digest.hex()[:12]}.ndjson.gz"
        self._file.flush()
        os.fsync(self._file.fileno())
        if hasattr(os, "posix_fadvise"):  # what is checked next is to come from the disk
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._file.close()
        self._path.replace(self._folder / name)
        _sync(self._folder)
        return Segment(first, last, name, self._offset, digest, tuple(self._members))

    def discard(self) -> None:
        """Leave nothing behind, unless the file has its name. Idempotent."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    """Make a folder that is still there after a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    for path in missing:
        _sync(path.parent)


def _sync(folder: Path) -> None:
    """Bring the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_member(folder: Path, segment: Segment, index: int) -> list[bytes]:
    """The lines of one member. Raises `LogDamaged` for a missing file or other bytes than were written, OSError if it cannot be read."""
    member = segment.members[index]
    last, end = segment.member_end(index)
    try:
        with (folder / segment.file).open("rb") as file:
            file.seek(member.offset)
            packed = file.read(end - member.offset)
    except (FileNotFoundError, NotADirectoryError):
        raise segment.damaged(folder, member.position, "is not there") from None
    if sha256(packed).digest() != member.sha256:
        raise segment.damaged(
            folder,
            member.position,
            f"is damaged between bytes {member.offset} and {end}, which hold the positions {member.position} to {last}",
        )
    try:
        lines = gzip.decompress(packed).split(b"\n")[:-1]  # `splitlines` would also part at a carriage return
    except (OSError, EOFError, zlib.error) as error:
        raise segment.damaged(folder, member.position, f"cannot be unpacked at byte {member.offset}: {error}") from None
    if len(lines) != last - member.position + 1:
        raise segment.damaged(
            folder,
            member.position,
            f"holds {len(lines)} events from position {member.position} on, expected up to {last}",
        )
    return lines


def check_segment(folder: Path, segment: Segment) -> None:
    """Read the whole file and check it: its digests, and each event's place and content hash. Raises `LogDamaged` and OSError."""
    digest = sha256()
    with (folder / segment.file).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.digest() != segment.sha256:
        raise segment.damaged(folder, segment.first_position, "does not hold what was written to it")
    for index, member in enumerate(segment.members):
        for position, line in enumerate(read_member(folder, segment, index), member.position):
            try:
                checked(decode_line(line), position)
            except BadLine as error:
                raise segment.damaged(folder, position, f"is wrong at position {position}: {error}") from None
