"""The dispatcher: many requests' texts in, few provider calls out, each request its own vectors.

Everything but a provider call is a plain callback on the loop: no task per request, none per text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random

import msgspec

from domain.catalogue import Candidate, Endpoint
from domain.errors import GatewayError
from domain.ports.breaker import Breaker
from domain.ports.provider import Provider
from gateway.dispatch.caps import Caps
from gateway.dispatch.context import CallOutcome, Context
from gateway.dispatch.failures import unavailable_until
from gateway.dispatch.flights import Flight, Load, Ticket
from gateway.dispatch.lane import Lane
from gateway.dispatch.limits import DispatchLimits
from gateway.dispatch.ports import Item, Waiter
from gateway.dispatch.slots import Slots
from gateway.dispatch.tickets import Tickets

_LaneKey = tuple[str, str | None, str, int | None, str | None, bool]
_KEEP_LANES = 512
"""Above this many lanes, idle ones are forgotten: dimensions can be chosen freely within a range."""
_KEEP_OF_ENDPOINT = 32
"""And above this many of one endpoint: its load is the sum over them, and is asked for with every request."""


class LaneGauge(msgspec.Struct, frozen=True):
    """What a lane holds now: texts queued, provider calls in flight;  the most texts that it puts into a call, and the most calls that its
    endpoint is sent at once, both as learnt; the most tokens of a call, from how many tokens on a text goes alone because the provider has
    found one of that length too long, and how many calls may start a second at its endpoint (None: nothing of that is known).
    """

    endpoint: str
    model: str
    queued_texts: int
    calls: int
    max_inputs: int
    max_calls: int
    max_tokens: int
    alone_from: int | None
    calls_per_second: float | None


class Dispatcher:
    """Packs texts into provider calls. All methods are called on one loop.

    `providers` gives the provider of an endpoint, by a function or by the endpoint's name. `on_call` is told of every provider
    call that ended, good or bad; it must not block or raise. `breakers` gives an endpoint's breaker, always the same one; whoever owns it
    calls `poke_endpoint` when its state changes.
    """

    def __init__(
        self,
        providers: Callable[[Endpoint], Provider] | Mapping[str, Provider],
        *,
        limits: DispatchLimits | None = None,
        on_call: Callable[[CallOutcome], None] | None = None,
        breakers: Callable[[Endpoint], Breaker] | None = None,
        rng: Random | None = None,
    ) -> None:
        self._provider_of: Callable[[Endpoint], Provider] = (
            (lambda endpoint: providers[endpoint.name]) if isinstance(providers, Mapping) else providers
        )
        self._context = Context(
            limits=limits or DispatchLimits(),
            rng=rng or Random(),
            on_call=on_call,
            breakers=breakers,
            tickets=Tickets(),
            queued=Load(),
            tasks=set(),
        )
        self._lanes: dict[_LaneKey, Lane] = {}
        self._of_endpoint: dict[str, list[Lane]] = {}
        self._slots: dict[str, Slots] = {}
        self._loads: dict[str, Load] = {}
        self._caps: dict[tuple[str, str], Caps] = {}

    @property
    def limits(self) -> DispatchLimits:
        """What bounds it now."""
        return self._context.limits

    def bound_queue(self, max_texts: int) -> None:
        """From now on at most so many texts wait; those that wait already stay."""
        self._context.limits = msgspec.structs.replace(self._context.limits, max_queued_texts=max_texts)

    @property
    def queued_texts(self) -> int:
        """Texts that wait for their first call."""
        return self._context.queued.texts

    @property
    def queued_tokens(self) -> int:
        """Tokens of the texts that wait for their first call."""
        return self._context.queued.tokens

    @property
    def calls_in_flight(self) -> int:
        """Provider calls that run now."""
        return len(self._context.tasks)

    @property
    def open_requests(self) -> int:
        """Waiters that are neither answered, failed nor withdrawn."""
        return len(self._context.tickets)

    def gauges(self) -> list[LaneGauge]:
        """What each lane holds."""
        return [
            LaneGauge(
                lane.candidate.endpoint.name,
                lane.candidate.model.id,
                lane.queue.texts,
                lane.calls,
                lane.caps.of(lane.candidate)[0],
                lane.slots.pace.allowed,
                lane.caps.of(lane.candidate)[1],
                lane.caps.alone,
                lane.slots.pace.rate,
            )
            for lane in self._lanes.values()
        ]

    def paused_for(self, endpoint: str) -> float:
        """Seconds that the endpoint has asked for no calls; 0 where it has not."""
        slots = self._slots.get(endpoint)
        return 0.0 if slots is None else slots.paused_for

    def load(self, endpoint: str) -> int:
        """Texts that wait for this endpoint or are in its calls, and requests that will come."""
        return sum(lane.load for lane in self._of_endpoint.get(endpoint, ()))

    def paused(self, endpoint: str) -> bool:
        """Whether this endpoint has asked for a pause that is longer than texts wait for where another would take them."""
        slots = self._slots.get(endpoint)
        return slots is not None and slots.pause_left > self._context.limits.patience

    def lane(
        self, candidate: Candidate, dimensions: int | None, input_type: str | None, *, takes_tokens: bool = False
    ) -> Lane:
        """The lane of these texts; `takes_tokens` for token lists, which share no call with strings. A candidate of a newer catalogue brings its caps with it."""
        endpoint = candidate.endpoint
        key = (endpoint.name, endpoint.api_key_env, candidate.model.id, dimensions, input_type, takes_tokens)
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._of_endpoint.get(endpoint.name, ())) >= _KEEP_OF_ENDPOINT:
                self._forget_idle([endpoint.name])
            if len(self._lanes) >= _KEEP_LANES:
                self._forget_idle(list(self._of_endpoint))
            slots = self._slots_of(endpoint)
            lane = self._lanes[key] = Lane(
                candidate,
                dimensions,
                input_type,
                takes_tokens=takes_tokens,
                provider=self._provider_of(endpoint),
                slots=slots,
                caps=self._caps.setdefault((endpoint.name, candidate.model.id), Caps()),
                context=self._context,
            )
            self._of_endpoint.setdefault(endpoint.name, []).append(lane)
        elif lane.candidate is not candidate:
            self._slots_of(endpoint)
            lane.adopt(candidate, self._provider_of(endpoint))
        return lane

    def _forget_idle(self, endpoints: Sequence[str]) -> None:
        for name in endpoints:
            lanes = self._of_endpoint.pop(name)
            idle = {id(lane) for lane in lanes if lane.idle}
            if len(idle) < len(lanes):
                self._of_endpoint[name] = [lane for lane in lanes if id(lane) not in idle]
            for lane in lanes:
                if id(lane) in idle:
                    del self._lanes[self._key(lane)]

    @staticmethod
    def _key(lane: Lane) -> _LaneKey:
        endpoint = lane.candidate.endpoint
        return (
            endpoint.name,
            endpoint.api_key_env,
            lane.candidate.model.id,
            lane.dimensions,
            lane.input_type,
            lane.takes_tokens,
        )

    def _slots_of(self, endpoint: Endpoint) -> Slots:
        """The endpoint's slots, as it is configured now."""
        slots = self._slots.get(endpoint.name)
        if slots is None:
            slots = self._slots[endpoint.name] = Slots(endpoint.max_concurrency)
        slots.pace.resize(endpoint.max_concurrency)
        breakers = self._context.breakers
        slots.breaker = None if breakers is None else breakers(endpoint)
        return slots

    def forget(self, endpoint: str) -> None:
        """An endpoint is gone, or is to be another one: its pace, its caps and its pause say nothing of the next of that name. Nothing is
        done while texts are there yet.
        """
        lanes = self._of_endpoint.get(endpoint, ())
        if not all(lane.idle for lane in lanes):
            return
        self._of_endpoint.pop(endpoint, None)
        if lanes:
            self._lanes = {k: v for k, v in self._lanes.items() if v.candidate.endpoint.name != endpoint}
        if (slots := self._slots.pop(endpoint, None)) is not None:
            slots.close()
            self._caps = {key: caps for key, caps in self._caps.items() if key[0] != endpoint}

    def poke_endpoint(self, name: str) -> None:
        """The state of this endpoint's circuit has changed: what waits there goes out, or is given up."""
        slots = self._slots.get(name)
        if slots is not None:
            slots.hand_out()
            for lane in self._lanes.values():
                if lane.slots is slots:
                    lane.poke()

    def submit(self, lane: Lane, waiter: Waiter, items: Sequence[Item]) -> None:
        """Take the texts of a request whose `requested` event is committed. Consumes one announcement of the lane, also if it raises.

        A submission is of strings or of token lists, not both (ValueError). Token lists given with the lane of strings go to their own. A
        waiter may have several open, in one lane or more, of different texts; what was handed over may come again. Raises `overloaded` when the queue is full, `draining` after `close`, and
        `provider_unavailable` when the provider has asked for a pause beyond the waiter's deadline; nothing is taken then.
        """
        now = lane.arrived()
        tickets = self._context.tickets
        if not items:
            raise ValueError("a submission needs at least one text")
        if (type(items[0].text) is list) is not lane.takes_tokens:
            lane = self.lane(lane.candidate, lane.dimensions, lane.input_type, takes_tokens=not lane.takes_tokens)
        load = self._loads.get(waiter.tenant)
        if load is None:
            load = self._loads[waiter.tenant] = Load()
        deadline = waiter.deadline
        self._check(lane, load, items, now, deadline)
        if items[0].estimated:
            lane.estimates = True
        flights: list[Flight] = []
        ticket = Ticket(waiter, lane, deadline, len(items), flights, since=now, before=waiter.tries)
        tickets.add(ticket)
        queue, in_flight, total = lane.queue, lane.flights, self._context.queued
        home = None
        tries = waiter.tries
        new = 0
        for item in items:
            flight = in_flight.get(item.key)
            if home is None and (flight is None or flight.queued):
                home = queue.queue_of(waiter.tenant, waiter.agent, load)
            if flight is None:
                assert home is not None
                flight = Flight(item.key, item.text, item.tokens, now, home, ticket, item.index, tries)
                in_flight[item.key] = flight
                queue.add(flight, deadline)
                new += 1
                total.tokens += item.tokens
            else:
                flight.join(ticket, item.index)
                if flight.queued:
                    assert home is not None
                    queue.also(flight, home, deadline)
            flights.append(flight)
        if new:
            total.texts += new
            lane.added()

    def _check(self, lane: Lane, load: Load, items: Sequence[Item], now: float, deadline: float) -> None:
        """Raise unless the texts may be queued. Counts all of them, also those that would share a flight."""
        limits, total = self._context.limits, self._context.queued
        if self._context.closed:
            raise GatewayError(
                "draining", "the gateway is shutting down: send the request again elsewhere or a little later"
            )
        tokens = 0
        kind = list if lane.takes_tokens else str
        for item in items:
            tokens += item.tokens
            if type(item.text) is not kind:
                raise ValueError("texts and token lists cannot share a call: submit one kind only")
        if (
            load.texts + len(items) > limits.max_queued_texts - total.texts - len(items)
            or load.tokens + tokens > limits.max_queued_tokens - total.tokens - tokens
        ):
            raise GatewayError(
                "overloaded",
                f"the queue has no room for {len(items)} more text(s) of this tenant: send fewer at once, or again a little later",
                retry_after_ms=1000,
            )
        pause_ends = lane.slots.pace.until
        if pause_ends > deadline:
            raise unavailable_until(lane.candidate, pause_ends - now)

    def withdraw(self, waiter: Waiter) -> None:
        """The request was cancelled, is past its deadline, or its asker is gone. Nothing is called on the waiter any more.

        Its unsent texts are dropped, or stay for the others that asked for them: the first of those pays then. Takes time in
        proportion to the request's own texts; does nothing for a waiter that is not (or no longer) here.
        """
        self._context.tickets.withdraw(waiter)

    async def close(self) -> None:
        """Fail what is open with `draining`, cancel the calls in flight and wait for them to end. Idempotent."""
        context = self._context
        context.closed = True
        context.tickets.fail_all(
            GatewayError("draining", "the gateway is shutting down: send the request again elsewhere or a little later")
        )
        for lane in self._lanes.values():
            lane.close()
        for slots in self._slots.values():
            slots.close()
        tasks = list(context.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes.values():
            lane.flights.clear()
