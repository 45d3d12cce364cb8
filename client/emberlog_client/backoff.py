"""How long to wait before trying again."""

from __future__ import annotations

import random

BASE = 0.1
CAP = 5.0


def delay(failures: int) -> float:
    """Seconds before the next attempt after so many failures in a row: doubling from 0.1 to 5, half of it jitter."""
    if failures <= 0:
        return 0.0
    full = min(CAP, BASE * 2.0 ** min(failures - 1, 16))
    return full * random.uniform(0.5, 1.0)


def stretched(seconds: float) -> float:
    """At least `seconds`, up to a tenth more, so that those told the same do not all come at once."""
    return seconds * random.uniform(1.0, 1.1)
