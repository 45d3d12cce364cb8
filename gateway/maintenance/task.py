"""What a periodic task is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import msgspec


class Task(msgspec.Struct, frozen=True):
    """Work to be done once a `period`, by one process at a time. `run` returns what it did, in numbers; it may be cancelled, and
    may be run again before it is due.
    """

    name: str
    period: timedelta
    run: Callable[[], Awaitable[dict[str, int]]]
