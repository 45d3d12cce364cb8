"""The directory follows the log, through outages and defects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
import structlog

from adapters.memory.event_log import MemoryEventLog
from domain.events import EventData, KeyCreated, KeyRevoked, ProjectionHalted, TenantCreated
from domain.facts import system_fact
from domain.plane import ControlPlane
from domain.ports.event_log import LogUnavailable, StoredEvent
from domain.tenancy import IssuedKey, issue_key
from gateway.decisions import append_decision
from gateway.tail import PlaneTail


async def _nothing(event: StoredEvent, data: EventData) -> None:
    pass


async def _follow(log: MemoryEventLog, observe: Callable[[StoredEvent, EventData], Awaitable[None]] = _nothing):
    plane = ControlPlane()
    tail = PlaneTail(log, plane, observe)
    return plane.directory, tail, asyncio.create_task(tail.run())


async def test_a_revocation_takes_effect_when_the_log_is_woken() -> None:
    log = MemoryEventLog()
    instance = await log.register_instance("test", 60)
    issued = issue_key("acme", ["agent"])
    await append_decision(log, instance, "acme", "tenant/acme", TenantCreated(tenant="acme"))
    await append_decision(log, instance, "acme", "tenant/acme", issued.event)
    directory, tail, task = await _follow(log)
    await tail.wait_for(2, 10)
    assert directory.authenticate(issued.token, 0).tenant == "acme"
    await append_decision(log, instance, "acme", "tenant/acme", KeyRevoked(key=issued.event.key))
    await tail.wait_for(3, 10)
    assert not directory.valid(issued.event.key, 0)
    task.cancel()


@pytest.mark.parametrize("failure", [LogUnavailable("away"), ZeroDivisionError("a defect")])
async def test_a_failure_is_tried_again_and_nothing_is_skipped(failure: Exception) -> None:
    log = MemoryEventLog()
    instance = await log.register_instance("test", 60)
    await append_decision(log, instance, "acme", "tenant/acme", TenantCreated(tenant="acme"))
    failures = [failure, failure]

    async def stumble(event: StoredEvent, data: EventData) -> None:
        if failures:
            raise failures.pop()

    directory, tail, task = await _follow(log, stumble)
    await tail.wait_for(1, 10)
    assert not failures
    assert set(directory.tenants) == {"acme"}
    task.cancel()


async def test_an_event_type_of_a_newer_release_changes_nothing_and_is_passed() -> None:
    log = MemoryEventLog()
    instance = await log.register_instance("test", 60)

    class Unknown(EventData, frozen=True):
        TYPE = "tenant.renamed"

    await append_decision(log, instance, "acme", "tenant/acme", Unknown())
    await append_decision(log, instance, "acme", "tenant/acme", TenantCreated(tenant="acme"))
    directory, tail, task = await _follow(log)
    await tail.wait_for(2, 10)
    assert set(directory.tenants) == {"acme"}
    task.cancel()


class _Newer(EventData, frozen=True):
    """Data of a type this build knows, in a schema version it does not."""

    key: str
    by: str = "a field this build does not know"


async def _key_of_acme(log: MemoryEventLog) -> tuple[UUID, IssuedKey]:
    instance = await log.register_instance("test", 60)
    issued = issue_key("acme", ["agent"])
    await append_decision(log, instance, "acme", "tenant/acme", TenantCreated(tenant="acme"))
    await append_decision(log, instance, "acme", "tenant/acme", issued.event)
    return instance, issued


async def test_a_revocation_in_a_newer_schema_version_takes_effect() -> None:
    log = MemoryEventLog()
    instance, issued = await _key_of_acme(log)

    class Revoked(_Newer, frozen=True, omit_defaults=False):
        TYPE = KeyRevoked.TYPE
        SCHEMA = KeyRevoked.SCHEMA + 1

    await append_decision(log, instance, "acme", "tenant/acme", Revoked(key=issued.event.key))
    directory, tail, task = await _follow(log)
    await tail.wait_for(3, 10)
    assert issued.event.key in directory.keys
    assert not directory.valid(issued.event.key, 0)
    task.cancel()


async def test_a_key_in_a_newer_schema_version_is_unknown_here_which_is_logged_once() -> None:
    log = MemoryEventLog()
    instance, issued = await _key_of_acme(log)

    class Created(_Newer, frozen=True, omit_defaults=False):
        TYPE = KeyCreated.TYPE
        SCHEMA = KeyCreated.SCHEMA + 1

    for key in ("0" * 16, "1" * 16):
        await append_decision(log, instance, "acme", "tenant/acme", Created(key=key))
    await append_decision(log, instance, "acme", "tenant/acme", KeyRevoked(key=issued.event.key))
    plane = ControlPlane()
    with structlog.testing.capture_logs() as lines:
        await PlaneTail(log, plane, _nothing).catch_up()
    directory = plane.directory
    assert set(directory.keys) == {issued.event.key}
    assert not directory.valid(issued.event.key, 0)
    assert [(line["event"], line["type"], line["schema_version"]) for line in lines] == [
        ("event_of_newer_build", "key.created", 2)
    ]


async def test_a_position_behind_the_last_decision_is_reached_once_all_before_it_is_folded() -> None:
    log = MemoryEventLog()
    instance = await log.register_instance("test", 60)
    await append_decision(log, instance, "acme", "tenant/acme", TenantCreated(tenant="acme"))
    fact = system_fact(ProjectionHalted(projection="usage", generation=1, failed_position=1, error="why"), "1", 1)
    [appended] = await log.append(instance, [fact])
    assert appended.position == 2
    plane = ControlPlane()
    tail = PlaneTail(log, plane, _nothing)
    await tail.wait_for(2, 10)
    assert (plane.position, set(plane.directory.tenants)) == (1, {"acme"})
