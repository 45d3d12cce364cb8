"""From the texts that no cache had to the endpoint that embeds them, and on to the next one where that fails.

The endpoints of the space come first: the best of those that were not tried takes over what failed, the rest of the request stays where it
is. Where none is left, and the request may be answered by another model, the tenant's next one embeds it whole, unless vectors of the first
have gone out already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol

import msgspec

from domain.catalogue import Candidate
from domain.errors import GatewayError
from domain.events import Attempt, Failover
from domain.ports.provider import ProviderError, ProviderFault
from domain.selection import Selection
from gateway.dispatch.failures import as_details, pause
from gateway.dispatch.limits import DispatchLimits
from gateway.endpoints.router import Route, Router, Standing, fault_of, reason_of, unavailable
from gateway.service.pending import Pending
from gateway.service.pricing import take_price

if TYPE_CHECKING:
    from gateway.service.service import RequestService

_SHARE = 0.5
"""Of the time that is left, what one try may take while there is another endpoint to go to."""


class Attests(Protocol):
    """Makes sure that an endpoint's vectors are of the space that it is to serve."""

    async def ensure(self, candidate: Candidate, size: int, input_type: str | None) -> None:
        """Return once it is attested. Raises `ProviderError`: `DRIFTED`, or what kept the probes from being answered."""
        ...


class Sending:
    """`candidates` gives the endpoints of a model for a tenant, best first; `attests` None: nothing is attested."""

    def __init__(
        self,
        service: RequestService,
        router: Router,
        candidates: Callable[[str, str], Sequence[Candidate]],
        attests: Attests | None,
        limits: DispatchLimits,
    ) -> None:
        self._service = service
        self._router = router
        self._candidates = candidates
        self._attests = attests
        self._limits = limits
        self._rng = Random()
        self._clock = asyncio.get_running_loop().time

    @property
    def max_attempts(self) -> int:
        """Failed calls that a text may be in, wherever they are made."""
        return self._limits.max_attempts

    # -- the first endpoint ---------------------------------------------------------------------------------------------

    def route(self, pending: Pending) -> GatewayError | None:
        """Choose its endpoint among those of its model. Where none may be sent to it stands at the first; what to say then is returned."""
        if pending.pinned:
            return None
        space = pending.selection.space
        candidates = self._candidates(pending.selection.model.id, pending.tenant)
        pending.candidates = candidates
        found = self._router.choose(candidates, space)
        if found is not None and found.passed is not None and pending.stays:
            candidates = pending.candidates = [found.passed]
            found = None
        if found is None:
            pending.candidate = candidates[0]
            return self._router.refusal(pending.selection.model.id, candidates, space)
        pending.candidate = found.candidate
        if found.passed is not None and found.fault is not None:
            pending.moved = Failover(pending.selection.model.id, found.passed.endpoint.name, reason_of(found.fault))
        return None

    def send(self, pending: Pending, indexes: list[int]) -> None:
        """Send these texts to its endpoint, or to another where that may not be sent to any more."""
        if pending.pinned:
            self._submit(pending, indexes)
            return
        here = pending.candidate.endpoint.name
        standing = self._router.standing(pending.candidate.endpoint, pending.selection.space)
        fault = fault_of(standing)
        if standing >= Standing.OPEN or (standing is Standing.PAUSED and self.elsewhere(pending, fault, here)):
            pending.note((Attempt(endpoint=here, reason=fault.value, ms=0),))
            self._go_on(pending, indexes, fault, None)
        elif standing is Standing.UNATTESTED and self._attests is not None:
            self._service.spawn(pending, self._attest(pending, indexes, self._attests))
        else:
            self._submit(pending, indexes)

    def _submit(self, pending: Pending, indexes: list[int]) -> None:
        try:
            self._service.vectors.submit(pending, indexes)
        except GatewayError as error:
            if error.code != "provider_unavailable":
                pending.steps.failed(pending, error)
                return
            # The endpoint has asked for a pause beyond the deadline.
            fault, here = ProviderFault.RATE_LIMITED, pending.candidate.endpoint.name
            pending.note((Attempt(endpoint=here, reason=fault.value, ms=0),))
            retry_after = None if error.retry_after_ms is None else error.retry_after_ms / 1000
            self._go_on(pending, indexes, fault, ProviderError(fault, error.message, retry_after=retry_after))

    async def _attest(self, pending: Pending, indexes: list[int], attests: Attests) -> None:
        """The first attempt at an endpoint attests it. Where that fails, it is a failed attempt like any other.

        Several parts of a request may wait here, and each finds that it has gone on, or changed its model, since.
        """
        error: ProviderError | None
        candidate, selection, tries = pending.candidate, pending.selection, 0
        while not self._gone_on(pending, indexes, candidate, selection):
            started = self._clock()
            try:
                async with asyncio.timeout(self._try_seconds(pending)):
                    await attests.ensure(candidate, pending.selection.dimensions, pending.message.input_type)
            except ProviderError as caught:
                error = caught
            except TimeoutError:
                error = ProviderError(ProviderFault.TIMEOUT, "its probes were not answered in time")
            else:
                error = None
            if self._gone_on(pending, indexes, candidate, selection):
                return
            if error is None:
                self._submit(pending, indexes)
                return
            tries += 1
            ms = round((self._clock() - started) * 1000)
            pending.note(
                (Attempt(endpoint=candidate.endpoint.name, reason=error.fault.value, ms=ms, status=error.status),)
            )
            delay = error.retry_after or pause(tries, self._limits, self._rng)
            again = error.fault.retryable and len(pending.tried) + tries < self._limits.max_attempts
            here = candidate.endpoint.name
            if self.elsewhere(pending, error.fault, here) or not again or delay >= pending.deadline - self._clock():
                self._go_on(pending, indexes, error.fault, error)
                return
            await asyncio.sleep(delay)

    def _gone_on(self, pending: Pending, indexes: list[int], candidate: Candidate, selection: Selection) -> bool:
        """Whether nothing waits for this endpoint any more; texts of a request that went on to another are sent after it."""
        if not pending.running or pending.switching or pending.selection is not selection:
            return True
        if pending.candidate is not candidate:
            self.send(pending, indexes)
            return True
        return False

    def _try_seconds(self, pending: Pending) -> float:
        """What one try may take: a share of the time left, while there is another endpoint to go to."""
        left = max(0.0, pending.deadline - self._clock())
        if self.elsewhere(pending, ProviderFault.TIMEOUT, pending.candidate.endpoint.name):
            left *= _SHARE
        return min(left, pending.candidate.endpoint.timeout)

    # -- the next one ---------------------------------------------------------------------------------------------------

    def elsewhere(self, pending: Pending, fault: ProviderFault, endpoint: str) -> bool:
        """See `Steps.elsewhere`. An endpoint whose circuit is open, or that is paused, takes nothing, so it is no reason to leave this one."""
        if pending.pinned or not fault.elsewhere or pending.stays or len(pending.candidates) == 1:
            return False
        if endpoint != pending.candidate.endpoint.name:  # others of its texts have gone on from there already
            return True
        if len(pending.tried) + 1 >= self._limits.max_attempts:
            return False
        found = self._next(pending)
        return found is not None and found.standing is not Standing.PAUSED

    def _next(self, pending: Pending) -> Route | None:
        tried = {*pending.tried, pending.candidate.endpoint.name}
        return self._router.choose(pending.candidates, pending.selection.space, tried)

    def hand_over(self, pending: Pending, indexes: list[int], error: ProviderError, endpoint: str) -> None:
        """See `Steps.hand_over`. What fails where others of its texts have failed before follows them."""
        if not pending.running:
            return
        if endpoint == pending.candidate.endpoint.name:
            self._go_on(pending, indexes, error.fault, error)
        else:
            self.send(pending, indexes)

    def _go_on(self, pending: Pending, indexes: list[int], fault: ProviderFault, error: ProviderError | None) -> None:
        here = pending.candidate.endpoint.name
        found = None if pending.stays else self._next(pending)
        if found is None or len(pending.tried) + 1 >= self._limits.max_attempts:
            left = {*pending.tried, here}
            pending.note(self._router.attempts(pending.candidates, pending.selection.space, left))
            retry_after = (error.retry_after or 0.0) if error is not None else 0.0
            told = unavailable(
                pending.selection.model.id,
                as_details(pending.attempts),
                retry_after or self._router.open_for(pending.candidates),
            )
            pending.steps.failed(pending, told, fault)
            return
        pending.tried.append(here)
        pending.tries = max(pending.tries + 1, len(pending.tried))
        self._service.vectors.retract(pending)
        if pending.moved is None:
            pending.moved = Failover(pending.selection.model.id, here, reason_of(fault))
        pending.candidate = found.candidate
        if not pending.replaying:  # which bills nothing, wherever the endpoint is
            take_price(pending)
        self.send(pending, indexes)

    # -- another model --------------------------------------------------------------------------------------------------

    def may_switch(self, pending: Pending, fault: ProviderFault | None) -> bool:
        """Whether another model may embed the request after its own has failed: one that no vector of has gone out yet."""
        return (
            fault is not None
            and fault.elsewhere
            and not pending.pinned
            and pending.question.another
            and pending.running
            and not pending.given_out
        )

    async def switch(self, pending: Pending, error: GatewayError, fault: ProviderFault) -> None:
        """Let the next model embed the request, which is `switching`; fail it with `error` where there is none."""
        first = pending.moved or pending.selection.failover
        if first is None:
            first = Failover(pending.selection.model.id, pending.candidate.endpoint.name, reason_of(fault))
        try:
            await self._service.switch_model(pending, error)
        except GatewayError as refusal:
            if pending.running:
                self._service.settle(pending, refusal)
            return
        if pending.running:
            pending.selection = msgspec.structs.replace(pending.selection, failover=first)
            pending.tried.clear()
            pending.switching = False
            self._service.vectors.fill(pending)
