"""Reading an export: line by line, in batches, each line checked before anything is made of it."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import BinaryIO

import msgspec

from adapters.archive.export import FORMAT, Header, KeyLine, Trailer
from adapters.archive.lines import BadLine, checked, decode_line
from domain.ports.event_log import StoredEvent

BATCH_EVENTS = 5_000
BATCH_BYTES = 16 * 1024 * 1024
MAX_LINE = 256 * 1024 * 1024
"""Bytes; Postgres takes no longer document."""
_DAY_MICROS = 86_400_000_000


class ImportRefused(Exception):
    """The export or the database is not fit for an import; the message says what is wrong. Nothing was imported."""


class ExportReader:
    """Reads one export to its end. `header` is read when it is made; `keys` are complete once the first batch of events is out."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._line = 0
        self._digest = sha256()
        self._count = 0
        self._recorded_at = -(1 << 62)
        self._latest = time.time_ns() // 1000 + _DAY_MICROS
        self.keys: list[KeyLine] = []
        self.ended = False
        try:
            self.header = msgspec.json.decode(self._next(), type=Header)
        except ValueError:
            raise self.refused(
                "it is not the header of an export: expected a file that `emberlog log export` wrote"
            ) from None
        if self.header.emberlog_export != FORMAT:
            raise self.refused(
                f"the export has format {self.header.emberlog_export}, this build reads {FORMAT}: use the release that wrote it"
            )
        if self.header.first != 1:
            raise self.refused(
                f"the export begins at position {self.header.first}: a log can only be made of one that begins at 1, so export without --from"
            )

    def refused(self, why: str, line: int | None = None) -> ImportRefused:
        """The error that names a line, the last one read unless another is given."""
        return ImportRefused(f"line {line or self._line}: {why}. Nothing was imported")

    def batch(self) -> tuple[int, list[StoredEvent]]:
        """The next events, each checked, and the line of the first of them; none at the end. Raises `ImportRefused`."""
        events: list[StoredEvent] = []
        first_line = size = 0
        while not self.ended and len(events) < BATCH_EVENTS and size < BATCH_BYTES:
            line = self._next()
            if line.startswith(b'{"position":'):
                events.append(self._event(line))
                first_line = first_line or self._line
                size += len(line)
            elif line.startswith(b'{"tenant_key":') and not self._count:
                self.keys.append(self._key(line))
            else:
                self._end(line)
                continue
            self._digest.update(line)
        return first_line, events

    def _next(self) -> bytes:
        line = self._source.readline(MAX_LINE)
        self._line += 1
        if not line.endswith(b"\n"):
            raise self.refused(
                "the export is cut off here: its trailer is missing" if len(line) < MAX_LINE else "it is too long"
            )
        return line

    def _event(self, line: bytes) -> StoredEvent:
        try:
            event = checked(decode_line(line), self._count + 1)
            event.data.decode()
        except BadLine as error:
            raise self.refused(str(error)) from None
        except UnicodeDecodeError:
            raise self.refused("its data is not UTF-8") from None
        if not self._recorded_at <= event.recorded_at <= self._latest:
            raise self.refused("its time is before that of the event in front of it, or lies in the future")
        self._recorded_at = event.recorded_at
        self._count += 1
        return event

    def _key(self, line: bytes) -> KeyLine:
        try:
            return msgspec.json.decode(line, type=KeyLine)
        except ValueError as error:
            raise self.refused(f"it is not the key of a tenant: {error}") from None

    def _end(self, line: bytes) -> None:
        try:
            trailer = msgspec.json.decode(line, type=Trailer)
        except ValueError:
            raise self.refused("it is neither an event nor the trailer of an export") from None
        if trailer != Trailer(self._count, self._digest.hexdigest()) or self._count != self.header.last:
            raise self.refused(
                f"the trailer does not fit: {trailer.events} events up to position {self.header.last} were written, {self._count} are here, or "
                "lines between the first and this one were changed"
            )
        if self._source.read(1):
            raise self.refused("something follows the trailer")
        self.ended = True
