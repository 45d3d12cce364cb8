"""When a delivery is tried again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta

SCHEDULE = (5.0, 30.0, 120.0, 600.0, 3600.0, 21600.0, 86400.0)
"""The longest pause after each try, seconds; after the last try there is none."""


def pause(attempts: int, retry_after: float | None = None, schedule: Sequence[float] = SCHEDULE) -> timedelta | None:
    """How long to wait after a try that failed, where `attempts` tries came before it; None: that was the last.

    Anything up to the pause of the schedule (full jitter), so that what failed together does not come back together; no less than the
    receiver asked for.
    """
    if attempts >= len(schedule):
        return None
    return timedelta(seconds=max(random.uniform(0.0, schedule[attempts]), retry_after or 0.0))
