"""What long commands say on standard error while they work."""

from __future__ import annotations

import sys

import pytest

from gateway.cli.progress import progress


def test_without_a_terminal_lines_tell_how_far_it_is_and_how_long_it_will_take(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with progress("verifying") as advance:
        advance(10_000, 30_000)
        now += 10
        advance(20_000, 30_000)
        advance(30_000, 30_000)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "verifying: 20,000 of 30,000 events, 1,000/s, about 10 s left\n")


def test_on_a_terminal_there_is_a_bar_with_the_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("verifying") as advance:
        advance(10_000, 20_000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "50%" in captured.err
    assert "events/s" in captured.err
