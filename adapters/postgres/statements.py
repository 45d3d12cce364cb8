"""SQL that lives in `.sql` files beside the code."""

from __future__ import annotations

from importlib.resources import files


def statement(name: str) -> str:
    """The text of `adapters/postgres/<name>.sql`."""
    return files("adapters.postgres").joinpath(f"{name}.sql").read_text("utf-8")
