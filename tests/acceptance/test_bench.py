"""`emberlog bench`, shortened: whole processes, real figures."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any


async def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    """The document of `emberlog bench`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "bench", *arguments, "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=folder, env={**os.environ},
    )  # fmt: skip
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-2000:]
    document: dict[str, Any] = json.loads(out)
    return document


async def test_a_change_made_at_one_gateway_is_in_force_in_another_process_within_a_second(folder: Path) -> None:
    found = await bench(folder, "config", "--changes", "30")
    assert found["changes"] == 30
    assert 0 < found["in_force_elsewhere"]["p99_ms"] <= 1000


async def test_the_bench_measures_every_scenario_and_finds_no_wrong_answer(folder: Path) -> None:
    document = await bench(folder, "--seconds", "1", "--agents", "8", "--rate", "200")
    scenarios = document["scenarios"]
    assert len(scenarios) == 4
    for row in scenarios:
        assert row["requests"] > 0, row
        assert not row["errors"], row
        assert not row["wrong"], row
        assert row["requests_per_s"] > 0
        assert row["cpu_us_per_request"]["gateway"] > 0
        assert row["events_per_request"] >= 1.5, "each request commits two events"
        assert row["texts_per_provider_call"] >= 1
    assert any(row["mark_requests_per_s"] for row in scenarios)
