"""A lane: texts that can share a provider call, and when the next call goes out.

An idle lane sends at once (at the end of the loop's current round, so that what was submitted together goes together), except
while it waits for the requests it has just answered (see `regather`). A busy lane gathers: a further call is opened only for a full
batch, or when the oldest text has waited the window. Batches that go again after a failure take turns with new texts.
"""

from __future__ import annotations

import asyncio

from domain.catalogue import Candidate
from domain.ports.provider import Provider
from gateway.dispatch.again import Again
from gateway.dispatch.calls import Shape, start
from gateway.dispatch.caps import Caps
from gateway.dispatch.context import Context
from gateway.dispatch.fairness import FairQueue
from gateway.dispatch.flights import Batch, Flight
from gateway.dispatch.recovery import give_up_unsent, let_go
from gateway.dispatch.regather import TICK, Regather
from gateway.dispatch.slots import Slots


class Lane:
    """Texts for one (endpoint, model, dimensions, input type, credential), either strings or token lists.

    Made by `Dispatcher.lane`. Callers use `announce` and `retract` only.
    """

    def __init__(
        self,
        candidate: Candidate,
        dimensions: int | None,
        input_type: str | None,
        *,
        takes_tokens: bool,
        provider: Provider,
        slots: Slots,
        caps: Caps,
        context: Context,
    ) -> None:
        self.candidate = candidate
        self.takes_tokens = takes_tokens
        self.flights: dict[bytes, Flight] = {}
        self.queue = FairQueue(*caps.of(candidate))
        self.caps = caps
        self.calls = 0
        """Provider calls in flight."""
        self.estimates = False
        """Whether its texts' counts are estimates, which the provider's are better than."""
        self.slots = slots
        self.dimensions = dimensions
        self.input_type = input_type
        self.shape = Shape.of(candidate, dimensions)
        self.provider = provider
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._regather = Regather(context.limits.regather, context.limits.window)
        self._again = Again()
        self._pausing: dict[Batch, asyncio.TimerHandle] = {}
        self._again_next = True
        self._paused_until = 0.0
        """The end of the pause for which texts have been let go."""
        self._revision = -1
        self._timer: asyncio.TimerHandle | None = None
        self._poked = False

    def announce(self) -> None:
        """A request for this lane was admitted and is being committed to the log: `submit` or `retract` follows."""
        self._regather.announce(self._loop.time())

    def retract(self) -> None:
        """An announced request will not be submitted after all."""
        self._regather.retract()
        if not self._regather.expected:
            self.poke()

    @property
    def idle(self) -> bool:
        """Whether nothing is queued, in flight or announced."""
        return not self.flights and not self.calls and not self._regather.announced

    @property
    def load(self) -> int:
        """Texts that are queued or in flight, and requests that are announced."""
        return len(self.flights) + len(self._regather.announced)

    def adopt(self, candidate: Candidate, provider: Provider) -> None:
        """The catalogue was replaced: use its caps. What was learnt about the endpoint's cap holds."""
        self.candidate = candidate
        self.shape = Shape.of(candidate, self.dimensions)
        self.provider = provider
        self._resize()

    def _resize(self) -> None:
        self._revision = self.caps.revision
        self.queue.resize(*self.caps.of(self.candidate), alone=self.caps.alone)

    def now(self) -> float:
        """The loop's time, seconds."""
        return self._loop.time()

    def arrived(self) -> float:
        """A request is being submitted. Returns the loop's time."""
        now = self._loop.time()
        self._regather.arrive(now)
        return now

    def answered(self, requests: int) -> None:
        """A call has answered the last texts of so many requests."""
        self._regather.answer(requests, self._loop.time())

    def added(self) -> None:
        """New texts are in the queue."""
        if self.queue.full or self._timer is None or (not self.calls and not self._regather.expected):
            self.poke()

    def drop(self, flight: Flight) -> None:
        """Forget a text that nobody waits for and that was not sent."""
        if flight.queued:
            self.queue.remove(flight)
            self._context.queued.texts -= 1
            self._context.queued.tokens -= flight.tokens
        flight.done = True
        del self.flights[flight.key]

    def resend(self, batch: Batch) -> None:
        """Send these texts again as soon as there is a slot."""
        self._pausing.pop(batch, None)
        self._again.append(batch)
        self._paused_until = 0.0  # a pause that has begun meanwhile is news to these
        self.poke()

    def narrow(self, halves: tuple[Batch, Batch]) -> None:
        """Send the halves of what has failed, before its tenant's other tries: the first bad text that is found ends its request, and with it
        the search among the others of it.
        """
        for half in reversed(halves):
            self._again.next_of_its_tenant(half)
        self._paused_until = 0.0
        self.poke()

    def put_back(self, batch: Batch) -> None:
        """It was not sent after all: it goes first when there is a slot again."""
        self._again.put_back(batch)

    def resend_after(self, delay: float, batch: Batch) -> None:
        """Send these texts again in `delay` seconds; the lane goes on with others meanwhile."""
        self._pausing[batch] = self._loop.call_later(delay, self.resend, batch)

    def close(self) -> None:
        """Cancel what is timed. The calls in flight and the waiters are the dispatcher's."""
        if self._timer is not None:
            self._timer.cancel()
        for handle in self._pausing.values():
            handle.cancel()
        self._pausing.clear()
        self._again.clear()

    def poke(self) -> None:
        """Look, at the end of the loop's current round, whether a call should go out."""
        if not self._poked:
            self._poked = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._poked = False
        if not self._context.closed:
            self._send_what_is_due(self._loop.time())
        self.slots.settle(self)

    def _send_what_is_due(self, now: float) -> None:
        if self._revision != self.caps.revision:
            self._resize()
        if self._again or self.queue.texts:
            open_for = self.slots.open_for
            if open_for is not None:
                self._give_up_unsent(open_for)
                return
            if (
                self.slots.pace.until - now > self._context.limits.patience
                and self._paused_until != self.slots.pace.until
            ):
                self._paused_until = self.slots.pace.until
                self._let_go(self._paused_until - now)
        while True:
            due = self._due(now)
            if self._again and (self._again_next or not due):
                if not self.slots.acquire(self):
                    return
                self._again_next = False
                start(self, self._context, self._again.pop(), now)
            elif due:
                if not self.slots.acquire(self):
                    return
                self._again_next = True
                flights, tokens = self.queue.take()
                self._context.queued.texts -= len(flights)
                self._context.queued.tokens -= tokens
                start(self, self._context, Batch(flights), now)
            else:
                return

    def _due(self, now: float) -> bool:
        """Whether new texts should go out now; sets the timer where they should later."""
        if not self.queue.texts:
            return False
        if self.queue.full:
            return True
        if not self.calls:
            hold = self._regather.hold(now)
            if hold is not None:
                self._wake_at(hold)
            return hold is None
        ripe = self.queue.oldest() + self._context.limits.window
        if ripe - TICK <= now:
            return True
        self._wake_at(ripe)
        return False

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._pump()

    def _give_up_unsent(self, open_for: float) -> None:
        """The endpoint's circuit is open: nothing waits for it here."""
        batches = self._again.clear()
        while self.queue.texts:
            flights, tokens = self.queue.take()
            self._context.queued.texts -= len(flights)
            self._context.queued.tokens -= tokens
            batches.append(Batch(flights))
        for batch in batches:
            give_up_unsent(self, self._context, self.candidate, batch, open_for)

    def _let_go(self, pause: float) -> None:
        """The endpoint takes no calls for so long: whoever knows another does not wait for it here."""
        for batch in self._again.clear():
            batch.flights = let_go(self, self._context, self.candidate, batch, pause)
            if batch.flights:
                self._again.append(batch)
        queued = Batch([f for f in self.flights.values() if f.queued])
        let_go(self, self._context, self.candidate, queued, pause)
