"""`emberlog demo`, with less text than `make demo` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.site import Site


@pytest.mark.usefixtures("_plain_environment")
async def test_the_demo_survives_its_own_accident_and_ends_with_exit_code_0(folder: Path) -> None:
    ended = await Site(folder, None).run("demo", "--texts", "200", timeout=120)
    assert ended.code == 0, ended.err
    for told in ("killed the gateway", "gateway is back", "nearest docstrings", "usage", "texts per call", "To go on"):
        assert told in ended.out, f"the demo does not show {told!r}:\n{ended.out}"
