"""What the dispatcher and the requests it serves ask of each other."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.catalogue import Candidate
from domain.errors import GatewayError
from domain.events import Attempt
from domain.ports.provider import ProviderError, ProviderFault, Text


class Item(msgspec.Struct, frozen=True, gc=False):
    """One text to embed: its index in the request, its keyed fingerprint (16 bytes, tenant and space included), its token count.

    An `estimated` count is an upper bound: the waiter is told the provider's (`Waiter.counted`) where it gives one.
    """

    index: int
    key: bytes
    text: Text
    tokens: int
    estimated: bool = False


class CallReport(msgspec.Struct, frozen=True, gc=False):
    """A provider call that answered: where, when it was sent (loop time, seconds), how long it took, and the failed tries before it.

    `first_sent_at` is when its texts were first sent here, `failed_seconds` how long the failed calls took that they were in here: what
    else passed since they were submitted, they waited for a call, also between two tries.
    """

    endpoint: str
    provider: str
    sent_at: float
    seconds: float
    texts: int
    attempts: tuple[Attempt, ...] = ()
    first_sent_at: float = 0.0
    failed_seconds: float = 0.0


class Waiter(Protocol):
    """A request whose texts are in the dispatcher. All methods are called on the loop and must not block or raise.

    For each item exactly one of `fill`, `hand_over` and `fail` is called, unless the waiter is withdrawn first. `fail` ends the whole
    request: the dispatcher calls nothing on the waiter after it. What was handed over is out of the dispatcher: the waiter may submit it
    again in another lane, from within `hand_over` too, while others of its texts are still here. `charge` is called for an item when its
    text goes into a provider call and this waiter pays for it (the first asker of a shared text); never for followers.
    """

    tenant: str
    agent: str
    deadline: float
    """Loop time in seconds; texts not sent by then are dropped by whoever withdraws the waiter."""
    tries: int
    """Failed calls that its texts have been in elsewhere: they count against the most that are made."""

    def charge(self, index: int, tokens: int, candidate: Candidate) -> None:
        """The text at `index` is being sent to the candidate's endpoint and this request pays `tokens` for it; negative: the call failed, so what was charged is taken back."""
        ...

    def wasted(self, index: int, tokens: int, candidate: Candidate) -> None:
        """A call with the text at `index`, for which this request would have paid, failed, and the provider may charge us for it all the
        same: it answered with nothing of use, or not in time.
        """
        ...

    def counted(self, index: int, tokens: int) -> None:
        """The provider's count of the text at `index`, whose own count was an estimate, and at most that. Called before its `fill`, for every
        asker; whoever pays has had its charge taken back and was charged by this count.
        """
        ...

    def elsewhere(self, fault: ProviderFault, endpoint: str) -> bool:
        """Whether another endpoint than this would take its texts now, so that they need not be tried here again."""
        ...

    def hand_over(self, indexes: list[int], error: ProviderError, attempts: tuple[Attempt, ...]) -> None:
        """These texts failed here, and `elsewhere` has said that another endpoint takes them. `attempts` are the failed calls that they were
        in at this endpoint, the last one by `error`; they are not told again.
        """
        ...

    def fill(self, index: int, row: NDArray[np.float32]) -> None:
        """The vector of the text at `index`: shape (dimensions,), a view that stays valid and is not written to again."""
        ...

    def flush(self, report: CallReport) -> None:
        """A call has filled one or more rows of this request (all its rows of that call are in)."""
        ...

    def fail(self, error: GatewayError, attempts: tuple[Attempt, ...], fault: ProviderFault | None = None) -> None:
        """The request fails whole here. `fault` is what the endpoint did, where another model might still answer."""
        ...
