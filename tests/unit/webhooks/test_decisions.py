"""Webhooks as the control plane has them, and the decisions about them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain.errors import GatewayError
from domain.events import TenantShredded, WebhookCreated, WebhookDeleted
from domain.plane import ControlPlane
from domain.webhooks import MAX_WEBHOOKS, decide_create, decide_delete, decide_rotate, expand
from gateway.webhooks.backoff import SCHEDULE, pause


def created(webhook: str = "w", tenant: str | None = "acme", **more: Any) -> WebhookCreated:
    return WebhookCreated(
        **{"webhook": webhook, "url": "https://a.example/", "types": ["alert.*"], "tenant": tenant} | more
    )


def plane_with(*data: Any) -> ControlPlane:
    plane = ControlPlane()
    for position, one in enumerate(data, 1):
        plane.apply(position, "acme", "tenant/acme", position, one)
    return plane


def wanted(plane: ControlPlane, **more: Any) -> list[Any]:
    fields = {"url": "https://a.example/", "types": ["alert.*"], "tenant": "acme", "actor": "key:x"} | more
    return decide_create(plane, fields.pop("webhook", "w"), **fields)


def test_a_webhook_wants_the_events_of_its_types_and_tenant() -> None:
    plane = plane_with(created(types=["alert.*", "quota.set"]), created("all", None))
    mine, ours = plane.webhooks.find("w", "acme"), plane.webhooks.find("all", None)
    assert (mine.position, ours.position) == (1, 2)
    assert mine.wants("acme", "alert.raised")
    assert mine.wants("acme", "quota.set")
    assert not mine.wants("acme", "quota.removed")
    assert not mine.wants("other", "alert.raised")
    assert ours.wants("other", "alert.raised")
    assert ours.wants("_system", "alert.raised")


def test_a_group_stands_for_its_types_and_nothing_for_what_there_is_not() -> None:
    assert {"alert.raised", "alert.resolved"} <= expand(["alert.*"])
    assert expand(["alert"]) == expand(["alert.nothing"]) == expand(["*"]) == expand([".*"]) == frozenset()


def test_a_tenants_webhooks_end_with_it_and_others_go_on() -> None:
    plane = plane_with(created(), created("o", "other"), created("all", None), TenantShredded(tenant="acme"))
    assert set(plane.webhooks.webhooks) == {"o", "all"}


def test_made_again_after_its_end_it_begins_anew() -> None:
    plane = plane_with(created(), WebhookDeleted(webhook="w"), created())
    assert plane.webhooks.find("w", "acme").position == 3


def test_making_it_is_decided_once_and_an_id_is_one_webhooks() -> None:
    [decision] = wanted(ControlPlane())
    assert (decision.tenant, decision.stream) == ("acme", "tenant/acme")
    assert wanted(ControlPlane(), tenant=None)[0].stream == "system"
    plane = plane_with(created())
    assert wanted(plane) == []
    for other in ({"url": "https://b.example/"}, {"types": ["quota.set"]}, {"tenant": "other"}, {"tenant": None}):
        with pytest.raises(GatewayError, match="taken") as caught:
            wanted(plane, **other)
        assert caught.value.code == "resource_constraint"


def test_every_wrong_field_is_named_and_no_others() -> None:
    with pytest.raises(GatewayError) as caught:
        wanted(ControlPlane(), webhook="-", url="http://a.example/", types=["alert.*", "no.such", "quota.*"])
    assert [f["field"] for f in (caught.value.details or {})["fields"]] == ["webhook", "url", "types"]
    with pytest.raises(GatewayError, match="1 to 64 types"):
        wanted(ControlPlane(), types=[])


def test_there_is_a_most_of_webhooks_for_each_tenant() -> None:
    plane = plane_with(*(created(f"w{n}") for n in range(MAX_WEBHOOKS)))
    with pytest.raises(GatewayError, match="delete one first"):
        wanted(plane, webhook="one-more")
    assert wanted(plane, webhook="one-more", tenant="other")


def test_nobody_decides_on_the_webhook_of_another() -> None:
    plane = plane_with(created(), created("all", None))
    for tenant, webhook in (("other", "w"), (None, "w"), ("acme", "all"), ("acme", "none")):
        for decide in (
            lambda t, w: decide_delete(plane, w, tenant=t, actor="x"),
            lambda t, w: decide_rotate(plane, w, tenant=t, overlap_until=1, actor="x"),
        ):
            with pytest.raises(GatewayError, match="there is no webhook"):
                decide(tenant, webhook)
    assert decide_delete(plane, "w", tenant="acme", actor="x")


def test_pauses_are_up_to_those_of_the_schedule_and_no_less_than_was_asked_for() -> None:
    for attempts, longest in enumerate(SCHEDULE):
        found = [pause(attempts) for _ in range(200)]
        assert all(p is not None and timedelta(0) <= p <= timedelta(seconds=longest) for p in found)
        assert max(p for p in found if p) > timedelta(seconds=longest / 2) > min(p for p in found if p)
        assert pause(attempts, 100_000.0) == timedelta(seconds=100_000)
    assert pause(len(SCHEDULE)) is None
    assert pause(len(SCHEDULE), 5.0) is None
    assert list(SCHEDULE) == sorted(SCHEDULE)
    assert (SCHEDULE[0], SCHEDULE[-1]) == (5.0, 86400.0)
