"""The requests that wait in the dispatcher, and how one leaves: answered, failed or withdrawn."""

from __future__ import annotations

from collections.abc import Iterator

from domain.errors import GatewayError
from domain.events import Attempt
from domain.ports.provider import ProviderFault
from gateway.dispatch.flights import Ticket
from gateway.dispatch.ports import Waiter


class Tickets:
    """The open tickets, by the identity of their waiters. A waiter has several while its texts are in several lanes, or came in several parts."""

    def __init__(self) -> None:
        self._open: dict[int, Ticket] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, waiter: Waiter) -> bool:
        return id(waiter) in self._open

    def add(self, ticket: Ticket) -> None:
        """Open a ticket."""
        key = id(ticket.waiter)
        first = self._open.get(key)
        if first is not None:
            ticket.next = first
            ticket.several = first.several = True
        self._open[key] = ticket

    def end(self, ticket: Ticket) -> None:
        """All its texts are in, or gone elsewhere."""
        ticket.ended = True
        ticket.flights = []
        key = id(ticket.waiter)
        if not ticket.several:
            del self._open[key]
            return
        rest = [t for t in self._of(key) if t is not ticket]
        if not rest:
            del self._open[key]
            return
        for one, following in zip(rest, [*rest[1:], None], strict=True):
            one.next = following
        self._open[key] = rest[0]

    def withdraw(self, waiter: Waiter) -> None:
        """The waiter wants nothing any more, in any lane; texts that nobody else wants and that were not sent are dropped."""
        for ticket in list(self._of(id(waiter))):
            self._leave(ticket)

    def fail(
        self,
        ticket: Ticket,
        error: GatewayError,
        attempts: tuple[Attempt, ...],
        fault: ProviderFault | None = None,
    ) -> None:
        """Fail the request whole, in all lanes. Nothing happens where it has ended already."""
        if not ticket.ended:
            self.withdraw(ticket.waiter)
            ticket.waiter.fail(error, attempts, fault)

    def fail_all(self, error: GatewayError) -> None:
        """Fail every open request."""
        for ticket in list(self._open.values()):
            self.fail(ticket, error, ())

    def _of(self, key: int) -> Iterator[Ticket]:
        ticket = self._open.get(key)
        while ticket is not None:
            yield ticket
            ticket = ticket.next

    def _leave(self, ticket: Ticket) -> None:
        flights = ticket.flights
        self.end(ticket)
        for flight in flights:
            if not flight.done:
                flight.leave(ticket)
                if flight.queued and not flight.wanted:
                    ticket.lane.drop(flight)
