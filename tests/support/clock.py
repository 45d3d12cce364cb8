"""A database whose clock the test sets: what the log's functions take for the time is what a table says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from adapters.postgres.pool import Connection

DAY = 86_400_000_000
"""A day in microseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCK = """
CREATE TABLE public.test_time (at timestamptz NOT NULL);
INSERT INTO public.test_time VALUES (clock_timestamp());
CREATE FUNCTION public.test_clock() RETURNS timestamptz LANGUAGE sql VOLATILE SECURITY DEFINER AS 'SELECT at FROM public.test_time';
"""
_WHO_LOOKS = """
SELECT p.proname, pg_get_functiondef(p.oid) FROM pg_proc p
WHERE p.pronamespace = 'emberlog'::regnamespace AND p.prosrc ~ 'clock_timestamp\\(\\)'
"""


async def install_clock(owner: Connection) -> None:
    """Let every function of the log that looks at the clock look at `set_clock`'s instead."""
    await owner.execute(_CLOCK)
    changed = set()
    for name, definition in await owner.fetch(_WHO_LOOKS):
        await owner.execute(definition.replace("clock_timestamp()", "public.test_clock()"))
        changed.add(name)
    assert {"append", "log_day", "fence_expired"} <= changed, (
        "the log takes its time elsewhere: the clock that is set would not count"
    )


async def set_clock(owner: Connection, micros: int) -> None:
    """It is now so many microseconds since 1970 UTC, and stays so."""
    await owner.execute("UPDATE public.test_time SET at = $1", _EPOCH + timedelta(microseconds=micros))
