"""Texts leave a lane after a failed call: for another endpoint, where their waiters know of one, or failed.

Every text that leaves is out of the lane before anybody is told: a waiter that asks again from within must not join what has just failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.ports.provider import ProviderError, ProviderFault
from gateway.dispatch.failures import Told
from gateway.dispatch.flights import Batch, Flight, Ticket

if TYPE_CHECKING:
    from gateway.dispatch.context import Context
    from gateway.dispatch.lane import Lane


class Leaving:
    """Those who leave a batch after `error`. First `part` and `give_up`, then `tell`: nothing is called on a waiter before that."""

    def __init__(self, lane: Lane, context: Context, batch: Batch, error: ProviderError) -> None:
        self._lane = lane
        self._context = context
        self._batch = batch
        self._error = error
        self._willing: dict[int, bool] = {}
        self._going: dict[int, tuple[Ticket, list[int]]] = {}
        self._failing: list[Flight] = []

    def part(self, flights: list[Flight]) -> list[Flight]:
        """Let those go that another endpoint takes. Returns the flights that somebody still wants here; they have new payers where needed."""
        if not self._error.fault.elsewhere:
            return flights
        staying = []
        for flight in flights:
            for ticket, index in list(flight.askers()):
                if not ticket.ended and self._goes(ticket):
                    key = id(ticket.waiter)
                    if key not in self._going:
                        self._going[key] = (ticket, [])
                    self._going[key][1].append(index)
                    ticket.open -= 1
                    flight.leave(ticket)
                    if not ticket.open:
                        self._context.tickets.end(ticket)
            if flight.wanted:
                staying.append(flight)
            else:
                self._lane.drop(flight)
        return staying

    def give_up(self, flights: list[Flight]) -> None:
        """Fail whoever waits for these."""
        for flight in flights:
            self._lane.drop(flight)
        self._failing += flights

    def tell(self, final: Told) -> None:
        """Hand over what goes, then fail what was given up; `final` says what the asker of the text at an index is told."""
        attempts = self._batch.attempts
        for ticket, indexes in self._going.values():
            ticket.waiter.hand_over(indexes, self._error, attempts)
        fault: ProviderFault | None = self._error.fault if self._error.fault.elsewhere else None
        for flight in self._failing:
            for ticket, index in list(flight.askers()):
                if not ticket.ended:
                    self._context.tickets.fail(ticket, final(index), attempts, fault)

    def _goes(self, ticket: Ticket) -> bool:
        """Asked once of each waiter. One whose texts have been in as many calls as are made goes nowhere; whoever joined a text on its way has
        been in the last one alone.
        """
        waiter = ticket.waiter
        goes = self._willing.get(id(waiter))
        if goes is None:
            tries = self._batch.tries if ticket.since <= self._batch.first_sent_at else min(1, self._batch.tries)
            goes = self._willing[id(waiter)] = (
                ticket.before + tries < self._context.limits.max_attempts
                and waiter.elsewhere(self._error.fault, self._lane.candidate.endpoint.name)
            )
        return goes
