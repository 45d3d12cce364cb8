"""Waiting for what another process does. Inside one process wait for the event itself; this is for what nobody can tell us."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


@overload
async def until(probe: Callable[[], Awaitable[T]], *, what: str, timeout: float = ...) -> T: ...
@overload
async def until(probe: Callable[[], T], *, what: str, timeout: float = ...) -> T: ...
async def until(probe: Callable[[], T | Awaitable[T]], *, what: str, timeout: float = 10.0) -> T:
    """Repeat `probe` (sync or async) until it returns something true, and return that. Fails after `timeout` seconds, saying `what`."""
    give_up = time.monotonic() + timeout
    pause = 0.002
    while True:
        found = probe()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {timeout} s: {what}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.05)
