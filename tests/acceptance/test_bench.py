"""`emberlog bench`, shortened: whole processes, real figures."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path


async def test_the_bench_measures_every_scenario_and_finds_no_wrong_answer(folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "bench", "--seconds", "1", "--agents", "8", "--rate", "200", "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=folder, env={**os.environ},
    )  # fmt: skip
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-2000:]
    document = json.loads(out)
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
