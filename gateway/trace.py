"""Trace context (W3C): the trace id that errors, log lines and `traceparent` headers share. Ids are made only where one is shown."""

from __future__ import annotations

import re
from os import urandom

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NONE = "0" * 32


def new_trace_id() -> str:
    """A random trace id: 32 hex digits."""
    return urandom(16).hex()


def context_of(traceparent: str | None) -> str | None:
    """What a `traceparent` header says: trace id, the caller's span id and flags, as `<32>-<16>-<2>` hex digits.

    None when there is none or it breaks the rules, which the standard says to ignore. The first 32 characters are the trace id.
    """
    match = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    if (
        match is None
        or match[1] == "ff"
        or match[2] == _NONE
        or match[3] == "0" * 16
        or (match[1] == "00" and match[5])
    ):
        return None
    return f"{match[2]}-{match[3]}-{match[4]}"


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id of a `traceparent` header, or None."""
    context = context_of(traceparent)
    return None if context is None else context[:32]


def traceparent(trace_id: str, flags: str = "01") -> str:
    """A `traceparent` header of this trace with a new parent id."""
    return f"00-{trace_id}-{urandom(8).hex()}-{flags}"
