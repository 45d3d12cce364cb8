"""Which release this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def server_version() -> str:
    """The installed distribution's version; "0" when it runs from a bare checkout."""
    try:
        return version("emberlog")
    except PackageNotFoundError:
        return "0"
