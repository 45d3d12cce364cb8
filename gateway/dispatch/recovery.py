"""After a failed call: carry out what `failures.next_step` decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from domain.catalogue import Candidate
from domain.errors import GatewayError
from domain.events import Attempt
from domain.ports.provider import ProviderError, ProviderFault
from gateway.dispatch import failures
from gateway.dispatch.context import Context
from gateway.dispatch.flights import Batch, Flight

if TYPE_CHECKING:
    from gateway.dispatch.lane import Lane


def recover(
    lane: Lane, context: Context, candidate: Candidate, batch: Batch, error: ProviderError, seconds: float
) -> None:
    """Record the failed attempt and send the texts again, in parts or later, or fail who waits for them.

    A pause that the provider has asked for holds the lane even where this batch is given up.
    """
    attempt = Attempt(
        endpoint=candidate.endpoint.name, reason=error.fault.value, ms=round(seconds * 1000), status=error.status
    )
    batch.attempts = (*batch.attempts, attempt)
    flights = batch.flights
    if error.status is not None and error.status >= 400:
        _uncharge(flights)
    step = failures.next_step(
        error,
        texts=len(flights),
        tries=batch.tries + 1,
        remaining=max(f.deadline() for f in flights) - lane.now(),
        limits=context.limits,
        rng=context.rng,
    )
    if error.fault is ProviderFault.RATE_LIMITED and error.retry_after is not None:
        lane.pace(min(error.retry_after, context.limits.longest_pace))
    match step:
        case failures.Split():
            if step.learn:
                lane.learn(len(flights) // 2)
            for half in halves(flights, by_tenant=not step.learn):
                lane.resend(Batch(half, batch.attempts, batch.tries))
        case failures.Reject():
            _fail(
                lane, context, [flights[step.place]], batch.attempts, lambda index: failures.too_long(candidate, index)
            )
            if len(flights) > 1:
                lane.resend(Batch(flights[: step.place] + flights[step.place + 1 :], batch.attempts, batch.tries))
        case failures.Later():
            batch.tries += 1
            if step.pace:
                lane.pace(min(step.delay, context.limits.longest_pace))
                lane.resend(batch)
            else:
                lane.resend_after(step.delay, batch)
        case failures.GiveUp():
            _fail(
                lane,
                context,
                flights,
                batch.attempts,
                lambda index: failures.final(error, candidate, batch.attempts, index),
            )


def _uncharge(flights: list[Flight]) -> None:
    """The provider answered with an error and charges nothing: neither does whoever gives up before the next try owe anything."""
    for flight in flights:
        if flight.charged and flight.asker is not None:
            flight.charged = False
            flight.asker.waiter.charge(flight.index, -flight.tokens)


def _fail(
    lane: Lane,
    context: Context,
    flights: list[Flight],
    attempts: tuple[Attempt, ...],
    error: Callable[[int], GatewayError],
) -> None:
    for flight in flights:
        lane.drop(
            flight
        )  # all of them first: a waiter that asks again from within `fail` must not join what has just failed
    for flight in flights:
        for ticket, index in list(flight.askers()):
            if not ticket.ended:
                context.tickets.fail(ticket, error(index), attempts)


def halves(flights: list[Flight], *, by_tenant: bool) -> tuple[list[Flight], list[Flight]]:
    """Two parts of a batch (at least two texts). `by_tenant` cuts between tenants where it has several, as near to the middle as
    that goes, so that one tenant's bad text soon leaves the others' alone; else the parts are equal.
    """
    middle = len(flights) // 2
    if not by_tenant:
        return flights[:middle], flights[middle:]
    ordered = sorted(flights, key=lambda f: f.home.tenant.name)
    cuts = [i for i in range(1, len(ordered)) if ordered[i].home.tenant.name != ordered[i - 1].home.tenant.name]
    cut = min(cuts, key=lambda i: abs(i - middle), default=middle)
    return ordered[:cut], ordered[cut:]
