"""Webhooks over a real log: what is delivered, when again, and what is given up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from adapters.postgres import deliveries
from adapters.postgres.deliveries import Planned
from adapters.postgres.event_log import PostgresEventLog
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import TenantShredded, WebhookDeliveryFailed
from domain.ports.event_log import LogDamaged, StoredEvent
from domain.webhooks import Webhook, decide_delete
from gateway.webhooks import planner
from tests.support.alerting import raised
from tests.support.projecting import Connection
from tests.support.receiver import Message, Receiver, receiver
from tests.support.waiting import until
from tests.support.webhooks import House, at_work, house


@pytest.fixture
async def home(log: PostgresEventLog, instance: UUID, app_dsn: str) -> AsyncIterator[House]:
    async with house(log, instance, app_dsn) as made:
        yield made


@pytest.fixture
async def hooks() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


def ids(messages: list[Message]) -> list[str]:
    return [message.headers["webhook-id"] for message in messages]


async def states(home: House, tenant: str | None = "acme") -> list[str]:
    return sorted(d.state for d in await home.admin.deliveries(tenant))


async def ended(home: House, *wanted: str) -> None:
    async def so() -> bool:
        return await states(home) == sorted(wanted)

    await until(so, what=f"deliveries {wanted}")


async def test_events_behind_the_webhook_reach_it_signed_in_the_order_of_the_log(home: House, hooks: Receiver) -> None:
    await home.alert()  # before there was a webhook
    _, secret = await home.webhook(hooks.url)
    sent = [str(await home.alert()) for _ in range(8)]
    async with at_work(home.sender()):
        messages = await hooks.has(8)
        await ended(home, *["delivered"] * 8)
    # Four are under way at a time: no more than that many come before one that stands before them in the log.
    assert all(sent.index(name) <= place + 3 for place, name in enumerate(ids(messages)))
    assert sorted(ids(messages)) == sorted(sent)
    for message in messages:
        Verifier(secret).verify(message.body, message.headers)
        body = json.loads(message.body)
        assert (body["type"], body["tenant"], body["id"]) == ("alert.raised", "acme", message.headers["webhook-id"])
        assert body["data"]["kind"] == "quota_high"
        assert message.headers["content-type"] == "application/json"


async def test_a_webhook_gets_its_tenants_events_of_its_types_and_one_of_the_installation_those_of_all(
    home: House, hooks: Receiver
) -> None:
    _, secret = await home.webhook(hooks.url)
    _, ours = await home.webhook(hooks.url.replace("a=1", "all"), tenant=None)
    mine, others = str(await home.alert()), str(await home.alert("other"))
    system = str(await home.alert("_system"))
    await home.alert(data=WebhookDeliveryFailed(webhook="x", event="e", attempts=1, reason="r", at=1))
    async with at_work(home.sender()):
        messages = await hooks.has(4)
        await ended(home, "delivered")
    assert ids([m for m in messages if m.path.endswith("a=1")]) == [mine]
    whole = [m for m in messages if m.path.endswith("all")]
    assert sorted(ids(whole)) == sorted([mine, others, system])
    Verifier(ours).verify(whole[0].body, whole[0].headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(whole[0].body, whole[0].headers)


async def test_after_a_rotation_both_secrets_verify_until_the_overlap_is_over(home: House, hooks: Receiver) -> None:
    webhook, old = await home.webhook(hooks.url)
    rotated = await home.admin.rotate(home.take, "acme", webhook.id, actor="test", overlap_seconds=600)
    await home.alert()
    async with at_work(home.sender()):
        [message] = await hooks.has(1)
        for secret in (old, rotated.secret):
            Verifier(secret).verify(message.body, message.headers)
        newest = await home.admin.rotate(home.take, "acme", webhook.id, actor="test", overlap_seconds=0)
        await home.alert()
        message = (await hooks.has(2))[1]
    Verifier(newest.secret).verify(message.body, message.headers)
    for secret in (old, rotated.secret):
        with pytest.raises(WebhookVerificationError):
            Verifier(secret).verify(message.body, message.headers)


async def test_what_fails_is_tried_again_and_after_the_last_try_is_a_dead_letter_that_is_an_event(
    home: House, hooks: Receiver
) -> None:
    webhook, _ = await home.webhook(hooks.url)
    hooks.answer = lambda _: web.Response(status=500, text="SECRET BODY")
    event = str(await home.alert())
    async with at_work(home.sender(schedule=(0.0, 0.0))):
        await hooks.has(3)
        await ended(home, "dead")
    assert len(hooks.messages) == 3
    letter = await home.admin.dead_letter("acme", webhook.id, event)
    assert (letter.state, letter.tries, letter.status, letter.reason) == ("dead", 3, 500, "HTTP 500")
    failed = [e for e in await home.log.read(0, 100) if e.type == "webhook.delivery_failed"]
    [data] = [json.loads(e.data) for e in failed]
    assert (data["webhook"], data["event"], data["attempts"], data["reason"]) == (webhook.id, event, 3, "HTTP 500")
    assert b"SECRET" not in failed[0].data


async def test_a_dead_letter_goes_out_again_or_is_forgotten(home: House, hooks: Receiver) -> None:
    webhook, _ = await home.webhook(hooks.url)
    hooks.answer = lambda _: web.Response(status=500)
    first, second = str(await home.alert()), str(await home.alert())
    async with at_work(home.sender(schedule=())):
        await ended(home, "dead", "dead")
        hooks.answer = lambda _: web.Response()
        assert await home.admin.requeue("acme", webhook.id, first, actor="test") == 1
        await ended(home, "dead", "delivered")
        assert await home.admin.discard("acme", webhook.id, None, actor="test") == 1
    assert await states(home) == ["delivered"]
    for event in (first, second, str(UUID(int=1))):
        with pytest.raises(GatewayError, match="no dead letter"):
            await home.admin.discard("acme", webhook.id, event, actor="test")
    assert await home.admin.requeue("acme", webhook.id, None, actor="test") == 0


async def test_a_receiver_that_is_gone_is_sent_nothing_more(home: House, hooks: Receiver) -> None:
    webhook, _ = await home.webhook(hooks.url)
    hooks.answer = lambda _: web.Response(status=410)
    await home.alert()
    async with at_work(home.sender()):
        await until(lambda: webhook.id not in home.plane.webhooks.webhooks, what="the webhook's end")
        await home.alert()
        other, _ = await home.webhook(hooks.url)
        await home.alert()
        await hooks.has(2)
    assert len(hooks.messages) == 2
    assert await home.log.pool.fetchval("SELECT count(*) FROM emberlog.webhook_secrets") == 1
    [deleted] = [e for e in await home.log.read(0, 100) if e.type == "webhook.deleted"]
    assert json.loads(deleted.data) == {"webhook": webhook.id, "actor": "receiver:410"}
    assert other.id != webhook.id


async def test_a_slow_receiver_holds_up_nobody_else(home: House, hooks: Receiver) -> None:
    async with receiver() as slow:
        slow.hold = asyncio.Event()
        for _ in range(3):
            await home.webhook(slow.url)
        await home.webhook(hooks.url)
        for _ in range(30):
            await home.alert()
        async with at_work(home.sender()):
            await hooks.has(30)
            await slow.has(12)
            await home.alert()
            await hooks.has(31)
            assert len(slow.messages) == 12, "four under way for each"
        slow.hold.set()


async def test_retry_after_is_waited_for(home: House, hooks: Receiver) -> None:
    await home.webhook(hooks.url)
    hooks.answer = lambda _: web.Response(status=429, headers={"retry-after": "600"})
    await home.alert()
    async with at_work(home.sender()):
        await hooks.has(1)

        async def noted() -> bool:
            [delivery] = await home.admin.deliveries("acme")
            return delivery.status == 429

        await until(noted, what="the try noted")
    left = await home.log.pool.fetchval(
        "SELECT extract(epoch FROM next_at - clock_timestamp()) FROM emberlog.deliveries"
    )
    assert 590 < left <= 600


async def test_what_is_no_longer_wanted_is_not_delivered(home: House, hooks: Receiver) -> None:
    await home.webhook(hooks.url)
    silenced = await home.alert()
    home.unwanted.add(silenced.bytes)
    wanted = str(await home.alert())
    async with at_work(home.sender()):
        assert ids(await hooks.has(1)) == [wanted]
        await ended(home, "delivered")


async def test_of_two_senders_one_delivers_and_the_other_takes_over(home: House, hooks: Receiver) -> None:
    await home.webhook(hooks.url)
    first, second = home.sender(lease_seconds=1.0), home.sender(lease_seconds=1.0)
    async with at_work(second):
        async with at_work(first):
            await home.alert()
            await hooks.has(1)
            await ended(home, "delivered")
            assert first.delivered + second.delivered == 1
        assert await home.log.pool.fetchval("SELECT count(*) FROM emberlog.followers WHERE name = 'webhooks'") == 1
        await home.alert()
        await hooks.has(2)
        await ended(home, "delivered", "delivered")
    assert second.delivered >= 1


async def test_a_try_that_was_cut_off_is_made_again_by_whoever_comes_next(home: House, hooks: Receiver) -> None:
    await home.webhook(hooks.url)
    event = str(await home.alert())
    hooks.hold = asyncio.Event()
    async with at_work(home.sender()):
        await hooks.has(1)
    hooks.hold.set()
    # Its claim runs out after half a minute; as if that had passed.
    await home.log.pool.execute("UPDATE emberlog.deliveries SET next_at = clock_timestamp()")
    async with at_work(home.sender()):
        assert ids(await hooks.has(2)) == [event, event]
        await ended(home, "delivered")


async def test_a_webhook_without_a_key_to_open_its_secret_sends_nothing_unsigned(home: House, hooks: Receiver) -> None:
    webhook, _ = await home.webhook(hooks.url)
    await home.log.pool.execute("UPDATE emberlog.webhook_secrets SET sealed = 'x' WHERE webhook = $1", webhook.id)
    await home.alert()
    async with at_work(home.sender(schedule=())):
        await ended(home, "dead")
    assert hooks.messages == []
    [letter] = await home.admin.deliveries("acme")
    assert letter.reason is not None
    assert "no secret that can be opened" in letter.reason


async def test_making_the_same_webhook_again_changes_nothing_and_shows_no_secret(home: House, hooks: Receiver) -> None:
    async def make(url: str, tenant: str = "acme") -> str | None:
        made = await home.admin.create(home.take, tenant, url=url, types=["alert.*"], webhook="mine", actor="test")
        return made.secret

    assert await make(hooks.url)
    assert await make(hooks.url) is None
    for other in ((hooks.url + "2",), (hooks.url, "other")):
        with pytest.raises(GatewayError, match="is taken"):
            await make(*other)
    with pytest.raises(GatewayError, match="there is no webhook"):
        await home.admin.deliveries("other", "mine")
    await home.admin.delete(home.take, "acme", "mine", actor="test")
    assert await make(hooks.url, "other")


async def test_an_id_that_another_tenant_had_before_brings_nothing_of_that_tenant(home: House, hooks: Receiver) -> None:
    """Whoever deletes a webhook may die before what waits for it is forgotten; whoever plans may not know of it yet."""

    async def make(tenant: str) -> Webhook:
        await home.admin.create(home.take, tenant, url=hooks.url, types=["alert.*"], webhook="mine", actor="test")
        return home.plane.webhooks.find("mine", tenant)

    first = await make("acme")
    [old_secret] = (await home.secrets.of([first]))["mine"]
    theirs = await home.alert("acme")
    await home.take("tenant/acme", lambda plane: decide_delete(plane, "mine", tenant="acme", actor="test"))
    second = await make("other")
    await deliveries.forget(home.log.pool, "mine", "acme")
    [new_secret] = (await home.secrets.of([second]))["mine"]
    assert new_secret != old_secret
    late = await home.alert("acme")
    stale = planner.Planner(home.log.pool, home.scan, lambda: {"mine": first})
    assert await stale.plan() == 2, "acme's events wait under the name"
    assert await home.admin.deliveries("other") == []
    with pytest.raises(GatewayError, match="no dead letter"):
        await home.admin.dead_letter("other", "mine", str(theirs))
    own = str(await home.alert("other"))
    waiting = "SELECT event_id::text FROM emberlog.deliveries WHERE event_id = ANY($1)"

    async def done() -> bool:
        left = await home.log.pool.fetch(waiting, [theirs, late])
        return not left and await states(home, "other") == ["delivered"]

    async with at_work(home.sender()):
        await until(done, what="the other's event is delivered, acme's are forgotten")
    assert ids(hooks.messages) == [own]


async def test_the_secret_stands_nowhere_in_the_clear(home: House, hooks: Receiver, owner: object) -> None:
    webhook, secret = await home.webhook(hooks.url)
    await home.alert()
    rotated = await home.admin.rotate(home.take, "acme", webhook.id, actor="test")
    async with at_work(home.sender()):
        await hooks.has(1)
        await ended(home, "delivered")
    for table in ("emberlog.webhook_secrets", "emberlog.deliveries", "emberlog.events"):
        rows = await home.log.pool.fetch(f"SELECT t::text AS text FROM {table} t")
        assert rows
        for row in rows:
            for one in (secret, rotated.secret):
                raw = one.removeprefix("whsec_")
                assert raw not in row["text"]
                assert raw.encode().hex() not in row["text"]


async def test_a_webhook_is_not_told_of_its_own_failures(home: House, hooks: Receiver) -> None:
    mine, _ = await home.webhook(hooks.url, types=["webhook.delivery_failed"])
    about = [WebhookDeliveryFailed(webhook=w, event="e", attempts=1, reason="r", at=1) for w in (mine.id, "other-one")]
    _, second = [str(await home.alert(data=data)) for data in about]
    async with at_work(home.sender()):
        assert ids(await hooks.has(1)) == [second]
        await ended(home, "delivered")


async def test_many_webhooks_at_different_places_of_the_log_miss_nothing(home: House, hooks: Receiver) -> None:
    expected = 0
    async with at_work(home.sender()):
        for n in range(1, 6):
            await home.webhook(hooks.url.replace("a=1", str(n)))
            await home.alert(data=raised(f"x{n}"))
            expected += n
        await hooks.has(expected)
        await ended(home, *["delivered"] * expected)
    assert len({(m.path, m.headers["webhook-id"]) for m in hooks.messages}) == expected == len(hooks.messages)


async def test_a_webhook_with_too_much_waiting_stands_still_in_the_log_and_goes_on_from_there(
    home: House, hooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "MAX_WAITING", 3)
    monkeypatch.setattr(planner, "SAVE_SECONDS", 0.0)
    await home.webhook(hooks.url)
    events = [str(await home.alert()) for _ in range(4)]
    plan = planner.Planner(home.log.pool, home.scan, lambda: home.plane.webhooks.webhooks)
    assert await plan.plan() == 4
    events.append(str(await home.alert()))
    assert await plan.plan() == 0
    async with at_work(home.sender()):
        assert sorted(ids(await hooks.has(5))) == sorted(events)


async def test_whoever_plans_after_another_puts_nothing_down_twice(home: House, hooks: Receiver) -> None:
    await home.webhook(hooks.url)
    for _ in range(3):
        await home.alert()
    for _ in range(2):
        await planner.Planner(home.log.pool, home.scan, lambda: home.plane.webhooks.webhooks).plan()
    await home.log.pool.execute("UPDATE emberlog.webhook_cursors SET position = 0")
    assert len(await home.admin.deliveries("acme")) == 3
    await planner.Planner(home.log.pool, home.scan, lambda: home.plane.webhooks.webhooks).plan()
    assert len(await home.admin.deliveries("acme")) == 3


async def test_nothing_is_kept_of_the_webhooks_of_a_shredded_tenant(home: House, hooks: Receiver) -> None:
    await home.webhook(hooks.url)
    await home.webhook(hooks.url, tenant="other")
    await home.alert()
    await home.alert("other")
    await planner.Planner(home.log.pool, home.scan, lambda: home.plane.webhooks.webhooks).plan()
    await home.take(
        "tenant/acme", lambda _: [Decision("acme", "tenant/acme", TenantShredded(tenant="acme", actor="test"))]
    )
    await deliveries.forget_tenant(home.log.pool, "acme")
    left = [
        await home.log.pool.fetchval(f"SELECT count(*) FROM emberlog.{t}")
        for t in ("webhook_secrets", "deliveries", "webhook_cursors")
    ]
    assert left == [1, 1, 1]
    async with at_work(home.sender()):
        await hooks.has(1)
        await home.alert()
        await home.alert("other")
        await hooks.has(2)
    assert {json.loads(m.body)["tenant"] for m in hooks.messages} == {"other"}


async def test_the_sweep_forgets_what_ended_long_ago_and_what_nobody_owns(home: House, hooks: Receiver) -> None:
    webhook, _ = await home.webhook(hooks.url)
    planned = [Planned(w, n, "acme", "alert.raised", UUID(int=n)) for n, w in enumerate([webhook.id] * 4 + ["gone"], 1)]
    await deliveries.put(home.log.pool, planned, {"gone": 1})
    await home.log.pool.execute("""
        UPDATE emberlog.deliveries SET created_at = now() - interval '40 days',
            state = (ARRAY['delivered', 'delivered', 'dead', 'pending', 'pending'])[position],
            ended_at = now() - (ARRAY['2 days', '1 hour', '31 days', '1 day', '1 day'])[position]::interval
    """)
    day = timedelta(days=1)
    assert await deliveries.sweep(home.log.pool, day, 30 * day, [webhook.id]) == 3
    assert await states(home) == ["delivered", "pending"]
    assert "gone" not in await deliveries.cursors(home.log.pool)
    assert await home.secrets.of([webhook])


async def test_a_database_that_goes_away_delays_deliveries_and_loses_none(
    home: House, hooks: Receiver, owner: Connection
) -> None:
    await home.webhook(hooks.url)
    events = [str(await home.alert()) for _ in range(3)]
    async with at_work(home.sender(lease_seconds=1.0)):
        await hooks.has(1)
        for _ in range(5):
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await owner.execute("UPDATE emberlog.deliveries SET next_at = clock_timestamp() WHERE state = 'pending'")
        events.append(str(await home.alert()))
        await until(lambda: set(ids(hooks.messages)) == set(events), what="every message arrives", timeout=30)


async def test_an_event_that_the_log_cannot_give_any_more_delays_no_other(
    home: House, hooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.webhook(hooks.url)
    lost, sound = await home.alert(), str(await home.alert())
    read = home.log.read

    async def reading(after: int, limit: int) -> list[StoredEvent]:
        events = await read(after, limit)
        if events and events[0].event_id == lost.bytes:
            raise LogDamaged(after + 1, "its file is gone")
        return events

    monkeypatch.setattr(home.log, "read", reading)
    async with at_work(home.sender(schedule=())):
        assert ids(await hooks.has(1)) == [sound]
        await ended(home, "dead", "delivered")
    [letter] = await home.admin.deliveries("acme", state="dead")
    assert letter.event == str(lost)
    assert letter.reason is not None
    assert "cannot give the event" in letter.reason


async def test_whoever_returns_late_from_a_try_changes_nothing(home: House, hooks: Receiver) -> None:
    webhook, _ = await home.webhook(hooks.url)
    await deliveries.put(home.log.pool, [Planned(webhook.id, 1, "acme", "alert.raised", UUID(int=1))], {})
    none, again = timedelta(0), timedelta(hours=1)

    async def end(due: deliveries.Due, **how: Any) -> bool:
        fields = {"delivered": True, "status": 200, "reason": None, "ms": 1, "again": None} | how
        return await deliveries.ended(home.log.pool, due, **fields)

    [first] = await deliveries.claim(home.log.pool, {webhook.id: 4}, none)
    [second] = await deliveries.claim(home.log.pool, {webhook.id: 4}, none)
    assert not await end(first)
    assert await states(home) == ["pending"]
    assert await end(second, delivered=False, again=again)
    assert await deliveries.claim(home.log.pool, {webhook.id: 4}, none) == [], "not before it is due"
    assert not await end(first)
    await home.log.pool.execute("UPDATE emberlog.deliveries SET next_at = clock_timestamp()")
    [third] = await deliveries.claim(home.log.pool, {webhook.id: 4}, none)
    assert (third.attempts, third.tries) == (1, 3)
    assert await end(third)
    assert not await end(third, delivered=False)
    assert await states(home) == ["delivered"]
