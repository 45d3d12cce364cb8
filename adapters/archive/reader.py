"""Reading archived events as if they had never left the table."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from adapters.archive.lines import BadLine, decode_line
from adapters.archive.segment import Member, Segment, read_member
from adapters.archive.statements import statement
from domain.ports.event_log import LogDamaged, LogUnavailable, StoredEvent

MEMBERS = 4
"""Members kept unpacked, about six megabytes each: readers that page forward, each at a place of its own."""
_SEGMENTS = 8

Fetch = Callable[..., Awaitable[Sequence[Any]]]
"""Runs a statement with its arguments; raises `LogUnavailable`."""


class ArchiveReader:
    """Pages through segments. `folder` is where they lie; None where no folder is set, which matters once there are any."""

    def __init__(self, fetch: Fetch, folder: Path | None) -> None:
        self._fetch = fetch
        self._folder = folder
        self._find_sql = statement("find_segment")
        self._segments: OrderedDict[int, Segment] = OrderedDict()
        self._members: OrderedDict[tuple[str, int], list[bytes]] = OrderedDict()
        self._loading = asyncio.Lock()
        self.upto = 0
        """The newest position known to be archived; all before it are. It only grows, and another process may be ahead."""

    async def read(self, after: int, limit: int) -> list[StoredEvent]:
        """Up to `limit` archived events with position > `after`: none when they are not archived, fewer at the archive's end.

        Raises `LogDamaged` for a segment file that is missing or not as it was written, `LogUnavailable`.
        """
        events: list[StoredEvent] = []
        while len(events) < limit and (segment := await self._segment(after + 1)) is not None:
            index = bisect_right(segment.members, after + 1, key=lambda member: member.position) - 1
            lines = await self._lines(segment, index)
            start = after + 1 - segment.members[index].position
            for line in lines[start : start + limit - len(events)]:
                try:
                    event = decode_line(line)
                except BadLine as error:
                    assert self._folder is not None
                    raise segment.damaged(
                        self._folder, after + 1, f"is wrong at position {after + 1}: {error}"
                    ) from None
                events.append(event)
                after += 1
        return events

    async def holds(self, position: int) -> bool:
        """Whether a position is archived by now."""
        return await self._segment(position) is not None

    async def _segment(self, position: int) -> Segment | None:
        """The segment that holds a position."""
        for segment in self._segments.values():
            if segment.first_position <= position <= segment.last_position:
                return segment
        rows = await self._fetch(self._find_sql, position)
        if not rows:
            return None
        first, last, file, size, digest, positions, offsets, hashes = rows[0]
        members = tuple(map(Member, positions, offsets, hashes))
        self._segments[first] = segment = Segment(first, last, file, size, digest, members)
        self.upto = max(self.upto, last)
        if len(self._segments) > _SEGMENTS:
            self._segments.popitem(last=False)
        return segment

    async def _lines(self, segment: Segment, index: int) -> list[bytes]:
        if self._folder is None:
            raise LogDamaged(
                segment.members[index].position,
                f"the events {segment.first_position} to {segment.last_position} are archived in {segment.file}, and no archive folder is set: "
                "set EMBERLOG_ARCHIVE_DIR to the folder that holds it",
            )
        key = (segment.file, index)
        async with self._loading:
            if (lines := self._members.get(key)) is None:
                try:
                    lines = await asyncio.to_thread(read_member, self._folder, segment, index)
                except OSError as error:
                    raise LogUnavailable(
                        f"the archive is out of reach: {self._folder / segment.file}: {error.strerror or type(error).__name__}"
                    ) from error
                self._members[key] = lines
                if len(self._members) > MEMBERS:
                    self._members.popitem(last=False)
            self._members.move_to_end(key)
        return lines
