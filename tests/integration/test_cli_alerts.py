"""`emberlog alerts` and `emberlog webhooks` as a user runs them, no gateway running."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from adapters.postgres import deliveries
from adapters.postgres.deliveries import Planned
from adapters.postgres.event_log import PostgresEventLog
from domain.events import encode_data
from domain.ports.event_log import NewEvent
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.watchtower import answered


@pytest.fixture
def cli(migrated_dsn: str, tmp_path: Path) -> Cli:
    key_file = tmp_path / "secret.key"
    key_file.write_bytes(base64.b64encode(bytes(32)))
    return Cli(
        {
            "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
            "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
            "EMBERLOG_SECRET_KEY_FILE": str(key_file),
        }
    )


async def test_alerts_are_worked_out_listed_and_seen_to(cli: Cli, log: PostgresEventLog) -> None:
    await cli.json("tenants", "create", "acme")
    await cli.json(
        "quotas", "set", "--tenant", "acme", "--scope", "tenant", "--unit", "tokens", "--window", "day", "--limit", "10"
    )
    now = datetime.now(UTC)
    data = answered(10, at=int(now.timestamp() * 1e6), day=now.date().isoformat())
    key = uuid4().bytes
    instance = await log.register_instance("test", 600)
    await log.append(
        instance, [NewEvent(key, key, "acme", f"request/acme/{data.request_id}", data.TYPE, encode_data(data))]
    )
    [alert] = await cli.json("alerts", "list", "--tenant", "acme")
    assert (alert["kind"], alert["state"], alert["used"]) == ("quota_exceeded", "raised", 10)
    assert (await cli.json("alerts", "acknowledge", alert["id"]))["state"] == "acknowledged"
    assert (await cli.json("alerts", "silence", alert["id"], "--for", "2h"))["state"] == "silenced"
    resolved = await cli.json("alerts", "resolve", alert["id"])
    assert (resolved["state"], resolved["resolved_by"]) == ("resolved", alert_actor(resolved))
    assert await cli.json("alerts", "list", "--state", "open") == []
    assert await cli.json("alerts", "failures") == []
    assert await cli.json("alerts", "retry") == {"tenants": []}
    outcome = await cli.run("alerts", "acknowledge", "0" * 32)
    assert outcome.code == 1
    assert "there is no alert" in outcome.error


def alert_actor(alert: dict[str, str]) -> str:
    assert alert["resolved_by"].startswith("cli:")
    return alert["resolved_by"]


async def test_webhooks_are_made_rotated_looked_after_and_deleted(cli: Cli, log: PostgresEventLog) -> None:
    await cli.json("tenants", "create", "acme")
    spec = ("webhooks", "create", "--url", "https://hooks.example.com/x", "--types", "alert.*")
    made = await cli.json(*spec, "--tenant", "acme", "--id", "mine")
    assert made["secret"].startswith("whsec_")
    assert (await cli.json(*spec, "--tenant", "acme", "--id", "mine"))["secret"] is None
    ours = await cli.json(*spec)
    assert [w["id"] for w in await cli.json("webhooks", "list")] == [ours["id"]]
    assert [w["id"] for w in await cli.json("webhooks", "list", "--tenant", "acme")] == ["mine"]
    assert (await cli.json("webhooks", "rotate-secret", "mine", "--tenant", "acme"))["secret"].startswith("whsec_")
    event, other = uuid4(), uuid4()
    planned = [Planned("mine", n, "acme", "alert.raised", e) for n, e in enumerate((event, other), 100)]
    await deliveries.put(log.pool, planned, {})
    await log.pool.execute("UPDATE emberlog.deliveries SET state = 'dead'")
    assert len(await cli.json("webhooks", "deliveries", "--tenant", "acme")) == 2
    dead = await cli.json("webhooks", "dead-letters", "list", "mine", "--tenant", "acme")
    assert {d["id"] for d in dead} == {f"mine/{event}", f"mine/{other}"}
    letters = ("webhooks", "dead-letters")
    shown = await cli.json(*letters, "show", "mine", str(event), "--tenant", "acme")
    assert (shown["event"], shown["state"]) == (str(event), "dead")
    assert (await cli.json(*letters, "requeue", "mine", str(event), "--tenant", "acme"))["requeued"] == 1
    assert (await cli.json(*letters, "discard", "mine", "--all", "--tenant", "acme"))["discarded"] == 1
    assert (await cli.run(*letters, "discard", "mine")).code == 2
    wrong = await cli.run("webhooks", "create", "--url", "http://10.0.0.1/", "--types", "alert.*")
    assert (wrong.code, wrong.out) == (2, "")
    assert "url: must begin with https://" in wrong.error
    assert await cli.json("webhooks", "delete", "mine", "--tenant", "acme") == {"id": "mine", "deleted": True}
    assert await cli.json("webhooks", "list", "--tenant", "acme") == []


async def test_rotating_the_installations_key_leaves_the_secrets_of_webhooks_readable(
    cli: Cli, log: PostgresEventLog, tmp_path: Path
) -> None:
    from domain.plane import ControlPlane
    from gateway.secrets import MasterKey
    from gateway.tail import PlaneTail
    from gateway.webhooks.secrets import WebhookSecrets

    made = await cli.json("webhooks", "create", "--url", "https://hooks.example.com/x", "--types", "alert.*")
    key_file = tmp_path / "secret.key"
    key_file.write_bytes(base64.b64encode(b"n" * 32) + b"\n" + key_file.read_bytes())
    await cli.json("keys", "rotate-master")
    await cli.json("keys", "rotate-master", "--forget-old")

    async def nothing(_: object, __: object) -> None: ...

    plane = ControlPlane()
    await PlaneTail(log, plane, nothing).catch_up()
    secrets = WebhookSecrets(log.pool, MasterKey.load(key_file, create=False), {})
    assert await secrets.of([plane.webhooks.find(made["id"], None)]) == {made["id"]: [made["secret"]]}
