"""What the log says that alerts may be about, and the tenants whose alerts could not be worked out."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from adapters.postgres.pool import Pool
from adapters.postgres.statements import statement

_FACTS = statement("alert_facts")
_FAILED = """
INSERT INTO emberlog.alert_failures AS f (subject, failures, error, retry_at, parked_at)
VALUES ($1, 1, $2, clock_timestamp() + $3::interval, CASE WHEN $4 <= 1 THEN clock_timestamp() END)
ON CONFLICT (subject) DO UPDATE SET failures = f.failures + 1, error = $2, failed_at = clock_timestamp(),
    retry_at = clock_timestamp() + $3::interval * 2 ^ least(f.failures, 12),
    parked_at = CASE WHEN f.failures + 1 >= $4 THEN clock_timestamp() END
RETURNING failures
"""


class Fact(msgspec.Struct, frozen=True):
    """What events of one tenant say, of one model at one provider where they are answers. The positions are 0 where there is none."""

    tenant: str
    model: str | None
    provider: str | None
    failover_model: str | None
    failover_endpoint: str | None
    failover_reason: str | None
    unpriced: int
    priced: int
    decided: int


class Failure(msgspec.Struct, frozen=True):
    """A tenant whose alerts could not be worked out. It is tried again at `retry_at`, or, once it is parked, when somebody says so.

    `due`: now, by the database's clock.
    """

    subject: str
    failures: int
    error: str
    failed_at: datetime
    retry_at: datetime
    parked_at: datetime | None
    due: bool

    @property
    def parked(self) -> bool:
        """Whether it waits for a person."""
        return self.parked_at is not None


async def facts(pool: Pool, after: int, upto: int) -> list[Fact]:
    """What the events in (after, upto] say."""
    return [msgspec.convert(dict(row), Fact) for row in await pool.fetch(_FACTS, after, upto)]


async def failures(pool: Pool) -> list[Failure]:
    """Every tenant that failed last time."""
    rows = await pool.fetch(
        "SELECT *, parked_at IS NULL AND retry_at <= clock_timestamp() AS due FROM emberlog.alert_failures ORDER BY subject"
    )
    return [msgspec.convert(dict(row), Failure) for row in rows]


async def failed(pool: Pool, subject: str, error: str, *, pause: timedelta, tries: int) -> int:
    """Note a failure: tried again after a pause that doubles each time, parked after `tries` of them; returns how many by now."""
    return int(await pool.fetchval(_FAILED, subject, error, pause, tries))


async def succeeded(pool: Pool, subject: str) -> None:
    """It works again."""
    await pool.execute("DELETE FROM emberlog.alert_failures WHERE subject = $1", subject)


async def retry(pool: Pool, subject: str | None) -> list[str]:
    """Let a tenant that failed be tried now, or all of them (None); returns which."""
    rows = await pool.fetch(
        "UPDATE emberlog.alert_failures SET retry_at = clock_timestamp(), parked_at = NULL "
        "WHERE $1::text IS NULL OR subject = $1 RETURNING subject",
        subject,
    )
    return sorted(row["subject"] for row in rows)
