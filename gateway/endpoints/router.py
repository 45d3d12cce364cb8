"""Which endpoint of a model gets the texts of a request: weighted, least in flight, among those that may serve the space now.

Policy has chosen the model, from configuration alone; here circuits, health and attestation choose among the endpoints of its space. A
tenant's own endpoints come first, those of weight 0 stand by. Where the first in line is passed over for its circuit, its health
or a pause that it has asked for, the route says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from domain.catalogue import Candidate, Endpoint
from domain.errors import GatewayError
from domain.events import Attempt
from domain.ports.breaker import Breaker, CircuitState
from domain.ports.provider import ProviderFault
from gateway.dispatch.failures import as_details


class Standing(IntEnum):
    """How an endpoint stands for a space, best first. Nothing is sent to one that is `DRIFTED` or `OPEN`."""

    GOOD = 0
    TRIAL = 1
    """Its circuit is half open and wants a trial call: it comes first, but for those that stand by."""
    DEGRADED = 2
    UNATTESTED = 3
    UNHEALTHY = 4
    PAUSED = 5
    """It has asked for a pause that is worth going elsewhere for."""
    TRIED = 6
    """Its circuit is half open and all its trial calls are out."""
    OPEN = 7
    DRIFTED = 8


_NO_FAULT = (Standing.GOOD, Standing.TRIAL, Standing.DEGRADED, Standing.UNATTESTED)
"""How an endpoint stands that is passed over for no trouble, or for too little to be called a failover."""
_FAULTS = {Standing.DRIFTED: ProviderFault.DRIFTED, Standing.PAUSED: ProviderFault.RATE_LIMITED}
_DEGRADED_WEIGHT = 0.5
"""Of its weight, what counts of an endpoint that is degraded. It goes on being called: its circuit decides when it is not."""


class Route(msgspec.Struct, frozen=True):
    """The endpoint to send to, how it stands, and the one that was first in line where its circuit, its health or a pause kept it from being
    chosen, with why.
    """

    candidate: Candidate
    standing: Standing
    passed: Candidate | None = None
    fault: ProviderFault | None = None


class Router:
    """All methods are called on the loop and take microseconds.

    `breaker_of` gives an endpoint's breaker; `health_of` its health (`healthy`, `degraded`, `unhealthy`, `unknown`); `attested` how it
    stands for a space (`attested`, `unattested`, `quarantined`); `load` the texts queued and in flight there; `paused` whether it has asked
    for a pause. Each may be left out.
    """

    def __init__(
        self,
        *,
        breaker_of: Callable[[Endpoint], Breaker] | None = None,
        health_of: Callable[[str], str] | None = None,
        attested: Callable[[Endpoint, str], str] | None = None,
        load: Callable[[str], int] | None = None,
        paused: Callable[[str], bool] | None = None,
    ) -> None:
        self._breaker_of = breaker_of
        self._health_of = health_of
        self._attested = attested
        self._load = load
        self._paused = paused

    def standing(self, endpoint: Endpoint, space: str) -> Standing:
        """How the endpoint stands for the space now."""
        trial = False
        if self._breaker_of is not None:
            breaker = self._breaker_of(endpoint)
            if not breaker.would_admit():
                return Standing.OPEN if breaker.state is CircuitState.OPEN else Standing.TRIED
            trial = breaker.state is CircuitState.HALF_OPEN
        if self._attested is not None:
            attested = self._attested(endpoint, space)
            if attested != "attested":
                return Standing.UNATTESTED if attested == "unattested" else Standing.DRIFTED
        if self._paused is not None and self._paused(endpoint.name):
            return Standing.PAUSED
        if self._health_of is not None:
            health = self._health_of(endpoint.name)
            if health == "unhealthy":
                return Standing.UNHEALTHY
            if health == "degraded" and not trial:
                return Standing.DEGRADED
        return Standing.TRIAL if trial else Standing.GOOD

    def choose(self, candidates: Sequence[Candidate], space: str, tried: Collection[str] = ()) -> Route | None:
        """The best of the candidates, without those whose endpoints were `tried`; None where none of them may be sent to."""
        if len(candidates) == 1 and not tried:
            candidate = candidates[0]
            standing = self.standing(candidate.endpoint, space)
            return Route(candidate, standing) if standing < Standing.OPEN else None
        best = first = None
        best_key: tuple[int, bool, bool, bool, float, int] | None = None
        first_key: tuple[bool, bool, float, int] | None = None
        for place, candidate in enumerate(candidates):
            endpoint = candidate.endpoint
            if endpoint.name in tried:
                continue
            load = 0 if self._load is None else self._load(endpoint.name)
            standing = self.standing(endpoint, space)
            weight = (endpoint.weight or 1) * (_DEGRADED_WEIGHT if standing is Standing.DEGRADED else 1)
            # A circuit closes by trial calls alone: with little traffic one that never came first would stay half open for ever.
            share = -1.0 if standing is Standing.TRIAL else (load + 1) / weight
            line = (endpoint.tenant is None, endpoint.weight == 0, share, place)
            if first_key is None or line < first_key:
                first, first_key = Route(candidate, standing), line
            if standing >= Standing.OPEN:
                continue
            last = standing if standing >= Standing.UNHEALTHY else 0
            key = (last, line[0], line[1], standing is Standing.UNATTESTED, line[2], place)
            if best_key is None or key < best_key:
                best, best_key = Route(candidate, standing), key
        if best is None or first is None or first.candidate is best.candidate or first.standing in _NO_FAULT:
            return best
        return Route(best.candidate, best.standing, first.candidate, fault_of(first.standing))

    def attempts(self, candidates: Sequence[Candidate], space: str, tried: Collection[str] = ()) -> tuple[Attempt, ...]:
        """What keeps each endpoint that was not tried from being sent to, as attempts of no time."""
        return tuple(
            Attempt(endpoint=c.endpoint.name, reason=fault_of(standing).value, ms=0)
            for c in candidates
            if c.endpoint.name not in tried and (standing := self.standing(c.endpoint, space)) >= Standing.PAUSED
        )

    def refusal(self, model: str, candidates: Sequence[Candidate], space: str) -> GatewayError | None:
        """What a request of the model is told where none of its endpoints may be sent to; None where one may."""
        if not candidates or self.choose(candidates, space) is not None:
            return None
        return unavailable(model, as_details(self.attempts(candidates, space)), self.open_for(candidates))

    def open_for(self, candidates: Sequence[Candidate]) -> float:
        """Seconds until the first of their open circuits lets a call through; 0 where none is open."""
        if self._breaker_of is None:
            return 0.0
        return min(
            (b.open_for for b in (self._breaker_of(c.endpoint) for c in candidates) if b.open_for > 0), default=0.0
        )


def fault_of(standing: Standing) -> ProviderFault:
    """Why nothing is sent to an endpoint that stands so."""
    return _FAULTS.get(standing, ProviderFault.CIRCUIT_OPEN)


def unavailable(model: str, attempts: Sequence[dict[str, Any]], retry_after: float = 0.0) -> GatewayError:
    """Every endpoint of the model failed, or none may be sent to. `retry_after` in seconds, 0 where nobody knows."""
    return GatewayError(
        "provider_unavailable",
        f"no endpoint of {model!r} answers at present (see `details.attempts`): try again later, or choose another model",
        details={"attempts": list(attempts)},
        retry_after_ms=int(retry_after * 1000) + 1 if retry_after else None,
    )


REASONS = {
    ProviderFault.TIMEOUT: "timeout",
    ProviderFault.RATE_LIMITED: "rate_limited",
    ProviderFault.CIRCUIT_OPEN: "circuit_open",
    ProviderFault.DRIFTED: "circuit_open",
}
"""Why a request moved on, as answers name it; any other fault is a `provider_error`."""


def reason_of(fault: ProviderFault) -> str:
    """See `REASONS`."""
    return REASONS.get(fault, "provider_error")
