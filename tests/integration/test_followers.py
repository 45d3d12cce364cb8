"""Leases on work that one process does at a time: one owner, a fence that grows, a position that never goes back."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from adapters.postgres import followers
from adapters.postgres.event_log import PostgresEventLog

LEASE, GONE = timedelta(seconds=60), timedelta(seconds=-1)


async def test_work_has_one_owner_until_its_lease_runs_out_or_it_lets_go(log: PostgresEventLog) -> None:
    pool, first, second = log.pool, uuid4(), uuid4()
    assert await followers.take(pool, "work", first, LEASE) == 1
    assert await followers.take(pool, "work", second, LEASE) is None
    assert await followers.take(pool, "work", first, LEASE) is None, "a process that starts anew waits like others"
    assert await followers.take(pool, "other", second, LEASE) == 1
    assert await followers.renew(pool, "work", 1, GONE)
    assert await followers.take(pool, "work", second, LEASE) == 2
    assert not await followers.renew(pool, "work", 1, LEASE), "whoever returns late finds it taken"
    await followers.release(pool, "work", 1)
    assert await followers.take(pool, "work", first, LEASE) is None, "nor can it let go of what is another's"
    await followers.release(pool, "work", 2)
    assert not await followers.renew(pool, "work", 2, LEASE)
    assert await followers.take(pool, "work", first, LEASE) == 3


async def test_how_far_it_has_come_stays_with_the_next_owner_and_never_goes_back(log: PostgresEventLog) -> None:
    pool = log.pool
    assert await followers.position(pool, "work") == 0
    fence = await followers.take(pool, "work", uuid4(), LEASE)
    assert fence is not None
    for position, stands_at in ((7, 7), (3, 7), (9, 9)):
        assert await followers.renew(pool, "work", fence, LEASE, position)
        assert await followers.position(pool, "work") == stands_at
    await followers.release(pool, "work", fence)
    assert await followers.take(pool, "work", uuid4(), LEASE) is not None
    assert await followers.position(pool, "work") == 9
