"""The `id` of a message that cannot be decoded as a whole, so that its sender learns which one was refused."""

from __future__ import annotations

_FIXED = {
    0xC0: 0,
    0xC2: 0,
    0xC3: 0,
    0xCA: 4,
    0xCB: 8,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
}
"""First byte of a MessagePack scalar -> how many bytes follow it."""
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""First byte of a string or binary -> how many bytes of length follow it."""
_FIELDS = 32


def salvage_id(data: bytes) -> str | None:
    """The `id` among the fields before the first list or map in a MessagePack map, if it is a valid one."""
    if not data:
        return None
    first = data[0]
    if 0x80 <= first <= 0x8F:
        at = 1
    elif first in (0xDE, 0xDF):
        at = 3 if first == 0xDE else 5
    else:
        return None
    for _ in range(_FIELDS):
        key = _span(data, at)
        value = _span(data, key[1]) if key is not None else None
        if key is None or value is None:
            return None
        if data[key[0] : key[1]] == b"id":
            kind = data[key[1]]
            return _valid(data[value[0] : value[1]]) if 0xA0 <= kind <= 0xBF or kind == 0xD9 else None
        at = value[1]
    return None


def _span(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of the scalar at `at` starts and ends; None for a container, or where the data ends first."""
    if at >= len(data):
        return None
    first = data[at]
    if first <= 0x7F or first >= 0xE0:
        start = end = at + 1
    elif 0xA0 <= first <= 0xBF:
        start, end = at + 1, at + 1 + (first & 0x1F)
    elif first in _FIXED:
        start, end = at + 1, at + 1 + _FIXED[first]
    elif first in _SIZED:
        start = at + 1 + _SIZED[first]
        end = start + int.from_bytes(data[at + 1 : start], "big")
    else:
        return None
    return (start, end) if end <= len(data) else None


def _valid(raw: bytes) -> str | None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if 1 <= len(text) <= 64 and "\0" not in text else None
