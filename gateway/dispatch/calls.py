"""One provider call: made within its time, its answer handed to everybody who waits for a row of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from domain.catalogue import Candidate, Endpoint
from domain.errors import GatewayError
from domain.ports.breaker import Permit
from domain.ports.provider import EmbedAnswer, EmbedCall, Provider, ProviderError, ProviderFault
from domain.vectors import UnusableVectors, finished
from gateway.dispatch.context import CallOutcome, Context
from gateway.dispatch.division import count
from gateway.dispatch.flights import Batch, Flight, Ticket
from gateway.dispatch.ports import CallReport
from gateway.dispatch.recovery import recover

if TYPE_CHECKING:
    from gateway.dispatch.lane import Lane

_NOBODY = float("-inf")
_PAST_DEADLINE = 0.1
"""Seconds that a call outlasts its last deadline: whoever watches the deadlines is first to say `deadline_exceeded`, and bills it so."""
_GRACE = 1.0
"""Seconds that an adapter gets beyond the call's own timeout to report it, before the call is cancelled."""


class Shape(msgspec.Struct, frozen=True, gc=False):
    """The size that a provider is asked for (None: the model's own), the one it answers with, and the one that is wanted."""

    asked: int | None
    given: int
    size: int
    unit: bool

    @classmethod
    def of(cls, candidate: Candidate, dimensions: int | None) -> Shape:
        """Where the provider makes no other size than the model's own, that is what is asked for, and it is cut here."""
        model = candidate.model
        size = dimensions or model.dimensions
        if candidate.offering.sends_dimensions:
            return cls(dimensions, size, size, model.unit)
        return cls(None, model.dimensions, size, model.unit)


async def embed(
    provider: Provider, call: EmbedCall, shape: Shape, permit: Permit | None = None, *, isolating: bool = False
) -> EmbedAnswer | ProviderError:
    """The provider's answer, its vectors as the space wants them, or what went wrong. Nothing but cancellation is raised, whatever the adapter does.

    The call is made with the `permit`, which sees its end as the lane does. One that is made to isolate a bad text tells the breaker only
    that it was answered: that it failed is what was to be expected, and no sign of ill health.
    """
    try:
        if permit is None:
            return await _made(provider, call, shape)
        if not isolating:
            return await permit.run(lambda: _made(provider, call, shape))
        try:
            answer = await _made(provider, call, shape)
        except BaseException:
            permit.give_back()
            raise
        return await permit.run(lambda: _already(answer))
    except ProviderError as error:
        return error


async def _already(answer: EmbedAnswer) -> EmbedAnswer:
    return answer


async def _made(provider: Provider, call: EmbedCall, shape: Shape) -> EmbedAnswer:
    """Raises `ProviderError` and nothing else."""
    try:
        async with asyncio.timeout(call.timeout + _GRACE):
            answer = await provider.embed(call)
    except ProviderError:
        raise
    except TimeoutError:
        raise ProviderError(ProviderFault.TIMEOUT, f"no answer within {call.timeout:.3f} s") from None
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a provider adapter raised something other than ProviderError", "exception": error}
        )
        raise ProviderError(ProviderFault.SERVER, f"the adapter failed with {type(error).__name__}") from error
    if len(answer.vectors) != len(call.texts):
        raise ProviderError(ProviderFault.BAD_ANSWER, f"{len(answer.vectors)} vectors for {len(call.texts)} texts")
    try:
        rows = finished(answer.vectors, shape.size, given=shape.given, unit=shape.unit)
    except UnusableVectors as error:
        raise ProviderError(ProviderFault.BAD_ANSWER, str(error)) from None
    return answer if rows is answer.vectors else msgspec.structs.replace(answer, vectors=rows)


def start(lane: Lane, context: Context, batch: Batch, now: float) -> None:
    """Start the call of a batch for which a slot is held; texts that nobody waits for any more are dropped."""
    texts = []
    tokens = 0
    latest = now
    wanted = []
    for flight in batch.flights:
        deadline = flight.deadline()
        if deadline == _NOBODY:
            lane.drop(flight)
            continue
        if deadline > latest:
            latest = deadline
        wanted.append(flight)
        texts.append(flight.text)
        tokens += flight.tokens
    batch.flights = wanted
    if not wanted or latest <= now:
        lane.slots.release()
        _expire(lane, context, batch)
        if batch.trial is not None:
            batch.trial.go_on()
        return
    permit = None
    if lane.slots.breaker is not None:
        permit = lane.slots.breaker.admit()
        if permit is None:  # other lanes took its last trial calls in this round of the loop
            lane.put_back(batch)
            lane.slots.release()
            return
    candidate = lane.candidate
    for flight in wanted:
        if not flight.charged:
            flight.charged = True
            ticket, index = flight.payer()
            ticket.waiter.charge(index, flight.tokens, candidate)
    call = EmbedCall(
        texts=texts,
        model=candidate.provider_model,
        timeout=_timeout(candidate.endpoint, latest - now, wanted[0], context),
        dimensions=lane.shape.asked,
        input_type=lane.input_type,
        config=candidate.offering.config,
    )
    lane.calls += 1
    if not batch.first_sent_at:
        batch.first_sent_at = now
    task = asyncio.get_running_loop().create_task(run(lane, context, batch, call, tokens, now, permit))
    context.tasks.add(task)
    task.add_done_callback(context.tasks.discard)


def _timeout(endpoint: Endpoint, left: float, first: Flight, context: Context) -> float:
    """What a call may take: no longer than its most patient waiter has left, and a share of that while there is another endpoint to go to.

    One of them is asked for all: the texts of a lane have the same endpoints to go to.
    """
    timeout = min(endpoint.timeout, left + _PAST_DEADLINE)
    share = left * context.limits.try_share
    if share < timeout and next(first.askers())[0].waiter.elsewhere(ProviderFault.TIMEOUT, endpoint.name):
        return share
    return timeout


def _expire(lane: Lane, context: Context, batch: Batch) -> None:
    error = GatewayError(
        "deadline_exceeded", "the deadline passed before the text was sent: allow more time with deadline_ms"
    )
    for flight in batch.flights:
        lane.drop(flight)
    for flight in batch.flights:
        for ticket, _ in list(flight.askers()):
            context.tickets.fail(ticket, error, batch.attempts)


async def run(
    lane: Lane, context: Context, batch: Batch, call: EmbedCall, tokens: int, sent_at: float, permit: Permit | None
) -> None:
    """Make the call of a batch for which a slot is held, and deal with its end."""
    candidate, pace = lane.candidate, lane.slots.pace
    try:
        answer = await embed(lane.provider, call, lane.shape, permit, isolating=batch.trial is not None)
        now = lane.now()
        error = answer if isinstance(answer, ProviderError) else None
        if context.on_call is not None:
            context.on_call(_outcome(candidate, batch, tokens, now - sent_at, error))
        if isinstance(answer, ProviderError):
            if answer.fault is ProviderFault.RATE_LIMITED:
                pace.refused(sent_at, now, lane.slots.used)
            recover(lane, context, candidate, batch, answer, now - sent_at)
        else:
            pace.succeeded(now)
            lane.caps.taken(len(batch.flights), tokens)
            endpoint = candidate.endpoint
            report = CallReport(
                endpoint.name,
                endpoint.provider,
                sent_at,
                now - sent_at,
                len(batch.flights),
                batch.attempts,
                batch.first_sent_at,
                batch.failed_seconds,
            )
            if lane.estimates:
                count(batch.flights, answer, candidate)
            lane.answered(deliver(lane, context, batch, answer, report))
            if batch.trial is not None:
                batch.trial.answered()
    finally:
        lane.calls -= 1
        lane.slots.release()
    lane.poke()


def _outcome(
    candidate: Candidate, batch: Batch, tokens: int, seconds: float, error: ProviderError | None
) -> CallOutcome:
    return CallOutcome(
        endpoint=candidate.endpoint.name,
        provider=candidate.endpoint.provider,
        model=candidate.model.id,
        texts=len(batch.flights),
        tokens=tokens,
        seconds=seconds,
        attempt=len(batch.attempts) + 1,
        fault=None if error is None else error.fault,
        status=None if error is None else error.status,
        owner=candidate.endpoint.tenant,
    )


def deliver(lane: Lane, context: Context, batch: Batch, answer: EmbedAnswer, report: CallReport) -> int:
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
            context.tickets.end(ticket)
            complete += 1
        if ticket.several:
            if id(ticket.waiter) in flushed:
                continue
            flushed.add(id(ticket.waiter))
        ticket.waiter.flush(report)
    return complete
