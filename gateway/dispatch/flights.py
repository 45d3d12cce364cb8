"""A text on its way to a provider (flight), a request that waits for texts (ticket), and the texts of one call (batch)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from domain.events import Attempt
from domain.ports.provider import Text
from gateway.dispatch.ports import Waiter

if TYPE_CHECKING:
    from gateway.dispatch.fairness import AgentQueue
    from gateway.dispatch.lane import Lane
    from gateway.dispatch.trials import Trial


class Load(msgspec.Struct, eq=False):
    """How much is queued, of one tenant or in all."""

    texts: int = 0
    tokens: int = 0


class Ticket(msgspec.Struct, eq=False):
    """One submission of one waiter. `open` counts its items that are neither filled, handed over nor failed.

    `several` says that its waiter has, or had, more than one at once; `next` is the one opened before it.
    `since` is when it was opened, in loop time; `before` how many failed calls its texts had been in elsewhere by then.
    """

    waiter: Waiter
    lane: Lane
    deadline: float
    open: int
    flights: list[Flight]
    ended: bool = False
    touched_by: Batch | None = None
    several: bool = False
    next: Ticket | None = None
    since: float = 0.0
    before: int = 0


class Flight(msgspec.Struct, eq=False):
    """One text in a lane, shared by everybody who asked for it while it was there.

    `asker` is the first who asked (None once it left), `index` the text's place in its request; `more` are the others in the order
    they came, and further places in the same request. Whoever is first when the text is sent pays for it. While `queued`, the
    flight stands in the queue of its first asker's agent (`home`) and of every other agent that asked (`also`). `before` is how many
    failed calls it has been in elsewhere.
    """

    key: bytes
    text: Text
    tokens: int
    since: float
    home: AgentQueue
    asker: Ticket | None
    index: int
    before: int = 0
    also: list[AgentQueue] | None = None
    more: dict[Ticket, list[int]] | None = None
    queued: bool = True
    charged: bool = False
    done: bool = False

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return self.asker is not None or bool(self.more)

    def join(self, ticket: Ticket, index: int) -> None:
        """Another asker, or another place in the same request."""
        if self.more is None:
            self.more = {}
        self.more.setdefault(ticket, []).append(index)

    def leave(self, ticket: Ticket) -> None:
        """The asker does not want it any more."""
        if self.asker is ticket:
            self.asker = None
        if self.more:
            self.more.pop(ticket, None)

    def payer(self) -> tuple[Ticket, int]:
        """The first asker that is still there, and the text's place in its request. Call only while `wanted`."""
        if self.asker is None:
            assert self.more
            ticket = next(iter(self.more))
            places = self.more[ticket]
            self.asker, self.index = ticket, places.pop(0)
            if not places:
                del self.more[ticket]
        return self.asker, self.index

    def askers(self) -> Iterator[tuple[Ticket, int]]:
        """Every asker and place, the payer first."""
        if self.asker is not None:
            yield self.asker, self.index
        for ticket, places in (self.more or {}).items():
            for index in places:
                yield ticket, index

    def deadline(self) -> float:
        """The latest deadline among the askers; minus infinity when there is none."""
        latest = self.asker.deadline if self.asker is not None else float("-inf")
        if self.more:
            latest = max(latest, *(ticket.deadline for ticket in self.more))
        return latest


class Batch(msgspec.Struct, eq=False):
    """Texts that go into one call. `attempts` are the failed calls that they were in here; `tries` counts those that were not about size or
    a bad text. With a `trial` they are sent to find out which of them is bad.
    """

    flights: list[Flight]
    attempts: tuple[Attempt, ...] = ()
    tries: int = 0
    first_sent_at: float = 0.0
    failed_seconds: float = 0.0
    trial: Trial | None = None

    def part(self, flights: list[Flight]) -> Batch:
        """Some of its texts, which have been through what it has been through."""
        return Batch(flights, self.attempts, self.tries, self.first_sent_at, self.failed_seconds, self.trial)
