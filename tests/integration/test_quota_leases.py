"""Leases of quotas on a real Postgres: granted to the limit and no further, whoever asks at once, dies or comes late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from adapters.postgres import quota_leases
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.maintenance import sweep_instances
from adapters.postgres.pool import Connection, Pool, open_pool
from domain.ports.event_log import InstanceFenced, LogUnavailable
from domain.quota_lease import Answer, Ask, Lease
from domain.quotas import Quota, QuotaKey
from projections.quota import QUOTA
from projections.requests import REQUESTS
from tests.support.projecting import Recorded, failed, generated, write_log
from tests.support.views import fold_to

DAY, MONTH = "2026-11-21", "2026-11"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TOKENS = QuotaKey("tenant", "", "tokens", "day")


def ask(
    limit: int = 1000, *, key: QuotaKey = TOKENS, position: int = 0, holds: int = 0, hard: bool = True, **more: int
) -> Ask:
    """An ask of tenant `t`. The quota is there `since` its position, unless told otherwise."""
    quota = Quota(limit, hard, position, since=more.pop("since", position))
    lease = Lease("t", key, DAY if key.window == "day" else MONTH, quota)
    return Ask(lease, position, holds, more.pop("used", 0), **{"least": more.get("need", 0), **more})


class Process:
    """An instance that asks; its calls are numbered."""

    def __init__(self, pool: Pool, instance: UUID) -> None:
        self.pool = pool
        self.instance = str(instance)
        self.serial = 0

    async def lease(self, *asks: Ask) -> list[Answer]:
        self.serial += 1
        return await quota_leases.lease(self.pool, self.instance, self.serial, asks)


@pytest.fixture
async def pool(app_dsn: str) -> AsyncIterator[Pool]:
    made = await open_pool(app_dsn, "quota tests", max_size=8)
    yield made
    made.terminate()


@pytest.fixture
async def process(log: PostgresEventLog, pool: Pool, owner: Connection) -> Process:
    """One whose windows can be counted: the view has a cursor."""
    await fold_to(owner, QUOTA, 0)
    return Process(pool, await log.register_instance("one", 600))


async def another(log: PostgresEventLog, pool: Pool) -> Process:
    return Process(pool, await log.register_instance("another", 600))


async def state(owner: Connection) -> list[tuple[Any, ...]]:
    """(limit, granted, used) of every window, which must be the sums of its leases."""
    rows = await owner.fetch(
        "SELECT w.limit_value, w.granted, w.used, coalesce(sum(l.granted), 0) AS g, coalesce(sum(l.used), 0) AS u FROM quota.windows w "
        "LEFT JOIN quota.leases l USING (tenant, scope, subject, unit, period) GROUP BY w.tenant, w.scope, w.subject, w.unit, w.period "
        "ORDER BY w.tenant, w.scope, w.subject, w.unit, w.period"
    )
    for row in rows:
        assert (row["granted"], row["used"]) == (row["g"], row["u"]), "a window is not the sum of its leases"
    return [(row["limit_value"], row["granted"], row["used"]) for row in rows]


async def test_a_lease_is_the_need_and_at_most_an_eighth_of_what_would_remain(
    process: Process, owner: Connection
) -> None:
    [first] = await process.lease(ask(need=200, extra=1000))
    assert (first.given, first.granted, first.limit, first.behind) == (300, 300, 1000, False)
    [second] = await process.lease(ask(holds=300, need=100, extra=10))
    assert second.given == 110
    assert await state(owner) == [(1000, 410, 0)]


async def test_more_than_remains_is_refused_and_part_of_it_granted_where_part_is_of_use(process: Process) -> None:
    [refused] = await process.lease(ask(100, need=101, least=101))
    assert refused.given == 0
    [part] = await process.lease(ask(100, need=300, least=40, extra=50))
    assert part.given == 100
    [none] = await process.lease(ask(100, holds=100, need=1))
    assert none.given == 0


async def test_what_is_given_back_is_there_for_others(
    process: Process, log: PostgresEventLog, owner: Connection
) -> None:
    other = await another(log, process.pool)
    assert (await process.lease(ask(100, need=100)))[0].given == 100
    assert (await other.lease(ask(100, need=60)))[0].given == 0
    await process.lease(ask(100, holds=30, used=30))
    assert (await other.lease(ask(100, need=60)))[0].given == 60
    assert await state(owner) == [(100, 90, 30)]


async def test_processes_that_ask_at_once_get_the_limit_together_and_not_a_token_more(
    process: Process, log: PostgresEventLog, owner: Connection
) -> None:
    month, money = QuotaKey("tenant", "", "tokens", "month"), QuotaKey("agent", "a", "nano_usd", "month")

    async def grab() -> dict[QuotaKey, int]:
        me = await another(log, process.pool)
        held = dict.fromkeys((TOKENS, month, money), 0)
        for _ in range(12):
            keys = list(held) if me.serial % 2 else list(held)[::-1]  # whatever the order, nobody waits in a circle
            answers = await me.lease(*(ask(1000, key=key, holds=held[key], need=17, extra=9) for key in keys))
            for key, answer in zip(keys, answers, strict=True):
                held[key] += answer.given
        return held

    found = await asyncio.gather(*(grab() for _ in range(8)))
    for key in (TOKENS, month, money):
        total = sum(held[key] for held in found)
        assert 1000 - 17 < total <= 1000
    assert all(granted <= 1000 for _, granted, _ in await state(owner))


async def test_the_newest_limit_that_any_process_has_seen_binds_all(
    process: Process, log: PostgresEventLog, owner: Connection
) -> None:
    await write_log(owner, [Recorded(NOW, "t", failed(str(n))) for n in range(9)])
    await fold_to(owner, QUOTA, 9)
    other = await another(log, process.pool)
    assert (await process.lease(ask(1000, position=3, need=400)))[0].given == 400
    lowered = (await other.lease(ask(500, position=7, need=200)))[0]
    assert (lowered.given, lowered.limit) == (0, 500)
    behind = (await process.lease(ask(1000, position=3, holds=400, need=200)))[0]
    assert (behind.given, behind.limit) == (0, 500)
    assert (await other.lease(ask(2000, position=9, need=200)))[0].given == 200


async def test_a_soft_quota_counts_and_grants_nothing(process: Process, owner: Connection) -> None:
    [answer] = await process.lease(ask(10, hard=False, holds=50, used=40))
    assert (answer.given, answer.granted, answer.used) == (0, 50, 40)


async def test_a_call_that_comes_late_changes_nothing(process: Process, owner: Connection) -> None:
    await process.lease(ask(need=100))
    await process.lease(ask(holds=100, need=50))
    with pytest.raises(LogUnavailable):
        await quota_leases.lease(process.pool, process.instance, 1, [ask(holds=0)])
    assert await state(owner) == [(1000, 150, 0)]


async def test_the_answer_that_was_lost_costs_nothing(process: Process, owner: Connection) -> None:
    await process.lease(ask(need=100, extra=100))
    [again] = await process.lease(ask(need=100))  # it never heard of what it was granted
    assert again.given == 100
    assert await state(owner) == [(1000, 100, 0)]


async def test_what_was_used_before_the_quota_was_set_is_counted_first(
    process: Process, log: PostgresEventLog, owner: Connection
) -> None:
    other, gone = await another(log, process.pool), "9" * 8
    history = [
        generated("1", billed_tokens=300, instance=other.instance, day=DAY),
        generated("2", billed_tokens=100, instance=gone, day=DAY),
        generated("3", billed_tokens=50, day=DAY),  # of a release before quotas
        generated("4", billed_tokens=7, instance=gone, day="2026-11-20"),
    ]
    head = await write_log(owner, [Recorded(NOW, "t", data) for data in history])
    [behind] = await process.lease(ask(position=head, need=1))
    assert (behind.behind, behind.given) == (True, 0)
    await fold_to(owner, QUOTA, head)
    [answer] = await process.lease(ask(position=head, holds=20, need=600))
    assert (answer.behind, answer.given, answer.granted) == (False, 0, 470)
    assert (await process.lease(ask(position=head, holds=20, need=530)))[0].given == 530
    [joined] = await other.lease(ask(position=head, holds=310, used=305))
    assert joined.granted == 1010, "what was used and reserved before the quota was heard of is forced in"
    assert (await other.lease(ask(position=head, holds=310, need=1)))[0].given == 0


@pytest.mark.parametrize(
    ("key", "used"),
    [
        (QuotaKey("tenant", "", "tokens", "month"), 111),
        (QuotaKey("tenant", "", "requests", "day"), 2),
        (QuotaKey("tenant", "", "nano_usd", "month"), 600),
        (QuotaKey("model", "m2", "tokens", "month"), 10),
        (QuotaKey("agent", "b", "tokens", "day"), 0),
        (QuotaKey("agent_own", "b", "nano_usd", "month"), 200),
    ],
    ids=str,
)
async def test_each_scope_unit_and_window_counts_its_own(
    process: Process, owner: Connection, key: QuotaKey, used: int
) -> None:
    history = [
        generated("1", billed_tokens=1, nano_usd=100, instance="i", day=DAY),
        generated("2", billed_tokens=10, nano_usd=300, model="m2", instance="i", day=DAY),
        generated("3", billed_tokens=100, nano_usd=200, agent="b", instance="i", day="2026-11-01"),
        generated("4", billed_tokens=1000, nano_usd=800, instance="i", day="2026-10-31"),
        failed("5", instance="i", day=DAY),
    ]
    head = await write_log(owner, [Recorded(NOW, "t", data) for data in history])
    await fold_to(owner, QUOTA, head)
    [answer] = await process.lease(ask(10_000, key=key, position=head))
    assert (answer.granted, answer.used) == (used, used)


async def test_a_dead_process_leaves_what_it_used_and_frees_the_rest(
    process: Process, log: PostgresEventLog, owner: Connection
) -> None:
    dead, other = UUID(process.instance), await another(log, process.pool)
    await process.lease(ask(need=1000))
    head = await write_log(owner, [Recorded(NOW, "t", generated("1", billed_tokens=40, instance=str(dead), day=DAY))])
    assert await log.fence_instance(dead) == head
    with pytest.raises(InstanceFenced):  # it may have forgotten what is in the log all the same
        await process.lease(ask(holds=0))
    assert await state(owner) == [(1000, 1000, 0)]
    assert (await other.lease(ask(need=900)))[0].given == 0
    assert not await quota_leases.close_instance(process.pool, str(dead)), "the view has not folded its last event"
    assert (await quota_leases.unclosed(process.pool, 0))[1] == []
    await fold_to(owner, QUOTA, head)
    since, found = await quota_leases.unclosed(process.pool, 0)
    assert found == [str(dead)]
    assert await quota_leases.close_instance(process.pool, str(dead))
    assert await state(owner) == [(1000, 40, 40)]
    assert (await other.lease(ask(need=960)))[0].given == 960
    assert await quota_leases.unclosed(process.pool, since) == (head, [])
    with pytest.raises(InstanceFenced):
        await process.lease(ask(holds=1000, need=1))
    assert await state(owner) == [(1000, 1000, 40)]


async def test_a_process_that_died_before_it_heard_of_the_quota_is_counted_all_the_same(
    process: Process, log: PostgresEventLog, owner: Connection
) -> None:
    dead = await log.register_instance("died early", 600)
    await process.lease(ask(need=100))
    head = await write_log(owner, [Recorded(NOW, "t", generated("1", billed_tokens=40, instance=str(dead), day=DAY))])
    await log.fence_instance(dead)
    await fold_to(owner, QUOTA, head)
    assert await quota_leases.close_instance(process.pool, str(dead))
    assert await state(owner) == [(1000, 140, 40)]


async def test_a_process_fenced_while_it_asks_is_closed_after_that_or_granted_nothing(
    process: Process, log: PostgresEventLog, owner: Connection
) -> None:
    async def end(instance: str) -> bool:
        await log.fence_instance(UUID(instance))
        return await quota_leases.close_instance(process.pool, instance)

    for _ in range(10):
        doomed = await another(log, process.pool)
        asked, closed = await asyncio.gather(doomed.lease(ask(need=50)), end(doomed.instance), return_exceptions=True)
        assert closed is True
        assert isinstance(asked, list | InstanceFenced | LogUnavailable), asked
        assert await state(owner) in ([], [(1000, 0, 0)]), "what was granted to the dead is free again"


async def test_a_quota_that_was_removed_and_set_again_is_granted_once_what_was_used_meanwhile_is_counted(
    process: Process, log: PostgresEventLog, owner: Connection
) -> None:
    other = await another(log, process.pool)
    await process.lease(ask(1000, position=0, need=5))
    await process.lease(ask(1000, position=0))  # removed: a last report, and nothing more is said
    used = [
        Recorded(NOW, "t", generated("1", billed_tokens=40, instance=other.instance, day=DAY)),  # unasked
        Recorded(NOW, "t", failed("2")),  # the quota is set again here, and the other process is paused
    ]
    head = await write_log(owner, used)
    [answer] = await process.lease(ask(60, position=head, need=30))
    assert (answer.behind, answer.given) == (True, 0)
    await fold_to(owner, QUOTA, head)
    [answer] = await process.lease(ask(60, position=head, need=30))
    assert (answer.behind, answer.given) == (False, 0), "40 of 60 are used"
    [answer] = await process.lease(ask(60, position=head, need=20))
    assert answer.given == 20
    [raised] = await process.lease(ask(90, position=head + 7, since=head, holds=20, need=30))
    assert (raised.behind, raised.given) == (False, 30), "for a change nothing is waited for"
    assert await state(owner) == [(90, 90, 40)]


async def test_one_that_held_thousands_of_leases_is_closed_within_the_time_that_a_call_has(
    process: Process, log: PostgresEventLog, owner: Connection, app_dsn: str
) -> None:
    agents, place = 4000, "'t', 'agent_own', 'agent-' || n, 'nano_usd', '2026-11'"
    await owner.execute(
        "INSERT INTO projections.quota SELECT 't', date '2026-11-01' + d, 'agent-' || a, 'm', $1, 5, 1, 10, 0 "
        "FROM generate_series(0, 2) d, generate_series(1, $2::int) a", process.instance, agents,
    )  # fmt: skip
    await owner.execute(
        "INSERT INTO quota.windows (tenant, scope, subject, unit, period, limit_value, hard, limit_position, counted, granted, used) "
        f"SELECT {place}, 1000, true, 1, true, 90, 20 FROM generate_series(1, $1::int) n", agents,
    )  # fmt: skip
    await owner.execute(
        f"INSERT INTO quota.leases SELECT {place}, $2, 90, 20 FROM generate_series(1, $1::int) n", agents, process.instance
    )  # fmt: skip
    await log.fence_instance(UUID(process.instance))
    limited = await open_pool(app_dsn, "quota", max_size=1, statement_timeout=5.0)
    try:
        assert await quota_leases.close_instance(limited, process.instance)
    finally:
        limited.terminate()
    assert await state(owner) == [(1000, 30, 30)] * agents


async def test_an_instance_that_holds_leases_is_not_forgotten(
    process: Process, log: PostgresEventLog, owner: Connection
) -> None:
    await fold_to(owner, REQUESTS, 0)
    await process.lease(ask(need=100))
    await log.fence_instance(UUID(process.instance))
    assert await sweep_instances(log.pool, timedelta(0)) == 0
    never = await another(log, process.pool)  # it held none, and may have used what another's quota counts
    await log.fence_instance(UUID(never.instance))
    assert await sweep_instances(log.pool, timedelta(0)) == 0
    assert await quota_leases.close_instance(process.pool, never.instance)
    assert await sweep_instances(log.pool, timedelta(0)) == 1
    assert await quota_leases.close_instance(process.pool, process.instance)
    assert await sweep_instances(log.pool, timedelta(0)) == 1


async def test_drift_is_found_and_named_by_how_much(process: Process, log: PostgresEventLog, owner: Connection) -> None:
    head = await write_log(
        owner, [Recorded(NOW, "t", generated("1", billed_tokens=40, instance=process.instance, day=DAY))]
    )
    await fold_to(owner, QUOTA, head)
    await process.lease(ask(holds=40, used=40, need=10))
    assert await quota_leases.drift(process.pool, date(2026, 11, 20)) == []
    await owner.execute("UPDATE quota.leases SET granted = 33")
    [found] = await quota_leases.drift(process.pool, date(2026, 11, 20))
    assert (found.instance, found.off) == (process.instance, 7)
    await log.fence_instance(UUID(process.instance))
    assert await quota_leases.close_instance(process.pool, process.instance)
    assert await quota_leases.drift(process.pool, date(2026, 11, 20)) == []
    await owner.execute("UPDATE quota.leases SET granted = 41")
    [found] = await quota_leases.drift(process.pool, date(2026, 11, 20))
    assert found.off == 1


@pytest.mark.parametrize("scope", ["tenant", "model", "agent", "agent_own"])
async def test_what_one_that_died_used_unseen_is_counted_when_leases_and_log_are_compared(
    process: Process, log: PostgresEventLog, owner: Connection, scope: str
) -> None:
    event = generated("1", agent="a", model="m", billed_tokens=40, instance="", day=DAY)
    subject = {"tenant": "", "model": "m"}.get(scope, "a")
    for unit, window in (("tokens", "day"), ("requests", "month")):
        other = QuotaKey("model" if scope == "tenant" else scope, f"{subject}2", unit, window)
        await process.lease(ask(key=QuotaKey(scope, subject, unit, window)), ask(key=other))
    dead = await log.register_instance("dead", 600)
    await log.fence_instance(dead)
    assert await quota_leases.close_instance(process.pool, str(dead)), "a call that makes a window hid it"
    head = await write_log(owner, [Recorded(NOW, "t", msgspec.structs.replace(event, instance=str(dead)))])
    await fold_to(owner, QUOTA, head)
    found = await quota_leases.drift(process.pool, date(2026, 11, 20))
    off = {(f.subject, f.unit, f.instance): f.off for f in found}
    assert off == {(subject, "tokens", str(dead)): 40, (subject, "requests", str(dead)): 1}
    for one in found:
        await quota_leases.count_window(process.pool, one)
    assert await quota_leases.drift(process.pool, date(2026, 11, 20)) == []
    assert sorted(await state(owner)) == [(1000, 0, 0), (1000, 0, 0), (1000, 1, 1), (1000, 40, 40)]


async def test_gateways_of_a_release_before_quotas_are_counted_again_and_again(
    process: Process, owner: Connection
) -> None:
    await process.lease(ask())
    head = await write_log(owner, [Recorded(NOW, "t", generated("1", billed_tokens=40, day=DAY))])
    await fold_to(owner, QUOTA, head)
    assert await quota_leases.recount(process.pool, date(2026, 11, 1)) == 1
    assert await state(owner) == [(1000, 40, 40)]


async def test_windows_long_past_are_forgotten_with_their_leases(process: Process, owner: Connection) -> None:
    await process.lease(ask(need=5))
    assert await quota_leases.prune(process.pool, date(2026, 12, 1)) == 0
    assert await quota_leases.prune(process.pool, date(2027, 2, 1)) == 1
    assert await owner.fetchval("SELECT count(*) FROM quota.leases") == 0
