"""One provider call: made within its time, its answer handed to everybody who waits for a row of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from domain.ports.provider import EmbedAnswer, EmbedCall, Provider, ProviderError, ProviderFault
from gateway.dispatch.flights import Batch, Ticket
from gateway.dispatch.ports import CallReport
from gateway.dispatch.tickets import Tickets

if TYPE_CHECKING:
    from gateway.dispatch.lane import Lane

_GRACE = 1.0
"""Seconds that an adapter gets beyond the call's own timeout to report it, before the call is cancelled."""


async def embed(provider: Provider, call: EmbedCall, dimensions: int) -> EmbedAnswer | ProviderError:
    """The provider's answer, of vectors of `dimensions`, or what went wrong. Nothing but cancellation is raised, whatever the adapter does."""
    try:
        async with asyncio.timeout(call.timeout + _GRACE):
            answer = await provider.embed(call)
    except ProviderError as error:
        return error
    except TimeoutError:
        return ProviderError(ProviderFault.TIMEOUT, f"no answer within {call.timeout:.3f} s")
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a provider adapter raised something other than ProviderError", "exception": error}
        )
        return ProviderError(ProviderFault.SERVER, f"the adapter failed with {type(error).__name__}")
    if len(answer.vectors) != len(call.texts):
        return ProviderError(ProviderFault.BAD_ANSWER, f"{len(answer.vectors)} vectors for {len(call.texts)} texts")
    if answer.vectors.shape[1] != dimensions:
        return ProviderError(
            ProviderFault.BAD_ANSWER, f"vectors of {answer.vectors.shape[1]} dimensions, expected {dimensions}"
        )
    return answer


def deliver(lane: Lane, tickets: Tickets, batch: Batch, answer: EmbedAnswer, report: CallReport) -> int:
    """Fill every waiter's rows, then flush each waiter once. Returns how many requests are now complete.

    Rows are views: a waiter that keeps one keeps the whole call's array in memory, so what lives on (a cache) must copy.
    """
    touched: list[Ticket] = []
    for flight, row in zip(batch.flights, answer.vectors, strict=True):
        flight.done = True
        del lane.flights[flight.key]
        ticket, more = flight.asker, flight.more
        if ticket is not None and not ticket.ended:
            ticket.open -= 1
            if ticket.touched_by is not batch:
                ticket.touched_by = batch
                touched.append(ticket)
            ticket.waiter.fill(flight.index, row)
        if more:
            for follower, places in more.items():
                for index in places:
                    if not follower.ended:
                        follower.open -= 1
                        if follower.touched_by is not batch:
                            follower.touched_by = batch
                            touched.append(follower)
                        follower.waiter.fill(index, row)
    complete = 0
    flushed: set[int] = set()
    for ticket in touched:
        if ticket.ended:
            continue
        ticket.touched_by = None
        if not ticket.open:
            tickets.end(ticket)
            complete += 1
        if ticket.several:
            if id(ticket.waiter) in flushed:
                continue
            flushed.add(id(ticket.waiter))
        ticket.waiter.flush(report)
    return complete
