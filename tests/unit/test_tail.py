"""The directory follows the log, through outages and defects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from adapters.memory.event_log import MemoryEventLog
from domain.events import EventData, KeyRevoked, TenantCreated
from domain.ports.event_log import LogUnavailable, StoredEvent
from domain.tenancy import Directory, issue_key
from gateway.decisions import append_decision
from gateway.tail import DirectoryTail


async def _nothing(event: StoredEvent, data: EventData) -> None:
    pass


async def _follow(log: MemoryEventLog, observe: Callable[[StoredEvent, EventData], Awaitable[None]] = _nothing):
    directory = Directory()
    tail = DirectoryTail(log, directory, observe)
    return directory, tail, asyncio.create_task(tail.run())


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
