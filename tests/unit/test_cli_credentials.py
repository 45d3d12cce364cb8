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


def test_a_secret_that_is_typed_is_not_shown_and_no_text_is_refused_without_a_word_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("must not be read with its echo on"))
    monkeypatch.setattr("getpass.getpass", lambda prompt, stream: "typed")
    assert _secret(None) == "typed"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"sk-1\xff"), encoding="utf-8"))
    with pytest.raises(typer.BadParameter, match="UTF-8") as caught:
        _secret(None)
    assert "sk-1" not in str(caught.value)


def test_no_command_takes_a_secret_as_an_argument() -> None:
    command = typer.main.get_command(app)
    names = {p.name for sub in command.commands.values() for p in sub.params}  # type: ignore[attr-defined]
    assert "secret_env" in names
    assert "secret" not in names
