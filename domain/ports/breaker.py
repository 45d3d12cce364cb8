"""The circuit breaker port: whether an endpoint may be called, and what its calls say about it.

Faults of the endpoint count (timeouts, 5xx, connection errors); a 429, our clients' mistakes and cancellations are neutral.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Protocol, TypeVar

T = TypeVar("T")


class CircuitState(StrEnum):
    """Where a circuit stands. An open one becomes half open when its time has passed."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Permit(Protocol):
    """Leave to make one call. Either `run` or `give_back` is called, once."""

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Make the call and take its end into account. What `work` raises is raised as it is."""
        ...

    def give_back(self) -> None:
        """The call is not made after all."""
        ...


class Breaker(Protocol):
    """The breaker of one endpoint in this process. All methods are called on the loop and do not block."""

    @property
    def state(self) -> CircuitState:
        """As of now: an open one whose time has passed is half open."""
        ...

    @property
    def open_for(self) -> float:
        """Seconds until an open circuit lets trial calls through; 0 where it is not open."""
        ...

    def would_admit(self) -> bool:
        """Whether `admit` would give a permit now."""
        ...

    def admit(self) -> Permit | None:
        """A permit; None while the circuit is open, or half open with all its trial calls out."""
        ...
