"""What a periodic task is, and the event that says it ran."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import blake2b

import asyncpg
import msgspec

from domain.events import SYSTEM_TENANT, MaintenanceRan, encode_data
from domain.keys import event_id
from domain.ports.event_log import NewEvent
from gateway.decisions import KEYS_STREAM


class Task(msgspec.Struct, frozen=True):
    """Work to be done once a `period`, by one process at a time. `run` returns what it did, in numbers; it may be cancelled, and
    may be run again before it is due.
    """

    name: str
    period: timedelta
    run: Callable[[], Awaitable[dict[str, int]]]


def ran_event(data: MaintenanceRan, fence: int) -> NewEvent:
    """The event of the run with this fence: however often it is sent, it is logged once."""
    key = blake2b(f"{data.task}\0{fence}".encode(), digest_size=16, person=b"maintenance").digest()
    return NewEvent(
        key=key,
        event_id=event_id(key, data.at),
        tenant=SYSTEM_TENANT,
        stream=KEYS_STREAM,
        type=data.TYPE,
        data=encode_data(data),
        schema_version=data.SCHEMA,
    )


def reason(error: BaseException) -> str:
    """What went wrong, for operators. Of Postgres's errors the message without the values it quotes: its detail holds whole rows."""
    text = str(error.args[0]) if error.args else ""
    if isinstance(error, asyncpg.PostgresError):
        text = f"{error.sqlstate}: " + text.partition(': "')[0]
    return f"{type(error).__name__}: {text}".encode(errors="replace").decode().translate(_UNPRINTABLE)[:500]


_UNPRINTABLE = dict.fromkeys(range(32), " ")
"""The log takes no U+0000 and no record separator."""
