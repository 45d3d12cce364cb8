"""JSON objects as signatures need them read: one meaning each, whatever other parsers make of it."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def strict_object(data: bytes) -> dict[str, Any]:
    """The object, whose members are named once each, all the way down. Raises ValueError for anything else."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_members_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _members_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a member is there twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError("a number is none")
