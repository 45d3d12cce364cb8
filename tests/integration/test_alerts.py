"""Alerts over a real log and its views: raised, cleared, told, and what happens where that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from adapters.alertmanager import Alertmanager
from adapters.postgres import alert_facts
from adapters.postgres.event_log import PostgresEventLog
from domain.alerts import alert_stream, close, decide_acknowledge, decide_silence
from domain.catalogue import Endpoint
from domain.endpoint_alerts import endpoint_conditions
from domain.events import (
    AgentRegistered,
    BreakerChanged,
    Failover,
    ModelRegistered,
    ModelSpec,
    ModelStateChanged,
    Preferences,
    QuotaRemoved,
    TenantConfigured,
    TenantCreated,
    TenantModelConfigured,
)
from domain.ports.event_log import LogUnavailable
from gateway.alerts import occurrences, watch
from gateway.alerts.delivery import AlertmanagerPost, UnwantedAlerts
from gateway.alerts.evaluator import TRIES, Evaluator
from projections.cursor import Standing
from tests.support.projecting import Connection
from tests.support.receiver import receiver
from tests.support.waiting import until
from tests.support.watchtower import NOW, Watchtower, Working, quota, watchtower

LATER = datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()


@pytest.fixture
async def tower(log: PostgresEventLog, instance: UUID, app_dsn: str) -> AsyncIterator[Watchtower]:
    async with watchtower(log, instance, app_dsn) as made:
        yield made


async def test_use_raises_each_level_as_it_is_passed_and_the_new_month_clears_them(tower: Watchtower) -> None:
    async with Working(tower.watch()):
        await tower.log("acme", quota(100))
        await tower.use(85)
        await tower.see("quota_warning")
        await tower.use(10)
        await tower.see("quota_warning", "quota_high")
        await tower.use(10)
        alerts = await tower.see("quota_warning", "quota_high", "quota_exceeded")
        assert (alerts[0].used, alerts[0].limit, alerts[0].labels["period"], alerts[0].severity) == (
            105,
            100,
            "2026-11",
            "critical",
        )
        tower.now = LATER
        await tower.use(1, day="2026-12-01")
        await tower.see()
    assert {a.reason for a in await tower.alerts()} == {"reset"}
    raised = [e for e in await tower.home.log.read(0, 100) if e.type == "alert.raised"]
    assert len(raised) == 3, "each once"
    assert {e.stream for e in raised} == {"tenant/acme"}


async def test_a_changed_limit_is_evaluated_by_itself(tower: Watchtower) -> None:
    async with Working(tower.watch()):
        await tower.use(95)
        await tower.log("acme", quota(100))
        await tower.see("quota_high")
        await tower.log("acme", quota(1000))
        await tower.see()
        await tower.log("acme", quota(90))
        await tower.see("quota_exceeded")
        await tower.log("acme", QuotaRemoved(scope="tenant", unit="tokens", window="month"))
        await tower.see()
    assert {(a.kind, a.reason, a.episode) for a in await tower.alerts()} == {
        ("quota_high", "raised", 1), ("quota_exceeded", "removed", 1),
    }  # fmt: skip


async def test_every_scope_unit_and_window_is_counted_by_its_own(tower: Watchtower) -> None:
    await tower.log(
        "acme",
        quota(10, scope="model", subject="m", window="day"),
        quota(10, scope="model", subject="other"),
        quota(10, scope="agent", subject="a", unit="nano_usd"),
        quota(3, unit="requests"),
        AgentRegistered(agent="a", preferences=Preferences(monthly_budget_nano_usd=10)),
        AgentRegistered(agent="b", preferences=Preferences(monthly_budget_nano_usd=10)),
    )
    await tower.use(5)
    await tower.use(4)
    await tower.use(1, day="2026-11-20")  # another day, the same month
    await tower.look()
    found = {
        (a.labels["scope"], a.labels.get("subject"), a.labels["unit"], a.kind)
        for a in await tower.alerts(still_open=True)
    }
    assert found == {
        ("model", "m", "tokens", "quota_warning"),
        ("agent", "a", "nano_usd", "quota_exceeded"),
        ("tenant", None, "requests", "quota_exceeded"),
        ("agent_own", "a", "nano_usd", "quota_exceeded"),
    }


async def test_the_window_is_that_of_the_tenants_zone(tower: Watchtower) -> None:
    tower.now = datetime(2026, 11, 21, 23, tzinfo=UTC).timestamp()  # the 22nd in Kathmandu
    await tower.log("acme", TenantConfigured(time_zone="Asia/Kathmandu"), quota(10, window="day"))
    await tower.use(10)
    assert await tower.look() == []
    await tower.use(10, day="2026-11-22")
    assert await tower.look() == ["quota_exceeded"]


async def test_whoever_evaluates_at_once_raises_it_once_and_one_line_of_the_log_says_so(tower: Watchtower) -> None:
    await tower.log("acme", quota(10))
    await tower.use(10)
    with capture_logs() as lines:
        await asyncio.gather(*(tower.evaluator.evaluate_now("acme") for _ in range(5)))
    [said] = [line for line in lines if line["event"] == "alert_raised"]
    assert (said["log_level"], said["kind"], said["tenant"]) == ("error", "quota_exceeded", "acme")
    assert await tower.look() == ["quota_exceeded"]
    assert sum(e.type == "alert.raised" for e in await tower.home.log.read(0, 100)) == 1


async def test_a_tenant_hears_of_a_deprecated_model_that_it_has_and_operators_of_how_many(tower: Watchtower) -> None:
    await tower.log(
        "_system",
        ModelRegistered(
            model="m", spec=ModelSpec(version="1", dimensions=3, max_tokens=9), offerings=[], state="available"
        ),
    )
    await tower.log("other", TenantCreated(tenant="other"))
    await tower.log("acme", TenantModelConfigured(model="m"))
    async with Working(tower.watch()):
        await tower.log(
            "_system", ModelStateChanged(model="m", state="deprecated", previous="available", removed_at=int(LATER))
        )
        mine, ours = sorted(
            await tower.see("model_deprecated", "model_deprecated"), key=lambda a: a.tenant, reverse=True
        )
        assert (mine.tenant, ours.tenant, ours.used) == ("acme", "_system", 1)
        assert "removed on 2026-12-01" in mine.summary
        await tower.log("_system", ModelStateChanged(model="m", state="available", previous="deprecated"))
        await tower.see()


async def test_an_unknown_price_is_told_until_it_is_known(tower: Watchtower) -> None:
    async with Working(tower.watch()):
        await tower.use(1, nano_usd=None)
        await tower.use(1)
        await tower.see()
        await tower.use(1, nano_usd=None)
        [alert] = await tower.see("price_unknown")
        assert (alert.tenant, alert.labels) == ("acme", {"model": "m", "provider": "p"})
        await tower.use(1)
        await tower.see()


async def test_a_failover_is_told_until_it_has_been_quiet(tower: Watchtower) -> None:
    async with Working(tower.watch()):
        await tower.use(1, failover=Failover(model="first", endpoint="main", reason="circuit_open"))
        [alert] = await tower.see("failover")
        assert alert.labels == {"model": "first", "endpoint": "main"}
        assert "circuit_open" in alert.summary
        tower.now += occurrences.QUIET_SECONDS + 1
        await tower.see()


async def test_a_view_that_lags_or_halts_and_drift_are_told_to_operators(tower: Watchtower) -> None:
    def standing(seconds: float, error: str | None = None) -> Standing:
        return Standing(1, 5, 9, seconds, seconds, 1, False, error=error)

    async with Working(tower.watch()):
        tower.standings = {"usage": standing(61), "requests": standing(0, "no"), "cost": standing(59)}
        tower.drift = 7
        alerts = await tower.see("projection_lag", "projection_lag", "quota_drift")
        assert {a.labels.get("projection") for a in alerts} == {"usage", "requests", None}
        assert {a.tenant for a in alerts} == {"_system"}
        tower.standings = {"usage": standing(30), "requests": standing(0)}
        tower.drift = 0
        [alert] = await tower.see("projection_lag")
        assert alert.labels == {"projection": "usage"}, "over is over when it has caught up"
        tower.standings = {"usage": standing(0)}
        await tower.see()


async def test_a_circuit_that_stays_open_is_told_to_whom_its_endpoint_belongs_until_it_is_closed(
    tower: Watchtower,
) -> None:
    serving = [Endpoint("main", "openai", {}), Endpoint("own", "openai", {}, tenant="acme")]
    ailing: dict[str, tuple[str, float | None]] = {}
    opened = BreakerChanged("main", "open", "closed", "failures", int((NOW - 5) * 1_000_000), 5)
    await tower.log("_system", opened)
    await tower.log("acme", msgspec.structs.replace(opened, endpoint="own"))
    known = tower.home.plane.endpoints
    async with Working(tower.watch(endpoints=lambda now: endpoint_conditions(known, serving, ailing, now))):
        alerts = await tower.see("circuit_open", "circuit_open")
        assert {(a.tenant, a.labels["endpoint"], a.severity) for a in alerts} == {
            ("_system", "main", "critical"),
            ("acme", "own", "critical"),
        }
        await tower.log("_system", msgspec.structs.replace(opened, state="closed"))
        [alert] = await tower.see("circuit_open")
        assert alert.labels["endpoint"] == "own"
        ailing["main"] = ("2 checks in a row failed (connection)", NOW - 60)
        await tower.log("acme", msgspec.structs.replace(opened, endpoint="own", state="closed"))
        [alert] = await tower.see("endpoint_unhealthy")
        assert alert.summary == "the endpoint main is unhealthy: 2 checks in a row failed (connection)"
        ailing.clear()
        await tower.see()


async def test_one_of_two_watches_works_and_the_other_takes_over(tower: Watchtower) -> None:
    first, second = tower.watch(), tower.watch()
    await tower.log("acme", quota(100))
    async with Working(second):
        async with Working(first):
            await tower.use(85)
            await tower.see("quota_warning")
            assert first.leading != second.leading
        await tower.use(10)
        await tower.see("quota_warning", "quota_high")
    assert await tower.home.log.pool.fetchval("SELECT position > 0 FROM emberlog.followers WHERE name = 'alerts'")


async def test_what_fails_for_a_tenant_is_an_alert_tried_again_parked_and_let_go(
    tower: Watchtower, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tower.log("acme", quota(10))
    await tower.log("other", TenantCreated(tenant="other"), quota(10))
    await tower.use(10)
    await tower.use(10, "other")
    sound = Evaluator._conditions

    def failing(self: Evaluator, tenant: str, used: Any, day: str) -> Any:
        if tenant == "acme":
            raise ValueError("no such thing")
        return sound(self, tenant, used, day)

    monkeypatch.setattr(Evaluator, "_conditions", failing)
    await tower.evaluator.evaluate(["acme", "other"])
    await tower.see("evaluation_failed", "quota_exceeded")
    [failure] = await alert_facts.failures(tower.home.log.pool)
    assert (failure.subject, failure.failures, failure.error, failure.parked) == (
        "acme",
        1,
        "ValueError: no such thing",
        False,
    )
    await tower.evaluator.evaluate(["acme"])
    assert (await alert_facts.failures(tower.home.log.pool))[0].failures == 1, "not before it is due"
    for _ in range(TRIES - 1):
        await tower.home.log.pool.execute("UPDATE emberlog.alert_failures SET retry_at = '-infinity'")
        await tower.evaluator.evaluate(["acme"])
    monkeypatch.setattr(Evaluator, "_conditions", sound)
    await tower.home.log.pool.execute("UPDATE emberlog.alert_failures SET retry_at = '-infinity'")
    await tower.evaluator.evaluate(["acme"])
    assert (await alert_facts.failures(tower.home.log.pool))[0].parked
    assert await alert_facts.retry(tower.home.log.pool, "acme") == ["acme"]
    await tower.evaluator.evaluate(["acme"])
    await tower.see("quota_exceeded", "quota_exceeded")
    assert await alert_facts.failures(tower.home.log.pool) == []


async def test_the_alertmanager_is_told_what_is_open_and_what_was_resolved_but_nothing_silenced(
    tower: Watchtower,
) -> None:
    await tower.log("acme", quota(10), quota(10, unit="requests"), quota(10, unit="nano_usd"))
    await tower.use(10)
    await tower.look()
    tokens, money = sorted(await tower.alerts(), key=lambda a: a.labels["unit"], reverse=True)
    async with receiver() as made:
        manager = Alertmanager(made.url.partition("/hooks")[0])
        clock = lambda: datetime.now(UTC).timestamp()  # noqa: E731
        post = AlertmanagerPost(tower.home.log.pool, manager, lambda alert: f"http://here/{alert}", clock)
        assert await post.post()
        await tower.home.take(
            alert_stream("acme"), lambda _: decide_silence(money, int(clock()) + 600, clock(), "key:x")
        )
        closed = close(tokens, clock(), "key:x")
        assert closed is not None
        await tower.home.append([closed])
        await tower.alerts()
        assert await post.post()
        made.answer = lambda _: web.Response(status=500)
        assert not await post.post()
        assert post.failures == 1
        await manager.close()
    first, second, _ = ([(a["labels"]["unit"], a) for a in json.loads(m.body)] for m in made.messages)
    assert {m.path for m in made.messages} == {"/api/v2/alerts"}
    assert sorted(unit for unit, _ in first) == ["nano_usd", "tokens"]
    [(unit, resolved)] = second
    assert unit == "tokens"
    assert (
        datetime.fromisoformat(resolved["endsAt"]) <= datetime.now(UTC) < datetime.fromisoformat(first[0][1]["endsAt"])
    )
    labels = {"alertname": "quota_exceeded", "severity": "critical", "tenant": "acme", "scope": "tenant", "window": "month",
              "period": "2026-11", "unit": "tokens", "alert": tokens.alert}  # fmt: skip
    assert resolved["labels"] == labels
    assert resolved["annotations"]["limit"] == "10"
    assert resolved["generatorURL"] == f"http://here/{tokens.alert}"


async def test_webhooks_are_not_told_of_an_alert_that_somebody_has_seen_or_silenced(tower: Watchtower) -> None:
    await tower.log("acme", quota(10), quota(10, unit="nano_usd"))
    await tower.use(10)
    await tower.look()
    tokens, money = sorted(await tower.alerts(), key=lambda a: a.labels["unit"], reverse=True)
    events = {json.loads(e.data)["alert"]: e for e in await tower.home.log.read(0, 100) if e.type == "alert.raised"}
    unwanted = UnwantedAlerts(tower.home.log.pool, lambda: NOW)
    assert [await unwanted(events[a.alert]) for a in (tokens, money)] == [False, False]
    await tower.home.take(alert_stream("acme"), lambda _: decide_acknowledge(tokens, "key:x"))
    await tower.home.take(alert_stream("acme"), lambda _: decide_silence(money, int(NOW) + 60, NOW, "key:x"))
    await tower.alerts()
    assert [await unwanted(events[a.alert]) for a in (tokens, money)] == [True, True]
    assert not await UnwantedAlerts(tower.home.log.pool, lambda: NOW + 61)(events[money.alert])
    other = next(e for e in await tower.home.log.read(0, 100) if e.type == "quota.set")
    assert not await unwanted(other)


def test_the_watch_looks_at_everything_often_enough_to_end_a_window_within_a_minute() -> None:
    assert watch.FULL_SECONDS <= 60


async def test_a_database_that_goes_away_delays_alerts_and_loses_none(tower: Watchtower, owner: Connection) -> None:
    await tower.log("acme", quota(100))
    async with Working(tower.watch()):
        await tower.use(85)
        await tower.see("quota_warning")
        for _ in range(3):
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND application_name NOT LIKE '%projection%'"
            )

        async def reached() -> bool:
            try:
                await tower.use(10)
            except (LogUnavailable, TimeoutError):
                return False
            return True

        await until(reached, what="the log takes events again")

        async def told() -> bool:
            # What was appended when the line broke may be there twice.
            return bool({a.kind for a in await tower.alerts(still_open=True)} & {"quota_high", "quota_exceeded"})

        await until(told, what="the next level", timeout=30)
