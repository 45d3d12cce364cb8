"""What a periodic task is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import msgspec


class Task(msgspec.Struct, frozen=True):
    """Work to be done once a `period`, by one process at a time. `run` returns what it did, in numbers; it may be cancelled, and
    may be run again before it is due. A period that can change is asked for each time; None: only when somebody asks for a run.
    """

    name: str
    period: timedelta | Callable[[], timedelta | None]
    run: Callable[[], Awaitable[dict[str, int]]]

    @property
    def every(self) -> timedelta | None:
        """The period as of now."""
        return self.period if isinstance(self.period, timedelta) else self.period()
