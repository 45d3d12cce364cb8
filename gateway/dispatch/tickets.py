"""The requests that wait in the dispatcher, and how one leaves: answered, failed or withdrawn."""

from __future__ import annotations

from domain.errors import GatewayError
from domain.events import Attempt
from gateway.dispatch.flights import Ticket
from gateway.dispatch.ports import Waiter


class Tickets:
    """The open tickets, by the identity of their waiters."""

    def __init__(self) -> None:
        self._open: dict[int, Ticket] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, waiter: Waiter) -> bool:
        return id(waiter) in self._open

    def add(self, ticket: Ticket) -> None:
        """Open a ticket."""
        self._open[id(ticket.waiter)] = ticket

    def end(self, ticket: Ticket) -> None:
        """All its texts are in."""
        ticket.ended = True
        ticket.flights = []
        del self._open[id(ticket.waiter)]

    def withdraw(self, waiter: Waiter) -> None:
        """The waiter wants nothing any more; texts that nobody else wants and that were not sent are dropped."""
        ticket = self._open.get(id(waiter))
        if ticket is not None:
            self._leave(ticket)

    def fail(self, ticket: Ticket, error: GatewayError, attempts: tuple[Attempt, ...]) -> None:
        """Fail the request whole. Nothing happens where it has ended already."""
        if not ticket.ended:
            self._leave(ticket)
            ticket.waiter.fail(error, attempts)

    def fail_all(self, error: GatewayError) -> None:
        """Fail every open request."""
        for ticket in list(self._open.values()):
            self.fail(ticket, error, ())

    def _leave(self, ticket: Ticket) -> None:
        flights = ticket.flights
        self.end(ticket)
        for flight in flights:
            if not flight.done:
                flight.leave(ticket)
                if flight.queued and not flight.wanted:
                    ticket.lane.drop(flight)
