"""What `emberlog log verify` says on standard error while it walks."""

from __future__ import annotations

import sys

import pytest

from gateway.cli import log_verify


def test_without_a_terminal_lines_tell_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with log_verify._progress(1, quiet=False) as progress:
        progress(10_000, 30_000)
        now += 6
        progress(20_000, 30_000)
        progress(30_000, 30_000)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "verified up to position 20000 of 30000\n")


def test_on_a_terminal_there_is_a_bar_with_the_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with log_verify._progress(1, quiet=False) as progress:
        progress(10_000, 20_000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "50%" in captured.err
    assert "events/s" in captured.err


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_verify, "_LINE_SECONDS", 0.0)
    with log_verify._progress(1, quiet=True) as progress:
        progress(1, 2)
    assert capsys.readouterr() == ("", "")
