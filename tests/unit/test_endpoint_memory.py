"""How much memory is left: the least of what the machine and the group of processes say."""

from __future__ import annotations

from pathlib import Path

from gateway.endpoints.memory import available_memory


def test_the_least_that_is_left_counts_and_what_says_nothing_does_not(tmp_path: Path) -> None:
    assert available_memory(tmp_path, tmp_path) is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:     2000 kB\n")
    assert available_memory(tmp_path, tmp_path) == 2000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert available_memory(tmp_path, tmp_path) == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path, tmp_path) == 2000 * 1024
    (tmp_path / "meminfo").write_text("MemAvailable:\n")
    assert available_memory(tmp_path, tmp_path) is None
