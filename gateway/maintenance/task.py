"""What a periodic task is, and how its errors are told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import msgspec


class Task(msgspec.Struct, frozen=True):
    """Work to be done once a `period`, by one process at a time. `run` returns what it did, in numbers; it may be cancelled, and
    may be run again before it is due.
    """

    name: str
    period: timedelta
    run: Callable[[], Awaitable[dict[str, int]]]


def reason(error: BaseException) -> str:
    """What went wrong, for operators. Of Postgres's errors the message without the values it quotes: its detail holds whole rows."""
    text = str(error.args[0]) if error.args else ""
    if isinstance(error, asyncpg.PostgresError):
        text = f"{error.sqlstate}: " + text.partition(': "')[0]
    return f"{type(error).__name__}: {text}".encode(errors="replace").decode().translate(_UNPRINTABLE)[:500]


_UNPRINTABLE = dict.fromkeys(range(32), " ")
"""The log takes no U+0000 and no record separator."""
