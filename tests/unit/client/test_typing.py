from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[3]
USE = Path(__file__).with_name("typing_api.py")


def check(path: Path, cache: Path) -> tuple[str, int]:
    out, _, status = api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--warn-unused-ignores", "--cache-dir", str(cache), str(path)]
    )
    return out, status


def test_a_typed_caller_is_understood_and_its_mistakes_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    cache = tmp_path / "cache"
    out, status = check(USE, cache)
    assert status == 0, out
    wrong = tmp_path / "wrong.py"  # the check can fail: each ignored mistake is one
    lines = USE.read_text().splitlines()
    wrong.write_text("\n".join(line.split("  # type: ignore")[0] for line in lines))
    out, status = check(wrong, cache)
    assert status == 1
    assert out.count(": error: ") == 4, out
