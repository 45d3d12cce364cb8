"""Alerts and webhooks as a gateway puts them together: opened from its settings, at work side by side."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

from adapters.postgres.event_log import PostgresEventLog
from gateway.decisions import create_tenant
from gateway.gateway import Gateway
from gateway.house import master_key
from gateway.outbound import Outbound, OutboundPorts
from gateway.places import Places
from gateway.settings import load_settings
from gateway.shredding import shred_tenant
from gateway.telemetry.metrics import Gauges
from tests.support.databases import with_user
from tests.support.installing import installed, settings_of
from tests.support.receiver import Message, receiver
from tests.support.waiting import until
from tests.support.watchtower import Working, answered, quota, watchtower
from tests.support.webhooks import KEYS, MASTER


async def test_what_is_raised_goes_to_the_webhook_and_to_the_alertmanager_of_the_settings(
    log: PostgresEventLog, instance: UUID, app_dsn: str
) -> None:
    async with watchtower(log, instance, app_dsn) as tower, receiver() as made:
        home = tower.home
        settings = load_settings(webhook_allow_private=True, alertmanager_url=made.url.partition("/hooks")[0])
        ports = OutboundPorts(
            dsn=app_dsn, log=log, control=home.control, runner=tower.runner, master=MASTER, tenant_keys=KEYS,
            append=home.append, reach=tower.reach, drift=lambda: 3,
        )  # fmt: skip
        outbound = await Outbound.open(settings, ports)
        gauges = Gauges()
        outbound.watch_gauges(gauges)
        await home.webhook(made.url)
        await tower.log("acme", quota(10))

        def told(path: str) -> list[Message]:
            return [m for m in made.messages if m.path == path]

        async with Working(*outbound.work()):
            await tower.log("acme", answered(10))
            outbound.wake()
            [message] = await until(lambda: told("/hooks?a=1"), what="the webhook is told")
            body = json.loads(message.body)
            assert body["type"] == "alert.raised"

            def listed() -> bool:
                return any(body["data"]["alert"].encode() in m.body for m in told("/api/v2/alerts"))

            await until(listed, what="the Alertmanager is told")
            shown = {s.name: s for family in gauges.collect() for s in family.samples}
            assert shown["emberlog_webhook_deliveries_total"].value == 1
            kinds = {s.labels["kind"] for f in gauges.collect() for s in f.samples if s.name == "emberlog_alerts_open"}
            assert kinds >= {"quota_drift"}
        await outbound.close()
        await outbound.close()


async def test_a_gateway_forgets_the_webhooks_of_a_tenant_that_is_shredded(migrated_dsn: str, tmp_path: Path) -> None:
    async with installed(migrated_dsn, tmp_path) as installation:
        async with installation.writer() as instance:
            await create_tenant(installation.log, instance, installation.master(), "acme", actor="cli:test")
        settings = settings_of(migrated_dsn, tmp_path)
        places = Places(with_user(migrated_dsn, "emberlog_gateway"), migrated_dsn, None)
        gateway = await Gateway.open(settings, places, master_key(settings))
        try:
            made = await gateway.webhooks.create(
                lambda stream, decide: gateway.control.run(decide, stream=stream),
                "acme", url="https://hooks.example.com/", types=["alert.*"], webhook=None, actor="test",
            )  # fmt: skip
            assert made.secret is not None

            async def kept() -> int:
                return int(await installation.log.pool.fetchval("SELECT count(*) FROM emberlog.webhook_secrets"))

            assert await kept() == 1
            await shred_tenant(installation, tmp_path / "ledger.ndjson", "acme")

            async def forgotten() -> bool:
                return await kept() == 0

            await until(forgotten, what="the webhook's secret is gone")
            assert gateway.webhooks.webhooks("acme") == []
        finally:
            await gateway.close()
