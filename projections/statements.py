"""Where SQL comes from: files beside the code."""

from __future__ import annotations

from importlib.resources import files


def statement(package: str, name: str) -> str:
    """The text of `<name>.sql` in `package`."""
    return files(package).joinpath(f"{name}.sql").read_text(encoding="utf-8")
