"""A vector space by name. Vectors may be compared only within one space; the name says nothing of a provider."""

from __future__ import annotations

INPUT_TYPES = ("query", "document", "classification", "clustering")
_OWN_SPACE = ("classification", "clustering")


def space_name(model: str, version: str, dimensions: int, unit: bool, input_type: str | None = None) -> str:
    """`<model>@<version>/<dimensions>/<unit|raw>`, with the input type appended where it has a space of its own.

    Queries, documents and untyped texts share one space: they are made to be compared with each other.
    """
    name = f"{model}@{version}/{dimensions}/{'unit' if unit else 'raw'}"
    return f"{name}/{input_type}" if input_type in _OWN_SPACE else name


def size_and_type(space: str) -> tuple[int, str | None]:
    """The dimensions and the input type that a space's name tells. Raises ValueError for what is no space's name."""
    _, at, rest = space.rpartition("@")
    parts = rest.split("/")
    if not at or len(parts) not in (3, 4) or (len(parts) == 4 and parts[3] not in _OWN_SPACE):
        raise ValueError(
            f"{space[:200]!r} is no space's name: expected <model>@<version>/<dimensions>/<unit|raw>[/<input type>]"
        )
    return int(parts[1]), parts[3] if len(parts) == 4 else None
