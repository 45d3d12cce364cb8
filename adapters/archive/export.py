"""A log as one stream of lines: a header, the tenants' wrapped keys if asked for, an event a line, and a trailer to know the end by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import BinaryIO
from uuid import UUID

import msgspec

from adapters.archive.lines import encode_line
from adapters.archive.statements import statement
from adapters.postgres.event_log import PostgresEventLog
from domain.ports.event_log import LogDamaged

FORMAT = 1
_PAGE = 5_000


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line: the version of this format, which log it was, and the positions that follow; `last` 0 for none."""

    emberlog_export: int
    installation: UUID
    incarnation: UUID
    first: int
    last: int


class KeyLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant's key as the installation's key wrapped it (base64), None once it is shredded. Times are microseconds since 1970."""

    tenant_key: str
    wrapped: bytes | None
    created_at: int
    shredded_at: int | None = None


class Trailer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line: how many events there are, and the SHA-256 (hex) of all between the first line and this one."""

    events: int
    sha256: str


_encode = msgspec.json.Encoder().encode


async def export_log(
    log: PostgresEventLog,
    out: BinaryIO,
    first: int,
    last: int,
    *,
    with_keys: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Trailer:
    """Write the events `first` to `last`, which are there, archived or not; `on_progress` is told how many are written.

    Lines of events whose tenant's key was destroyed say `"shredded": true`. Raises what reading the log and writing raise.
    """
    identity = await log.identity()
    out.write(_encode(Header(FORMAT, identity.installation, identity.incarnation, first, last)) + b"\n")
    digest, count = sha256(), 0

    def write(lines: list[bytes]) -> None:
        block = b"".join(lines)
        digest.update(block)
        out.write(block)

    keys = [KeyLine(*row) for row in await log.pool.fetch(statement("keys"))]
    shredded = {key.tenant_key for key in keys if key.shredded_at is not None}
    # A shredded tenant's line holds no key: it keeps the tenant shredded wherever the log goes.
    write([_encode(key) + b"\n" for key in keys if with_keys or key.shredded_at is not None])
    while first + count <= last:
        events = await log.read(first + count - 1, min(_PAGE, last - first - count + 1))
        if not events:
            raise LogDamaged(
                first + count, f"the log has no event at position {first + count}: see `emberlog log verify`"
            )
        lines = [encode_line(event, shredded=event.tenant in shredded) for event in events]
        await asyncio.to_thread(write, lines)
        count += len(events)
        on_progress(count)
    trailer = Trailer(count, digest.hexdigest())
    out.write(_encode(trailer) + b"\n")
    out.flush()
    return trailer
