"""The chaos table in small: each fault at each provider, and no request lost, billed twice or answered with another's vectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from domain.tenancy import Principal
from gateway.bench.faults import Control, Fault
from gateway.service.pending import Pending
from gateway.service.sending import Sending
from gateway.service.service import RequestService
from gateway.wire.messages import EmbeddingGenerate
from tests.support.chaos import load
from tests.support.chaos.audit import Verdict
from tests.support.chaos.places import KINDS, healthy, place
from tests.support.chaos.plans import PLANS, Plan
from tests.support.chaos.run import cell
from tests.support.chaos.site import site
from tests.unit.service.conftest import Recorder

REQUESTS = 16
"""Of each cell; more of them by `python -m tests.benchmarks.bench_chaos`."""


@pytest.mark.parametrize("name", KINDS)
async def test_whatever_a_provider_does_each_request_is_answered_rightly_or_refused_and_billed_once(name: str) -> None:
    async with healthy() as others, place(name) as here:
        for plan in PLANS:
            found = await cell(here, others, plan, REQUESTS)
            assert found.wrong == 0, f"{plan.name}: {found.notes}"
            assert found.requests >= REQUESTS
            assert found.answered > 0, f"{plan.name}: nobody was answered"
            assert (found.refused > 0) >= (plan.name in ("400", "400, a text too long", "a text that it refuses"))


async def test_a_provider_of_one_text_a_call_gets_all_the_calls_at_once_that_it_takes_and_nothing_is_mixed_up() -> None:
    texts = [f"text {i}" for i in range(40)]
    async with healthy() as others, place("bedrock titan") as here, site(here, others, 30.0) as made:
        here.control(Control(reset=True, hold=True))
        message, reply = EmbeddingGenerate(id="r1", input=texts, model="m"), Recorder()
        made.service.generate(Principal("k", "acme", frozenset({"agent"})), "one", message, texts, reply)
        async with asyncio.timeout(10):
            while here.stats().in_flight < 8:
                await asyncio.sleep(0.005)
        here.control(Control(hold=False))
        await reply.wait()
        assert reply.rows is not None
        assert np.array_equal(reply.rows, np.stack([here.vector(text) for text in texts]))
        stats = here.stats()
    assert (stats.calls, stats.largest, stats.max_in_flight) == (40, 1, 8)


Tried = Callable[[str], Awaitable[Verdict]]


@pytest.fixture
async def tried() -> AsyncIterator[Tried]:
    """A cell at OpenAI, by its plan's name."""
    async with healthy() as others, place("openai") as here:

        async def run(plan: str) -> Verdict:
            return await cell(here, others, next(p for p in PLANS if p.name == plan), REQUESTS)

        yield run


class TestWhatTheAuditFinds:
    """Negative controls: each zero of the table can be something else."""

    async def test_two_vectors_that_change_places(self, tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
        fill = Pending.fill
        monkeypatch.setattr(
            Pending, "fill", lambda self, i, row: fill(self, 1 - i if i < 2 and self.count > 1 else i, row)
        )
        assert (await tried("none")).wrong_order > 0

    async def test_a_text_that_is_billed_where_it_failed_and_where_it_was_answered(
        self, tried: Tried, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hand_over = Pending.hand_over

        def billed(self: Pending, indexes: list[int], *more: Any) -> None:
            for index in indexes:
                self.charge(index, self.tokens[index], self.candidate)
            hand_over(self, indexes, *more)

        monkeypatch.setattr(Pending, "hand_over", billed)
        assert (await tried("500")).billed_twice > 0

    async def test_texts_that_are_handed_over_and_forgotten(
        self, tried: Tried, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(load, "PATIENCE_MS", 500)
        monkeypatch.setattr(Sending, "hand_over", lambda *_: None)
        assert (await tried("500")).lost > 0

    async def test_an_answer_that_nobody_gets(self, tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load, "PATIENCE_MS", 500)
        monkeypatch.setattr(load, "GRACE", 0.1)
        monkeypatch.setattr(RequestService, "deliver", lambda self, pending, _: self._forget(pending))
        assert (await tried("none")).lost > 0

    async def test_requests_that_are_refused_though_another_endpoint_would_answer(
        self, tried: Tried, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Sending, "elsewhere", lambda *_: False)
        found = await tried("401")
        assert found.needless > 0

    async def test_vectors_of_another_model_under_this_ones_name(self) -> None:
        async with healthy() as others, place("openai") as here:
            drifting = Plan("drifting", Fault("drifted", count=-1))
            found = await cell(here, others, drifting, REQUESTS)
        assert found.wrong_space > 0

    async def test_a_hold_that_is_never_given_back(self, tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load, "GRACE", 0.1)
        monkeypatch.setattr("tests.unit.service.test_sending.Held.release", lambda _: None)
        assert (await tried("none")).left > 0
