"""`emberlog credentials set`: where the secret comes from, and that it is never an argument."""

from __future__ import annotations

import io

import pytest
import typer

from gateway.cli.credentials import _secret, app


def test_a_secret_is_read_from_standard_input_or_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a key": "in JSON"}\n'))
    assert _secret(None) == '{"a key": "in JSON"}\n'
    monkeypatch.setenv("MY_SECRET", "sk-1")
    assert _secret("MY_SECRET") == "sk-1"
    with pytest.raises(typer.BadParameter, match="NOT_THERE is not set"):
        _secret("NOT_THERE")


def test_no_command_takes_a_secret_as_an_argument() -> None:
    command = typer.main.get_command(app)
    names = {p.name for sub in command.commands.values() for p in sub.params}  # type: ignore[attr-defined]
    assert "secret_env" in names
    assert "secret" not in names
