"""Trace context (W3C): the trace id that errors, log lines and `traceparent` headers share. Ids are made only where one is shown."""

from __future__ import annotations

import re
from os import urandom

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NONE = "0" * 32


def new_trace_id() -> str:
    """A random trace id: 32 hex digits."""
    return urandom(16).hex()


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id of a `traceparent` header; None when there is none or it breaks the rules, which the standard says to ignore."""
    match = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    if (
        match is None
        or match[1] == "ff"
        or match[2] == _NONE
        or match[3] == "0" * 16
        or (match[1] == "00" and match[5])
    ):
        return None
    return match[2]


def traceparent(trace_id: str, flags: str = "01") -> str:
    """A `traceparent` header of this trace with a new parent id."""
    return f"00-{trace_id}-{urandom(8).hex()}-{flags}"
