"""Periodic work of a real gateway: done when it is due, told in the log and in the metrics."""

from __future__ import annotations

from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.site import Site
from tests.support.databases import execute
from tests.support.waiting import until

TASKS = {"partitions", "dedupe_keys", "reconciliation", "sweep", "deprecations", "discovery"}
_DUE = "UPDATE emberlog.maintenance SET next_run_at = clock_timestamp()"


async def _runs(site: Site) -> Counter[str]:
    return Counter(e.data["task"] for e in await site.events() if e.type == "maintenance.ran")


async def test_each_task_that_is_due_runs_once_and_shows_when_it_did(shared: Running) -> None:
    async def metric(name: str) -> dict[str, float]:
        text = (await request(f"{shared.url}/metrics")).body.decode()
        return {
            sample.labels["task"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    async def known() -> bool:
        return (await metric("emberlog_maintenance_failures")).keys() >= TASKS

    await until(known, what="the gateway has asked for every task")
    before = await _runs(shared.site)
    await execute(shared.site.dsn, _DUE)

    async def told() -> bool:
        return (await metric("emberlog_maintenance_last_success_timestamp_seconds")).keys() >= TASKS

    await until(told, what="every task has run", timeout=20)
    assert await _runs(shared.site) - before == Counter(dict.fromkeys(TASKS, 1))
    ran = [e for e in await shared.site.events() if e.type == "maintenance.ran"]
    assert {(e.tenant, e.stream) for e in ran} == {("_system", "system")}
    assert not [e.data["error"] for e in ran if "error" in e.data]
    assert set((await metric("emberlog_maintenance_failures")).values()) == {0.0}
