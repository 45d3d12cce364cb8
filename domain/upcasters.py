"""Old events in today's shape: each step takes the data of one schema version of an event type to the next.

A type whose `SCHEMA` is n has the steps 1 to n-1. A step is pure and never fails on data that its version allowed; the log itself is
never rewritten. How to change a type is told in `tests/unit/domain/test_event_corpus.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from domain.events import EVENT_TYPES, EventData

Step = Callable[[dict[str, Any]], dict[str, Any]]

STEPS: dict[tuple[str, int], Step] = {}
"""(type name, schema version v) -> the function from its data of version v to that of v+1."""


class UnknownSchema(Exception):
    """An event has a schema version that this build does not know. The message says so and what to do, without the event's data."""


def upcast(
    event_type: str,
    schema_version: int,
    data: bytes,
    *,
    types: Mapping[str, type[EventData]] = EVENT_TYPES,
    steps: Mapping[tuple[str, int], Step] = STEPS,
) -> bytes:
    """The JSON data of the event in the current schema version of its type; the same object when it has that already.

    Raises `UnknownSchema` for a version below 1 or above the current one, KeyError for a type this build does not know.
    """
    current = types[event_type].SCHEMA
    if schema_version == current:
        return data
    if not 1 <= schema_version < current:
        raise UnknownSchema(
            f"{event_type} has schema version {schema_version}, this build knows 1 to {current}: run the build that wrote it, or a newer one"
        )
    fields = msgspec.json.decode(data, type=dict[str, Any])
    for version in range(schema_version, current):
        fields = steps[event_type, version](fields)
    return msgspec.json.encode(fields)
