"""After a failed call: carry out what `failures.next_step` decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from domain.catalogue import Candidate
from domain.events import Attempt
from domain.ports.provider import ProviderError, ProviderFault
from gateway.dispatch import failures
from gateway.dispatch.context import Context
from gateway.dispatch.flights import Batch, Flight
from gateway.dispatch.handover import Leaving
from gateway.dispatch.trials import SUSPICIOUS, Trial, halves, of_several_requests

if TYPE_CHECKING:
    from gateway.dispatch.lane import Lane


_BILLED_ALL_THE_SAME = frozenset({ProviderFault.TIMEOUT, ProviderFault.BAD_ANSWER})


def recover(
    lane: Lane, context: Context, candidate: Candidate, batch: Batch, error: ProviderError, seconds: float
) -> None:
    """Record the failed attempt and send the texts again, in parts or later, hand them over, or fail who waits for them.

    A pause that the provider has asked for holds the lane even where this batch is given up.
    """
    attempt = Attempt(
        endpoint=candidate.endpoint.name, reason=error.fault.value, ms=round(seconds * 1000), status=error.status
    )
    batch.attempts = (*batch.attempts, attempt)
    batch.failed_seconds += seconds
    flights = batch.flights
    _take_back(flights, error, candidate)
    if batch.trial is not None:
        batch.trial.failed(batch, error)
        return
    step = failures.next_step(
        error,
        texts=len(flights),
        tries=batch.tries + 1 + min(f.before for f in flights),
        remaining=max(f.deadline() for f in flights) - lane.now(),
        limits=context.limits,
        rng=context.rng,
    )
    if error.fault is ProviderFault.RATE_LIMITED and error.retry_after is not None:
        lane.slots.pause(min(error.retry_after, context.limits.longest_pace))
    match step:
        case failures.Split():
            if step.learn:
                lane.caps.refused(len(flights), sum(f.tokens for f in flights))
            first, second = halves(flights, by_tenant=not step.learn)
            lane.narrow((batch.part(first), batch.part(second)))
        case failures.Reject():
            leaving = Leaving(lane, context, batch, error)
            lane.caps.too_long(flights[step.place].tokens)
            leaving.give_up([flights[step.place]])
            if len(flights) > 1:
                lane.resend(batch.part(flights[: step.place] + flights[step.place + 1 :]))
            leaving.tell(lambda index: failures.too_long(candidate, index))
        case failures.Later() | failures.GiveUp():
            batch.tries += 1
            _try_again_or_leave(lane, context, candidate, batch, error, step)


def _try_again_or_leave(
    lane: Lane,
    context: Context,
    candidate: Candidate,
    batch: Batch,
    error: ProviderError,
    step: failures.Later | failures.GiveUp,
) -> None:
    """Texts that another endpoint takes go there, though not for a short pause while more than one call is left to make; those that have been
    in enough calls are given up, the others wait.
    """
    leaving = Leaving(lane, context, batch, error)
    flights, limits = batch.flights, context.limits
    if isinstance(step, failures.Later):
        pause = step.pace and (error.retry_after is not None or lane.slots.pace.rate is None)
        if pause:
            lane.slots.pause(min(step.delay, limits.longest_pace))
        last_elsewhere = batch.tries + max(f.before for f in flights) + 1 >= limits.max_attempts
        if not (step.pace and step.delay <= limits.patience) or last_elsewhere:
            flights = leaving.part(flights)
        # Garbage was answered, and may be charged for: its cause is looked for at once rather than by sending the same again.
        last = error.fault is ProviderFault.BAD_ANSWER and of_several_requests(flights)
        spent = [f for f in flights if last or f.before + batch.tries >= limits.max_attempts]
        again = [f for f in flights if not last and f.before + batch.tries < limits.max_attempts]
        if again and pause:
            lane.resend(batch.part(again))
        elif again:
            lane.resend_after(step.delay, batch.part(again))
    else:
        spent = leaving.part(flights)
    if error.fault in SUSPICIOUS and of_several_requests(spent):
        Trial(lane, context, candidate, batch.part(spent), error).begin()
    else:
        leaving.give_up(spent)
    leaving.tell(lambda index: failures.final(error, candidate, batch.attempts, index))


def give_up_unsent(lane: Lane, context: Context, candidate: Candidate, batch: Batch, open_for: float) -> None:
    """The endpoint's circuit is open for so many seconds: hand the texts over, or fail who waits for them."""
    error = ProviderError(ProviderFault.CIRCUIT_OPEN, "its circuit is open", retry_after=open_for)
    if batch.trial is not None:
        batch.trial.failed(batch, error)
        return
    batch.attempts = (*batch.attempts, Attempt(endpoint=candidate.endpoint.name, reason=error.fault.value, ms=0))
    leaving = Leaving(lane, context, batch, error)
    leaving.give_up(leaving.part(batch.flights))
    leaving.tell(lambda _: failures.circuit_open(candidate, open_for, batch.attempts))


def let_go(lane: Lane, context: Context, candidate: Candidate, batch: Batch, pause: float) -> list[Flight]:
    """The endpoint has asked for a pause: those who know another go there unsent, those who cannot wait for its end are told. Returns the
    flights that stay.
    """
    error = ProviderError(ProviderFault.RATE_LIMITED, "it takes no calls for the moment", retry_after=pause)
    if batch.trial is not None:
        if batch.trial.outlasts(batch, pause):
            return batch.flights
        batch.trial.failed(batch, error)
        return []
    attempt = Attempt(endpoint=candidate.endpoint.name, reason=error.fault.value, ms=0)
    leaving = Leaving(lane, context, msgspec.structs.replace(batch, attempts=(*batch.attempts, attempt)), error)
    staying = leaving.part(batch.flights)
    ends = lane.now() + pause
    leaving.give_up([f for f in staying if f.deadline() < ends])
    leaving.tell(lambda _: failures.unavailable_until(candidate, pause))
    return [f for f in staying if not f.done]


def _take_back(flights: list[Flight], error: ProviderError, candidate: Candidate) -> None:
    """The call was of no use to anybody: who paid for it does not, and is told where the provider may charge us all the same."""
    wasted = error.fault in _BILLED_ALL_THE_SAME
    for flight in flights:
        if flight.charged and flight.asker is not None:
            flight.charged = False
            waiter = flight.asker.waiter
            waiter.charge(flight.index, -flight.tokens, candidate)
            if wasted:
                waiter.wasted(flight.index, flight.tokens, candidate)
