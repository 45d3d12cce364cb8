"""How long a request waits before it is sent, and how many go together: through the whole service, on a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from statistics import median

import numpy as np
import pytest

from domain.ports.provider import EmbedAnswer, EmbedCall
from tests.unit.dispatch.virtual_time import run
from tests.unit.service.conftest import Recorder, Rig, ScriptedProvider, make_rig, vector_of


class Slow(ScriptedProvider):
    """Answers after `latency` seconds."""

    def __init__(self, latency: float) -> None:
        super().__init__()
        self.latency = latency

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        self.calls.append(list(call.texts))
        await asyncio.sleep(self.latency)
        return EmbedAnswer(np.stack([vector_of(text) for text in call.texts]))


def on_a_virtual_clock(latency: float, play: Callable[[Rig, Slow], Awaitable[None]], max_inputs: int = 64) -> None:
    async def main() -> None:
        rig = await make_rig(provider=Slow(latency), max_inputs=max_inputs)
        assert isinstance(rig.provider, Slow)
        await play(rig, rig.provider)
        await rig.service.close()
        await rig.appender.close()

    run(main())


def right(reply: Recorder, texts: list[str]) -> bool:
    return reply.rows is not None and np.array_equal(reply.rows, np.stack([vector_of(text) for text in texts]))


def test_with_64_agents_that_ask_as_fast_as_they_are_answered_calls_are_full_and_nobody_waits_long() -> None:
    async def play(rig: Rig, provider: Slow) -> None:
        loop, took = asyncio.get_running_loop(), []

        async def agent(name: str) -> None:
            for number in range(10):
                begun = loop.time()
                reply = await rig.ask(f"{name} {number}", id=f"{name}-{number}", agent=name)
                took.append(loop.time() - begun)
                assert right(reply, [f"{name} {number}"])

        await asyncio.gather(*(agent(f"a{i}") for i in range(64)))
        assert len(took) == 640
        assert 640 / len(provider.calls) >= 30
        assert median(took) <= 1.5 * provider.latency

    on_a_virtual_clock(0.1, play)


def test_ten_thousand_texts_of_a_tenant_delay_another_tenants_text_by_one_call_at_most() -> None:
    async def play(rig: Rig, provider: Slow) -> None:
        loop = asyncio.get_running_loop()
        many = [
            rig.send([f"t {n} {i}" for i in range(500)], id=f"big-{n}", agent=f"a{n}", deadline_ms=3_600_000)[0]
            for n in range(20)
        ]
        await asyncio.sleep(0.05)
        assert rig.service.vectors._dispatcher.queued_texts > 9_000
        rig.principal = type(rig.principal)("k2", "globex", frozenset({"agent"}))
        begun = loop.time()
        reply = await rig.ask("one text", id="small")
        assert right(reply, ["one text"])
        assert loop.time() - begun <= 2 * provider.latency, "the call that is on its way, then its own"
        for reply in many:
            await reply.done.wait()
            assert reply.refusal is None

    on_a_virtual_clock(0.1, play)


def test_against_a_provider_of_one_text_a_call_all_of_its_slots_are_used_and_nothing_is_mixed_up() -> None:
    async def play(rig: Rig, provider: Slow) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        texts = [f"text {i}" for i in range(160)]
        reply = await rig.ask(texts)
        assert right(reply, texts)
        assert all(len(call) == 1 for call in provider.calls)
        assert loop.time() - begun <= 160 / 8 * provider.latency + 0.05, "eight calls at once, none of them idle"

    on_a_virtual_clock(0.1, play, max_inputs=1)


@pytest.mark.parametrize("cache", ["use", "off"])
async def test_alone_on_an_idle_gateway_a_request_is_sent_at_once(rig: Rig, cache: str) -> None:
    waited = []
    for number in range(20):
        reply = await rig.ask(f"text {number}", id=f"r{number}", cache=cache)
        assert reply.answer is not None
        waited.append(reply.answer.timings.queue_ms)
        await asyncio.sleep(0.01)
    assert median(waited) <= 2
