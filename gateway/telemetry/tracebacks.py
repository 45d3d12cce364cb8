"""Tracebacks for the log: where it happened and what kind of exception it was, never what the exception says.

An exception's message often quotes the value that it is about, and that may be somebody's text or key.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator

import structlog


def where(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A structlog processor: turns `exc_info` into `exception`, the frames and the names of the chain's exceptions."""
    given = event.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else (given if isinstance(given, tuple) else sys.exc_info())[1]
    if given and error is not None:
        event["exception"] = "\n".join(_chain(error))
    return event


def first_line(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A processor for lines of asyncio, which go on with the representation of a task and of the exception that ended it."""
    record = event.get("_record")
    if record is not None and record.name == "asyncio":
        event["event"] = str(event["event"]).partition("\n")[0]
    return event


def _chain(error: BaseException) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _chain(before)
        yield "which led to:"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"{frame.filename}:{frame.lineno} in {frame.name}"
    yield _kind(error)
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield "of which one is:"
            yield from _chain(part)


def _kind(error: BaseException) -> str:
    """The exception's name, with the codes of Postgres and of the system, which come from fixed lists."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    sqlstate, number = getattr(error, "sqlstate", None), getattr(error, "errno", None)
    if isinstance(sqlstate, str):
        return f"{name} (SQLSTATE {sqlstate})"
    return f"{name} (errno {number})" if isinstance(number, int) else name
