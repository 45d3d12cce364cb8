"""Finding the texts that make a provider fail, when a batch of several requests has failed as often as is tried.

A text can make a provider answer 5xx, hang or send garbage. Then whatever it shares a call with fails too, and that looks like an outage.
Two texts of different requests are sent alone, one after the other until one is answered. If none is, it is an outage (or two bad texts
met by chance): all is given up, for two calls more. Else the endpoint is alive, and the rest is sent in halves of halves until the bad
texts stand alone, and fail so twice: one call at a time, so that a flood of bad texts takes one slot at most. Too many failures in a row, as in an outage that
begins meanwhile, and the endpoint has to show again that it is alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.catalogue import Candidate
from domain.errors import GatewayError
from domain.ports.provider import ProviderError, ProviderFault
from gateway.dispatch import failures
from gateway.dispatch.flights import Batch, Flight
from gateway.dispatch.handover import Leaving
from gateway.dispatch.ports import Waiter

if TYPE_CHECKING:
    from gateway.dispatch.context import Context
    from gateway.dispatch.lane import Lane

SUSPICIOUS = frozenset(
    {ProviderFault.SERVER, ProviderFault.TIMEOUT, ProviderFault.CONNECTION, ProviderFault.BAD_ANSWER}
)
"""Faults that are the endpoint's, and that a text may cause."""
_OF_THE_TEXT = frozenset({ProviderFault.REFUSED, ProviderFault.TOO_LONG, ProviderFault.TOO_LARGE})


def of_several_requests(flights: list[Flight]) -> bool:
    """Whether one request's bad text would fail another's: texts of one request alone fail together anyway."""
    first = None
    for flight in flights:
        for ticket, _ in flight.askers():
            if first is None:
                first = ticket.waiter
            elif ticket.waiter is not first:
                return True
    return False


class Trial:
    """One search, over the texts of one batch. One of its calls is on its way at a time: `answered` or `failed` follows each."""

    def __init__(self, lane: Lane, context: Context, candidate: Candidate, batch: Batch, error: ProviderError) -> None:
        self._lane = lane
        self._context = context
        self._candidate = candidate
        self._error = error
        self._left = [batch]
        self._probes: list[Batch] = []
        self._doubtful: list[Batch] = []
        self._failed_alone: set[Flight] = set()
        self._whole = True
        self._alive = False
        self._fruitless = 0
        self._limited = 0
        self._patience = len(batch.flights).bit_length() + 2
        batch.trial = self

    def begin(self) -> None:
        """Send the first text."""
        self._choose_probes()
        self.go_on()

    def answered(self) -> None:
        """The call that was on its way was answered."""
        self._limited = self._fruitless = 0
        if not self._alive:
            self._lives()
        self.go_on()

    def failed(self, batch: Batch, error: ProviderError) -> None:
        """The call of this batch has failed; its texts are paid for by nobody."""
        if error.fault is ProviderFault.RATE_LIMITED and self._limited < self._context.limits.max_attempts:
            pause = error.retry_after or failures.pause(self._limited + 1, self._context.limits, self._context.rng)
            pause = min(pause, self._context.limits.longest_pace)
            if self.outlasts(batch, pause):
                self._limited += 1
                self._lane.slots.pause(pause)
                self._lane.resend(batch)
                return
        self._error = error
        if error.fault in _OF_THE_TEXT:
            if not self._alive:
                self._lives()
            self._fruitless = 0
        elif error.fault not in SUSPICIOUS:
            self._left.append(batch)
            self.give_up(error)
            return
        elif not self._alive:
            self._doubtful.append(batch)
            self.go_on()
            return
        self._narrow(batch, error)
        self.go_on()

    def outlasts(self, batch: Batch, pause: float) -> bool:
        """Whether anybody whose texts are searched, this batch's or others', still waits after a pause of so many seconds."""
        ends = self._lane.now() + pause
        batches = [batch, *self._left, *self._probes, *self._doubtful]
        return any(flight.deadline() > ends for one in batches for flight in one.flights)

    def go_on(self) -> None:
        """Send what is next. Texts that nobody waits for any more are dropped."""
        while True:
            waiting = self._probes or (self._left if self._alive else None)
            if not waiting:
                if self._alive or self._doubtful or not self._choose_probes():
                    break
                continue
            batch = waiting.pop()
            self._drop_unwanted(batch)
            if batch.flights:
                self._lane.resend(batch)
                return
        if not self._alive:
            self.give_up(self._error)

    def give_up(self, error: ProviderError) -> None:
        """Hand over or fail all that is left."""
        batches = [*self._left, *self._probes, *self._doubtful]
        self._left, self._probes, self._doubtful = [], [], []
        if not batches:
            return
        attempts = max((b.attempts for b in batches), key=len)
        whole = Batch([f for b in batches for f in b.flights], attempts, batches[0].tries)
        self._let_go(whole, error, lambda index: failures.final(error, self._candidate, attempts, index))

    def _lives(self) -> None:
        """The endpoint answers. A text that it failed to answer alone is asked for once more; if there was none, what is left is at fault."""
        self._alive = True
        doubtful, self._doubtful = self._doubtful, []
        if self._whole and not doubtful and len(self._left[0].flights) > 1:
            self._left = self._parts(self._left[0])  # it has failed whole already
        self._whole = False
        self._left += self._probes + doubtful
        self._probes = []
        self._failed_alone.update(batch.flights[0] for batch in doubtful)

    def _narrow(self, batch: Batch, error: ProviderError) -> None:
        if len(batch.flights) > 1:
            self._left += self._parts(batch)
        elif batch.flights[0] in self._failed_alone or error.fault in _OF_THE_TEXT:
            self._convict(batch, error)
        else:  # once may have been chance
            self._failed_alone.add(batch.flights[0])
            self._left.append(batch)
        self._fruitless += 1
        if self._fruitless > self._patience:
            self._fruitless = 0
            self._alive = False
            self._choose_probes()

    def _parts(self, batch: Batch) -> list[Batch]:
        return [batch.part(half) for half in halves(batch.flights, by_tenant=True)]

    def _choose_probes(self) -> bool:
        """Take a text each of two requests, of two tenants where there are; False where nobody waits for anything."""
        found = [(batch, flight) for batch in self._left for flight in batch.flights if flight.wanted]
        if not found:
            return False
        first = self._context.rng.choice(found)
        waiter, tenant = _first(first[1]), first[1].home.tenant
        others = [one for one in found if _first(one[1]) is not waiter]
        strangers = [
            one for one in others if one[1].home.tenant is not tenant and one[1].home.tenant.name != tenant.name
        ]
        chosen = [first]
        if others:
            chosen.append(self._context.rng.choice(strangers or others))
        for batch, flight in chosen:
            batch.flights.remove(flight)
            self._probes.append(batch.part([flight]))
        return True

    def _convict(self, batch: Batch, error: ProviderError) -> None:
        """One text alone makes the endpoint fail."""

        def told(index: int) -> GatewayError:
            if error.fault in (ProviderFault.TOO_LONG, ProviderFault.TOO_LARGE):
                return failures.too_long(self._candidate, index)
            return failures.isolated(error, self._candidate, batch.attempts, index)

        self._let_go(batch, error, told)

    def _let_go(self, batch: Batch, error: ProviderError, told: failures.Told) -> None:
        leaving = Leaving(self._lane, self._context, batch, error)
        leaving.give_up(leaving.part(batch.flights))
        leaving.tell(told)

    def _drop_unwanted(self, batch: Batch) -> None:
        for flight in batch.flights:
            if not flight.wanted:
                self._lane.drop(flight)
        batch.flights = [f for f in batch.flights if f.wanted]


def _first(flight: Flight) -> Waiter:
    """Who asked first of those who still wait."""
    return next(flight.askers())[0].waiter


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
