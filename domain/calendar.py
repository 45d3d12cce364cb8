"""Calendar windows: the days and months that quotas are counted by, in a tenant's time zone.

A day is written `2026-11-21`, a month `2026-11`. A window begins with its first instant in the zone and ends with the next one's:
days of 23 and 25 hours are days. The zones are those of the IANA database that the machine has.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

WINDOWS = ("day", "month")
_MICROS = 1_000_000
_DAY_MICROS = 86_400 * _MICROS
_NO_PLACES = frozenset({"localtime", "Factory", "posixrules"})
"""Names in the database that mean another zone on another machine, or none."""


@cache
def zones() -> frozenset[str]:
    """The names of the time zones there are."""
    return frozenset(available_timezones()) - _NO_PLACES | {"UTC"}


@cache
def _zone(name: str) -> ZoneInfo | None:
    return ZoneInfo(name) if name != "UTC" and name in zones() else None


@lru_cache(maxsize=64)
def _utc_day(number: int) -> str:
    return date.fromordinal(date(1970, 1, 1).toordinal() + number).isoformat()


def utc_day(at: int) -> str:
    """The day in UTC of `at` (microseconds since the epoch)."""
    return _utc_day(at // _DAY_MICROS)


def period_of(window: str, day: str) -> str:
    """The period of a `day` or `month` window that a day lies in."""
    return day if window == "day" else day[:7]


def first_day(period: str) -> date:
    """The first day of a period."""
    return date.fromisoformat(period if len(period) == 10 else f"{period}-01")


def end_day(period: str) -> date:
    """The first day after a period."""
    first = first_day(period)
    if len(period) == 10:
        return first + timedelta(days=1)
    return date(first.year + first.month // 12, first.month % 12 + 1, 1)


def resets_at(zone: str, period: str) -> str:
    """When a period ends in the zone: ISO 8601, UTC."""
    return _midnight(zone, end_day(period)).astimezone(UTC).isoformat().replace("+00:00", "Z")


def _midnight(zone: str, day: date) -> datetime:
    # Where the clocks skip midnight, this is the instant at which they do.
    return datetime.combine(day, time(0), _zone(zone) or UTC)


class Days:
    """Tells the day of an instant in a zone, and remembers each zone's last day: the next question is most often about it, too.

    A zone that the machine does not know counts as UTC: `zones` is asked before one is configured.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int, str]] = {}

    def day(self, zone: str, at: int) -> str:
        """The day of `at` (microseconds since the epoch)."""
        found = self._last.get(zone)
        if found is not None and found[0] <= at < found[1]:
            return found[2]
        return self._find(zone, at)

    def _find(self, zone: str, at: int) -> str:
        place = _zone(zone)
        if place is None:
            number = at // _DAY_MICROS
            start, end, day = number * _DAY_MICROS, (number + 1) * _DAY_MICROS, _utc_day(number)
        else:
            local = datetime.fromtimestamp(at // _MICROS, place).date()
            start, end = (int(_midnight(zone, d).timestamp()) * _MICROS for d in (local, local + timedelta(days=1)))
            day = local.isoformat()
        if start <= at < end:
            self._last[zone] = (start, end, day)
        return day
