"""The load generator against a gateway of another make, and the arithmetic of what it reports."""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from gateway.bench.agent import Timings
from gateway.bench.cpu import Cores, cpu_seconds, family, pinned
from gateway.bench.latency import GROWTH, Latency
from gateway.bench.load import Load, LoadOptions, LoadResult
from gateway.bench.report import Measured, show
from gateway.bench.scenarios import Scenario, standard
from gateway.bench.simulator import Stats
from gateway.bench.texts import TextSource
from gateway.bench.vectors import vector_of
from tests.support.waiting import until

TIMINGS = {"queue_ms": 1.0, "provider_ms": 2.0, "total_ms": 4.0}


def right(message: dict[str, Any]) -> dict[str, Any]:
    """The answer that a gateway before the simulator gives."""
    texts = [message["input"]] if isinstance(message["input"], str) else message["input"]
    size = message.get("dimensions", 1536)
    vectors = b"".join(vector_of(text, size).astype("<f4").tobytes() for text in texts)
    result = {
        "type": "embedding.result",
        "id": message["id"],
        "count": len(texts),
        "dimensions": size,
        "vectors": vectors,
    }
    return result | {"usage": {"tokens": 3}, "cost": {"nano_usd": None}, "timings": TIMINGS}


@contextlib.asynccontextmanager
async def gateway(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> AsyncIterator[str]:
    """A gateway made of `websockets` and `msgpack`, which share nothing with the load generator; yields its URL."""

    async def session(socket: ServerConnection) -> None:
        assert socket.request is not None
        assert socket.request.headers["Authorization"] == "Bearer the-key"
        async for frame in socket:
            message = msgpack.unpackb(frame)
            if message["type"] == "session.open":
                await socket.send(msgpack.packb({"type": "session.opened", "id": message["id"], "session": "s"}))
            else:
                await socket.send(msgpack.packb(answer(message)))

    subprotocols = [Subprotocol("emberlog.v1.msgpack")]
    async with serve(session, "127.0.0.1", 0, subprotocols=subprotocols, compression=None, max_size=None) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def options(url: str, **more: Any) -> LoadOptions:
    given_options: dict[str, Any] = {
        "agents": 3,
        "dimensions": 16,
        "warmup": 0.05,
        "seconds": 0.2,
        "verify_every": 1,
    } | more
    return LoadOptions(url=url, key="the-key", **given_options)


class TestLoad:
    @pytest.mark.parametrize("texts", [1, 3, 2000])
    async def test_every_agent_gets_its_own_vectors_at_every_frame_size(self, texts: int) -> None:
        async with gateway(right) as url:
            phases: list[str] = []
            result = await Load(options(url, texts=texts), phases.append).run()
        assert phases == ["ready", "measuring", "measured"]
        assert result.answered > 3
        assert (result.errors, result.wrong, result.unanswered) == ({}, 0, 0)
        assert result.verified == result.answered
        assert result.latency.count == result.requests <= result.answered
        assert result.texts == result.requests * texts
        assert msgspec.structs.asdict(result.timings) == pytest.approx(TIMINGS)

    async def test_a_vector_that_belongs_to_another_text_is_noticed(self) -> None:
        def mixed_up(message: dict[str, Any]) -> dict[str, Any]:
            return right(message | {"input": message["input"] + "?"})

        async with gateway(mixed_up) as url:
            result = await Load(options(url)).run()
        assert result.wrong > 0
        assert (result.answered, result.requests) == (0, 0)

    async def test_an_answer_of_a_wrong_size_is_noticed_without_looking_at_numbers(self) -> None:
        def short(message: dict[str, Any]) -> dict[str, Any]:
            answer = right(message)
            return answer | {"vectors": answer["vectors"][:-4]}

        async with gateway(short) as url:
            result = await Load(options(url, verify_every=0)).run()
        assert result.wrong > 0
        assert result.answered == 0

    async def test_errors_are_counted_by_their_code_and_the_agent_goes_on(self) -> None:
        seen = 0

        def now_and_then(message: dict[str, Any]) -> dict[str, Any]:
            nonlocal seen
            seen += 1
            if seen % 4 == 0:
                return {
                    "type": "error",
                    "id": message["id"],
                    "code": "overloaded",
                    "message": "full",
                    "retryable": True,
                }
            return right(message)

        async with gateway(now_and_then) as url:
            result = await Load(options(url)).run()
        assert result.errors == {"overloaded": seen // 4}
        assert result.answered == seen - seen // 4

    async def test_at_an_offered_rate_as_many_requests_are_sent_as_are_due(self) -> None:
        async with gateway(right) as url:
            result = await Load(options(url, rate=200.0, warmup=0.1, seconds=0.5)).run()
        assert 60 <= result.answered <= 200 * (0.1 + result.seconds) * 1.2
        assert result.unanswered == 0

    async def test_a_gateway_that_refuses_the_upgrade_is_reported(self) -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConnectionError, match="HTTP 401"):
                await Load(options(f"http://127.0.0.1:{port}")).run()

    async def test_a_closed_session_is_counted_with_its_code(self) -> None:
        async def hang_up(socket: ServerConnection) -> None:
            await socket.recv()
            await socket.send(msgpack.packb({"type": "session.opened", "id": "open"}))
            await socket.recv()
            await socket.close(1012)

        async with serve(hang_up, "127.0.0.1", 0, subprotocols=[Subprotocol("emberlog.v1.msgpack")]) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            result = await Load(options(url, agents=2)).run()
        assert result.errors == {"closed with 1012": 2}
        assert result.unanswered == 2


class TestTexts:
    def test_no_two_texts_are_alike_and_their_size_is_about_what_was_asked(self) -> None:
        texts = TextSource(130, 0.0, 1).take(5000)
        assert len(set(texts)) == 5000
        assert all(100 <= len(text) <= 160 for text in texts)

    def test_two_runs_share_no_text_even_with_the_same_seed(self) -> None:
        first, second = (set(TextSource(130, 0.5, 1).take(5000)) for _ in range(2))
        assert first.isdisjoint(second)

    def test_a_share_of_repeats_comes_from_a_small_pool(self) -> None:
        texts = TextSource(130, 0.5, 1).take(10_000)
        shared = [text for text in texts if text.startswith("shared")]
        assert len(shared) == pytest.approx(5000, abs=300)
        assert len(set(shared)) <= 1000


class TestLatency:
    @given(st.lists(st.floats(1e-6, 100.0), min_size=1, max_size=200), st.sampled_from([1.0, 50.0, 90.0, 99.0, 100.0]))
    def test_percentiles_are_right_to_within_a_bucket(self, seconds: list[float], percent: float) -> None:
        exact = sorted(seconds)[math.ceil(len(seconds) * percent / 100) - 1] * 1e3
        found = Latency.of(np.array(seconds)).percentile(percent)
        assert found is not None
        assert exact / GROWTH * 0.999 <= found <= exact * GROWTH * 1.001

    @given(st.lists(st.floats(1e-6, 10.0), max_size=50), st.lists(st.floats(1e-6, 10.0), max_size=50))
    def test_two_processes_histograms_add_up_to_one(self, left: list[float], right: list[float]) -> None:
        together = Latency.of(np.array(left + right))
        added = Latency.of(np.array(left)) + Latency.of(np.array(right))
        assert (added.count, added.buckets, added.max_us) == (together.count, together.buckets, together.max_us)

    def test_nothing_has_no_percentiles(self) -> None:
        assert set(Latency().summary().values()) == {None}


class TestReport:
    def measured(self, **more: Any) -> Measured:
        load = LoadResult(
            requests=1000, answered=1500, texts=1000, seconds=2.0, errors={}, wrong=0, verified=10, unanswered=0, cpu_seconds=0.5,
            latency=Latency.of(np.full(1000, 0.02)), timings=Timings(),
        )  # fmt: skip
        return Measured(
            scenario=Scenario(name="one", agents=8, provider_ms=5.0, mark=3000.0), load=load, events=3000, peak_memory=1,
            cpu={"gateway": 0.3, "postgres": 0.5, "valkey": 0.1}, provider=Stats(calls=20, inputs=1000), **more,
        )  # fmt: skip

    def test_the_figures_follow_from_what_was_measured(self) -> None:
        figures = self.measured().figures()
        assert figures["requests_per_s"] == 500.0
        assert figures["cpu_us_per_request"] == pytest.approx(
            {"gateway": 300.0, "postgres": 500.0, "valkey": 100.0, "whole": 900.0}
        )
        assert figures["texts_per_provider_call"] == 50.0
        assert (figures["events_per_request"], figures["events_per_s"]) == (2.0, 1000.0)

    def test_the_table_shows_each_scenario_and_whether_the_mark_was_reached(self) -> None:
        console = Console(width=120, file=io.StringIO(), record=True)
        machine = {
            "gateway_cores": [0],
            "simulator_cores": [1],
            "load_cores": [1],
            "service_cores": [0, 1],
            "fsync": "on",
        }
        slow = self.measured().figures()
        show(
            [slow, slow | {"scenario": "two", "requests_per_s": 3001.0, "errors": {"overloaded": 4}}], machine, console
        )
        text = console.export_text()
        assert "3,001" in text
        assert "one: at least 3,000 requests/s: not reached" in text
        assert "two: at least 3,000 requests/s: reached" in text
        assert "overloaded" in text

    def test_the_standard_scenarios_hold_the_mark_of_the_closed_loop(self) -> None:
        scenarios = standard(64, 5.0, 2000.0)
        assert [s.mark for s in scenarios if s.mark] == [3000.0]
        assert (scenarios[0].agents, scenarios[0].texts, scenarios[0].rate) == (64, 1, None)


class TestCpu:
    async def test_the_processor_time_of_a_process_and_its_children_is_counted_and_they_keep_to_their_cores(
        self,
    ) -> None:
        cores = Cores()
        before = os.sched_getaffinity(0)
        with pinned(cores.gateway):
            process = await asyncio.create_subprocess_exec(
                "sh", "-c", "while :; do :; done & wait", stdout=asyncio.subprocess.DEVNULL, start_new_session=True
            )
        try:
            assert os.sched_getaffinity(0) == before
            assert os.sched_getaffinity(process.pid) == cores.gateway
            await until(lambda: cpu_seconds(process.pid).get("gateway", 0.0) >= 0.03, what="processor time", timeout=30)
            assert len(family(process.pid)) == 2
        finally:
            os.killpg(process.pid, 9)
            await process.wait()
        assert cpu_seconds(process.pid) == {}
