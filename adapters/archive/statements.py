"""SQL that lives in `.sql` files beside the code."""

from __future__ import annotations

from importlib.resources import files


def statement(name: str) -> str:
    """The text of `adapters/archive/<name>.sql`."""
    return files("adapters.archive").joinpath(f"{name}.sql").read_text("utf-8")
