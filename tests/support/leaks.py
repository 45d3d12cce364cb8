"""A search for secrets in everything that a database holds, in every form in which they may have got there.

A text counts as leaked when any 12 of its characters in a row are found, bytes (a key, a vector) when any aligned 12 of them are, as
they are, in hexadecimal or in base64 (of either alphabet, at any offset); a vector also by its components in decimal.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping

import asyncpg
import msgspec
import numpy as np
from numpy.typing import NDArray

WINDOW = 12

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
ORDER BY 1
"""


class Needle(msgspec.Struct, frozen=True):
    """A piece of a secret in one form. `exact` tells capitals apart (base64); hexadecimal and texts are found either way."""

    secret: str
    form: str
    piece: str
    exact: bool


async def dump(dsn: str) -> dict[str, str]:
    """Every row of every table of ours as text, one a line, by the table's name. `bytea` is hexadecimal there."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = [row[0] for row in await connection.fetch(_TABLES)]
        return {
            table: await connection.fetchval(f"SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {table} t")
            for table in tables
        }
    finally:
        await connection.close()


def of_texts(texts: Mapping[str, str]) -> list[Needle]:
    """What gives away a text: itself, and its UTF-8 bytes in the forms of bytes."""
    needles = []
    for name, text in texts.items():
        pieces = {text[i : i + WINDOW] for i in range(max(1, len(text) - WINDOW + 1))}
        needles += [Needle(name, "text", piece.casefold(), False) for piece in sorted(pieces)]
        needles += _of_bytes(name, text.encode())
    return needles


def of_keys(keys: Mapping[str, bytes]) -> list[Needle]:
    """What gives away bytes."""
    return [needle for name, key in keys.items() for needle in _of_bytes(name, key)]


def of_vectors(vectors: Mapping[str, NDArray[np.float32]]) -> list[Needle]:
    """What gives away a vector: its bytes in either order or as half floats, and its components written out, to six places."""
    needles = []
    for name, vector in vectors.items():
        for kind in ("<f4", ">f4", "<f2"):
            needles += _of_bytes(f"{name} as {kind}", vector.astype(kind).tobytes())
        needles += [
            Needle(name, "decimal", f"{abs(x):.9f}"[:8], True) for x in vector[:8].tolist() if 0.001 < abs(x) < 1
        ]
    return needles


def _of_bytes(name: str, secret: bytes) -> Iterator[Needle]:
    for start in range(0, max(1, len(secret) - WINDOW + 1), WINDOW):
        piece = secret[start : start + WINDOW]
        yield Needle(name, "hexadecimal", piece.hex(), False)
        for offset in range(3):
            # Of the characters that hold these bytes at this offset, those that hold nothing else.
            first, last = -(-offset * 8 // 6), (offset + len(piece)) * 8 // 6
            coded = b64encode(bytes(offset) + piece).decode()[first:last]
            for alphabet in {coded, coded.translate(str.maketrans("+/", "-_"))}:
                yield Needle(name, "base64", alphabet, True)


def leaks(content: Mapping[str, str], needles: Iterable[Needle]) -> list[str]:
    """Which secret stands in which table, and in which form. The piece found is not repeated."""
    found = set()
    folded = {place: text.casefold() for place, text in content.items()}
    for needle in needles:
        for place in content:
            if needle.piece in (content if needle.exact else folded)[place]:
                found.add(f"{needle.secret} is in {place} ({needle.form})")
    return sorted(found)
