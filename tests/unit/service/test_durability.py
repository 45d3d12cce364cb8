"""Durable before spend and before answer, also while the log is away; and that the check of the order can fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from uuid import UUID

import pytest

from adapters.memory.event_log import MemoryEventLog
from domain.errors import GatewayError
from domain.events import EmbeddingGenerated
from domain.ports.event_log import Appended, AppendStatus, LogUnavailable, NewEvent
from domain.ports.provider import EmbedCall
from tests.support.waiting import until
from tests.unit.service.conftest import Rig, make_rig


class AwayLog(MemoryEventLog):
    """A log that cannot be reached while `away`."""

    away = False

    async def append(self, events: Sequence[NewEvent], instance: UUID) -> list[Appended]:
        if self.away:
            raise LogUnavailable("away")
        return await super().append(events, instance)


@pytest.fixture
async def away() -> AsyncIterator[tuple[Rig, AwayLog]]:
    log = AwayLog()
    rig = await make_rig(log)
    yield rig, log
    log.away = False
    await rig.service.close()
    await rig.appender.close()


async def test_an_outcome_that_cannot_be_committed_is_not_answered_and_is_written_when_the_log_is_back(
    away: tuple[Rig, AwayLog],
) -> None:
    rig, log = away
    rig.provider.gate.clear()
    reply, _ = rig.send("one two", deadline_ms=300)
    await rig.provider.called.wait()
    log.away = True
    rig.provider.gate.set()
    await reply.wait()
    assert reply.refusal is not None
    assert (reply.refusal.code, reply.answer, reply.chunks) == ("deadline_exceeded", None, [])
    with pytest.raises(GatewayError) as refused:
        rig.send("something new", id="r2")
    assert (refused.value.code, refused.value.retryable) == ("unavailable", True)
    assert len(rig.provider.calls) == 1, "nothing is spent while nothing can be committed"

    log.away = False
    await until(lambda: rig.appender.healthy and rig.service.in_flight == 0, what="the outcome is written")
    (generated,) = await rig.events("embedding.generated")
    assert isinstance(generated, EmbeddingGenerated)
    assert generated.billed_tokens == 2
    again = await rig.ask("one two")
    assert again.answer is not None
    assert (again.answer.replayed, again.answer.usage.billed_tokens) == (True, 2)
    assert len(await rig.events("embedding.generated")) == len(rig.provider.calls) == 1


async def test_a_request_that_cannot_be_committed_reaches_no_provider(away: tuple[Rig, AwayLog]) -> None:
    rig, log = away
    log.away = True
    reply = await rig.ask("one two", deadline_ms=100)
    assert reply.refusal is not None
    assert reply.refusal.code == "deadline_exceeded"
    assert rig.provider.calls == []


async def _order(rig: Rig) -> tuple[list[str], list[str]]:
    """The types in the log when the provider was called, and when the asker was answered."""
    called: list[str] = []
    answered: list[str] = []

    def look(call: EmbedCall) -> None:
        called.extend(e.type for e in rig.log.store.events)

    rig.provider.behaviour = look
    reply, _ = rig.send("a text")
    told = reply.result

    def result(*answer: object) -> None:
        answered.extend(e.type for e in rig.log.store.events)
        told(*answer)  # type: ignore[arg-type]  # handed on as it came

    reply.result = result  # type: ignore[method-assign]  # to watch it
    await reply.wait()
    return called, answered


async def test_the_log_is_ahead_of_the_provider_and_of_the_answer(rig: Rig) -> None:
    assert await _order(rig) == (["embedding.requested"], ["embedding.requested", "embedding.generated"])


async def test_an_appender_that_says_committed_too_early_is_found(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def early(event: NewEvent, done: Callable[[Appended | Exception], None], *, refusable: bool = False) -> None:
        asyncio.get_running_loop().call_soon(done, Appended(AppendStatus.APPENDED, 1))

    monkeypatch.setattr(rig.appender, "submit", early)
    assert await _order(rig) == ([], [])
