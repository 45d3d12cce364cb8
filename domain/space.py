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
