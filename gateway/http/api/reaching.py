"""What a route says while the database that it needs beside the log is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adapters.postgres.pool import UNREACHABLE
from domain.ports.event_log import LogUnavailable
from gateway.service.refusals import log_error


@contextmanager
def reaching() -> Iterator[None]:
    """Raises `unavailable` where the database cannot be reached."""
    try:
        yield
    except UNREACHABLE:
        raise log_error(LogUnavailable()) from None
