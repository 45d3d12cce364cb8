"""The health of an endpoint, worked out from what its calls and checks say. Pure: the time is given, in seconds of any monotonic clock.

Getting worse is told at once; getting better takes some proof and some time, so that health does not flutter. A provider that asks for a
pause (429) is not ill, nor is one that refuses a text. Bad answers may be one text's doing: they make an endpoint degraded at most.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from domain.catalogue import Endpoint
from domain.ports.breaker import CircuitState
from domain.ports.provider import ProviderFault


class Health(StrEnum):
    """How an endpoint is. `unknown` until something is known of it."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


ILL = frozenset({ProviderFault.TIMEOUT, ProviderFault.CONNECTION, ProviderFault.SERVER, ProviderFault.AUTHENTICATION})
"""Faults that are the endpoint's or our credential's."""
_POOR = ILL | {ProviderFault.BAD_ANSWER}
"""Faults that speak against an endpoint."""

WINDOW = 40
"""Calls that are looked back at."""
ENOUGH = 10
"""Fewer calls than this say nothing about shares."""
UNHEALTHY_SHARE, DEGRADED_SHARE, RECOVERED_SHARE = 0.5, 0.1, 0.05
"""The share of ill calls from which an endpoint is unhealthy, of poor calls from which it is degraded, and below which it no longer is."""
FAILED_IN_A_ROW = 3
"""Poor calls in a row from which an endpoint is degraded. More of them open its circuit."""
REFUSED_IN_A_ROW, FAILED_CHECKS = 2, 2
"""Calls in a row in which the credential was refused, and checks in a row that failed, from which it is unhealthy."""
SIGNS_OF_LIFE = 2
"""Good calls or checks in a row after which it no longer is."""
BETTER_SECONDS = 10.0
"""How long a finding lasts at least before a better one replaces it."""

_BASELINE = 20
"""Calls of one size before their usual latency is known."""
_USUAL_WEIGHT, _SLOWNESS_WEIGHT = 0.005, 0.1
SLOW, NO_LONGER_SLOW = 3.0, 2.0
"""Times the usual latency, from which an endpoint is degraded, and below which it no longer is."""


PATIENCE = 5.0
"""A call that was given so many seconds, and did not answer, says something about its endpoint, whatever its calls take usually."""
_NEARLY = 0.9


def patience(endpoint: Endpoint) -> float:
    """How many seconds a call at an endpoint has to be given for its timeout to say something about the endpoint: with a shorter timeout of the
    endpoint's own, (nearly) that.
    """
    return min(PATIENCE, endpoint.timeout * _NEARLY)


class EndpointHealth:
    """One endpoint's. `health` and `reason` are the findings; each method that is told something says whether they changed.

    A timeout counts if the call was given `patience` seconds, or several times what calls of its size usually take: else it was its
    asker's deadline that was short.
    """

    def __init__(self, patience: float = 0.0) -> None:
        self._patience = patience
        self.health = Health.UNKNOWN
        self.reason = "nothing is known yet"
        self.changed_at = float("-inf")
        self.heard_at = float("-inf")
        """When a call or a check last said something."""
        self._calls: deque[ProviderFault | None] = deque(maxlen=WINDOW)
        self._ill = 0
        self._poor = 0
        self._bad = 0
        self._refused = 0
        self._good = 0
        self._failed_checks = 0
        self._check_fault: ProviderFault | None = None
        self._check_passed = False
        self._check_beside = False
        self._ails: str | None = None
        self._circuit = CircuitState.CLOSED
        self._drifted: tuple[int, int] = (0, 0)
        self._usual: dict[tuple[str, int], tuple[float, int]] = {}
        self._slowness = 1.0
        self._heard = False

    @property
    def ails(self) -> bool:
        """Whether it is unhealthy for what its calls and checks say, whatever its circuit and its vectors are like."""
        return self._ails is not None

    @property
    def doubtful(self) -> bool:
        """Whether a check failed, and too few did to say that the endpoint is unhealthy."""
        return 0 < self._failed_checks < FAILED_CHECKS

    def called(self, fault: ProviderFault | None, model: str, tokens: int, seconds: float, now: float) -> bool:
        """A call of so many tokens ended: with `fault`, None for a good one."""
        self.heard_at = now
        if fault is not None and (fault not in _POOR or self._hurried(fault, model, tokens, seconds)):
            return False
        if len(self._calls) == WINDOW:
            self._count(self._calls[0], -1)
        self._calls.append(fault)
        self._count(fault, 1)
        self._heard = True
        if fault is None:
            self._bad = self._refused = self._failed_checks = 0
            self._good += 1
            self._time(model, tokens, seconds)
            if self.health is Health.HEALTHY and not self._poor and self._slowness < SLOW:
                return False  # the usual case
        else:
            self._bad += 1
            self._good = 0
            self._refused = self._refused + 1 if fault is ProviderFault.AUTHENTICATION else 0
        return self._judge(now)

    def checked(self, fault: ProviderFault | None, now: float) -> bool:
        """A check, which embeds nothing, ended. One that refuses our credential, and never took it, says only that somebody is there: what it
        asks may be more than the credential is for.
        """
        self.heard_at = now
        beside = fault is ProviderFault.AUTHENTICATION and not self._check_passed
        self._check_beside = beside
        if fault in ILL and not beside:
            self._failed_checks += 1
            self._good = 0
            self._check_fault = fault
        else:
            self._good += 1
            self._failed_checks = 0
            self._check_passed |= not beside
        self._heard |= not beside
        return self._judge(now)

    def circuit(self, state: CircuitState, now: float) -> bool:
        """The circuit stands so. What was counted before it opened says nothing about the calls after that."""
        if state is self._circuit:
            return False
        if state is CircuitState.CLOSED or self._circuit is CircuitState.OPEN:
            self._forget_calls()
            if self._failed_checks < FAILED_CHECKS:
                self._ails = None
        self._circuit = state
        return self._judge(now)

    def drifted(self, spaces: int, of: int, now: float) -> bool:
        """Its vectors are not those of so many of its spaces, and it was attested for `of`."""
        if (spaces, of) == self._drifted:
            return False
        self._drifted = (spaces, of)
        return self._judge(now)

    def settle(self, now: float) -> bool:
        """Time has passed: what was held back for a while may be found now."""
        return self._judge(now)

    def _count(self, fault: ProviderFault | None, by: int) -> None:
        if fault is not None:
            self._poor += by
            if fault in ILL:
                self._ill += by

    def _forget_calls(self) -> None:
        self._calls.clear()
        self._ill = self._poor = self._bad = self._refused = 0
        self._slowness = 1.0

    def _hurried(self, fault: ProviderFault, model: str, tokens: int, seconds: float) -> bool:
        if fault is not ProviderFault.TIMEOUT:
            return False
        usual, count = self._usual.get((model, tokens.bit_length()), (0.0, 0))
        return seconds < (self._patience if count < _BASELINE else min(self._patience, usual * SLOW))

    def _time(self, model: str, tokens: int, seconds: float) -> None:
        """Latency against what calls of that size usually take: a factor of two in tokens is another size."""
        size = (model, tokens.bit_length())
        usual, count = self._usual.get(size, (seconds, 0))
        if count >= _BASELINE and usual > 0:
            self._slowness += (min(seconds / usual, 10.0) - self._slowness) * _SLOWNESS_WEIGHT
        weight = _USUAL_WEIGHT if count >= _BASELINE else 1 / (count + 1)
        self._usual[size] = (usual + (seconds - usual) * weight, count + 1)

    def _judge(self, now: float) -> bool:
        if self._ails is None:
            self._ails = self._ailment()
        elif self._good >= SIGNS_OF_LIFE:
            self._ails = None
            self._forget_calls()
        health, reason = self._found()
        if self.health is Health.UNHEALTHY and health is Health.HEALTHY:
            health, reason = Health.DEGRADED, "it answers again"
        if health is self.health:
            self.reason = reason
            return False
        if _RANK[health] < _RANK[self.health] and now - self.changed_at < BETTER_SECONDS:
            return False
        self.health, self.reason, self.changed_at = health, reason, now
        return True

    def _found(self) -> tuple[Health, str]:
        drifted, spaces = self._drifted
        if self._circuit is CircuitState.OPEN:
            return Health.UNHEALTHY, "its circuit is open"
        if drifted and drifted == spaces:
            return Health.UNHEALTHY, "its vectors are not those of its spaces"
        if self._ails is not None:
            return Health.UNHEALTHY, self._ails
        if self._circuit is CircuitState.HALF_OPEN:
            return Health.DEGRADED, "its circuit is half open: trial calls decide"
        if drifted:
            return Health.DEGRADED, f"its vectors are not those of {drifted} of its {spaces} spaces"
        if not self._heard:
            beside = self._check_beside
            return Health.UNKNOWN, "its check is refused: calls will tell" if beside else "nothing is known yet"
        why = self._degraded()
        return (Health.HEALTHY, "it answers") if why is None else (Health.DEGRADED, why)

    def _ailment(self) -> str | None:
        calls = len(self._calls)
        if self._failed_checks >= FAILED_CHECKS:
            return f"{self._failed_checks} checks in a row failed ({self._check_fault})"
        if self._refused >= REFUSED_IN_A_ROW:
            return "our credential is refused"
        if calls >= ENOUGH and self._ill >= calls * UNHEALTHY_SHARE:
            return f"{self._ill} of the last {calls} calls failed"
        return None

    def _degraded(self) -> str | None:
        calls, well = len(self._calls), self.health is Health.HEALTHY
        if self._failed_checks:
            return f"a check failed ({self._check_fault})"
        if self._bad >= (FAILED_IN_A_ROW if well else 1):
            return "the last call failed" if self._bad == 1 else f"the last {self._bad} calls failed"
        if calls >= ENOUGH and self._poor > calls * (DEGRADED_SHARE if well else RECOVERED_SHARE):
            return f"{self._poor} of the last {calls} calls failed"
        if self._slowness > (SLOW if well else NO_LONGER_SLOW):
            return f"calls take {self._slowness:.1f} times what they usually take"
        return None


_RANK = {Health.UNKNOWN: 0, Health.HEALTHY: 0, Health.DEGRADED: 1, Health.UNHEALTHY: 2}
"""The higher, the worse."""
