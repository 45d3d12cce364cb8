"""What a log line says of an exception, seen from outside: a process of its own, for logging is set up once a process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, gc, logging, sys
import structlog
from gateway.telemetry.logs import configure_logs

configure_logs("debug", sys.argv[1])

def deep(text):
    raise ValueError(f"cannot take {text!r}")

def through():
    try:
        deep("zanzibar" + "-quartz")
    except ValueError as error:
        raise RuntimeError("about zanzibar" + "-quartz") from error

try:
    through()
except RuntimeError as error:
    structlog.get_logger("emberlog.test").error("ours", exc_info=error)
    logging.getLogger("somebody.else").exception("theirs")

async def main():
    async def fail():
        deep("zanzibar" + "-quartz")
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
    gc.collect()

asyncio.run(main())
structlog.get_logger("emberlog.test").error("errno", exc_info=OSError(2, "zanzibar" + "-quartz"))
structlog.get_logger("emberlog.test").error("plain")
"""


def run(form: str) -> str:
    ended = subprocess.run([sys.executable, "-c", SCRIPT, form], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == ""
    return ended.stderr


def test_a_traceback_says_where_and_what_kind_but_not_what_the_exception_says() -> None:
    text = run("json")
    assert "quartz" not in text
    lines = {line["event"]: line for line in map(json.loads, text.splitlines())}
    for event in ("ours", "theirs"):
        told = lines[event]["exception"]
        assert "builtins.ValueError" in told.partition("which led to:")[0]
        assert told.endswith("builtins.RuntimeError")
        assert " in deep" in told
    assert "builtins.ValueError" in lines["Task exception was never retrieved"]["exception"]
    assert lines["errno"]["exception"] == "builtins.FileNotFoundError (errno 2)"
    assert "exception" not in lines["plain"]


def test_the_form_for_terminals_says_no_more() -> None:
    text = run("console")
    assert "quartz" not in text
    assert "builtins.ValueError" in text


def test_the_search_would_find_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = SCRIPT.replace("import structlog\n", "import structlog\nimport gateway.telemetry.logs as logs\nlogs.where = structlog.processors.format_exc_info\n", 1)  # fmt: skip
    monkeypatch.setattr("tests.unit.test_logs.SCRIPT", usual)
    assert "quartz" in run("json")
