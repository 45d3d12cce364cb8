"""What the dispatcher and the requests it serves ask of each other."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.errors import GatewayError
from domain.events import Attempt
from domain.ports.provider import Text


class Item(msgspec.Struct, frozen=True, gc=False):
    """One text to embed: its index in the request, its keyed fingerprint (16 bytes, tenant and space included), its token count."""

    index: int
    key: bytes
    text: Text
    tokens: int


class CallReport(msgspec.Struct, frozen=True, gc=False):
    """A provider call that answered: where, when it was sent (loop time, seconds), how long it took, and the failed tries before it."""

    endpoint: str
    provider: str
    sent_at: float
    seconds: float
    texts: int
    attempts: tuple[Attempt, ...] = ()


class Waiter(Protocol):
    """A request whose texts are in the dispatcher. All methods are called on the loop and must not block or raise.

    For each item exactly one of `fill` and `fail` is called, unless the waiter is withdrawn first. `fail` ends the whole request: the
    dispatcher calls nothing on the waiter after it. `charge` is called for an item when its text goes into a provider call for the
    first time and this waiter pays for it (the first asker of a shared text); never for followers.
    """

    tenant: str
    agent: str
    deadline: float
    """Loop time in seconds; texts not sent by then are dropped by whoever withdraws the waiter."""

    def charge(self, index: int, tokens: int) -> None:
        """The text at `index` is being sent and this request pays `tokens` for it; negative: the provider refused the call and charges nothing for it, so what was charged is taken back."""
        ...

    def fill(self, index: int, row: NDArray[np.float32]) -> None:
        """The vector of the text at `index`: shape (dimensions,), a view that stays valid and is not written to again."""
        ...

    def flush(self, report: CallReport) -> None:
        """A call has filled one or more rows of this request (all its rows of that call are in)."""
        ...

    def fail(self, error: GatewayError, attempts: tuple[Attempt, ...]) -> None:
        """The request fails whole."""
        ...
