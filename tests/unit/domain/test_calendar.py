"""Calendar windows: days of a zone, short and long ones, and when they end."""

from __future__ import annotations

from datetime import datetime

import pytest

from domain.calendar import Days, end_day, first_day, period_of, resets_at, utc_day, zones


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("zone", "at", "day"),
    [
        ("UTC", "2026-11-21T23:59:59+00:00", "2026-11-21"),
        ("UTC", "2026-11-22T00:00:00+00:00", "2026-11-22"),
        ("Asia/Tokyo", "2026-11-21T15:00:00+00:00", "2026-11-22"),
        ("America/Los_Angeles", "2026-11-22T07:59:59+00:00", "2026-11-21"),
        ("Asia/Kathmandu", "2026-11-21T18:14:59+00:00", "2026-11-21"),
        ("Asia/Kathmandu", "2026-11-21T18:15:00+00:00", "2026-11-22"),
        ("No/Such_Zone", "2026-11-21T23:59:59+00:00", "2026-11-21"),
    ],
)
def test_the_day_is_that_of_the_zone(zone: str, at: str, day: str) -> None:
    days = Days()
    assert days.day(zone, micros(at)) == day
    assert days.day(zone, micros(at)) == day, "the same when asked again"


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/Sao_Paulo", "Asia/Beirut", "Pacific/Apia", "Australia/Lord_Howe"]
)
@pytest.mark.parametrize("year", [2011, 2018, 2026])
def test_every_hour_of_a_year_has_the_day_that_the_clock_on_the_wall_shows(zone: str, year: int) -> None:
    from zoneinfo import ZoneInfo

    days = Days()
    for hour in range(366 * 24):
        at = micros(f"{year}-01-01T00:00:00+00:00") + hour * 3_600_000_000
        assert days.day(zone, at) == datetime.fromtimestamp(at // 1_000_000, ZoneInfo(zone)).date().isoformat()


def test_a_window_ends_when_the_next_begins_in_its_zone() -> None:
    assert resets_at("UTC", "2026-11-21") == "2026-11-22T00:00:00Z"
    assert resets_at("UTC", "2026-12") == "2027-01-01T00:00:00Z"
    assert resets_at("Europe/Berlin", "2026-03-29") == "2026-03-29T22:00:00Z", "a day of 23 hours"
    assert resets_at("Asia/Tokyo", "2026-11") == "2026-11-30T15:00:00Z"


def test_a_window_whose_midnight_the_clocks_skip_ends_as_they_do() -> None:
    assert resets_at("Asia/Beirut", "2026-03-28") == "2026-03-28T22:00:00Z"
    days = Days()
    assert days.day("Asia/Beirut", micros("2026-03-28T21:59:59+00:00")) == "2026-03-28"
    assert days.day("Asia/Beirut", micros("2026-03-28T22:00:00+00:00")) == "2026-03-29"


def test_periods_name_their_days() -> None:
    assert (period_of("day", "2026-11-21"), period_of("month", "2026-11-21")) == ("2026-11-21", "2026-11")
    assert (first_day("2026-02").isoformat(), end_day("2026-02").isoformat()) == ("2026-02-01", "2026-03-01")
    assert end_day("2026-12-31").isoformat() == "2027-01-01"
    assert utc_day(micros("2026-11-21T23:59:59+00:00")) == "2026-11-21"
    assert utc_day(0) == "1970-01-01"


def test_the_zones_are_places_and_not_the_machine_s_own() -> None:
    assert {"UTC", "Europe/Berlin"} <= zones()
    assert not {"localtime", "Factory", ""} & zones()
