"""The header `retry-after`: seconds, or a date."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_SECONDS = 24 * 3600.0


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait from `now` (since the epoch), at most a day; None where the header is missing or says nothing."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), MAX_SECONDS)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return min(max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now), MAX_SECONDS)
