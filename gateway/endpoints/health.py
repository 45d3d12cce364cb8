"""The health of every endpoint in the eyes of this process: by its calls, and by checks of those that nobody calls.

A check costs nothing. It finds an idle endpoint that died, and one that came back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec
import structlog

from domain.attestations import AttestationState, attestation_state
from domain.catalogue import Endpoint
from domain.endpoint_health import EndpointHealth, Health, patience
from domain.endpoints import Endpoints, endpoint_stream
from domain.events import SYSTEM_TENANT, EndpointHealthChanged
from domain.facts import tenant_fact
from domain.ports.event_log import NewEvent
from domain.ports.provider import Provider, ProviderError, ProviderFault
from gateway.dispatch.context import CallOutcome
from gateway.endpoints.breakers import Breakers

TICK_SECONDS = 1.0
CHECK_TIMEOUT = 5.0
"""How long a check may take, seconds; less where the endpoint's calls may take less."""
CONFIRM_SECONDS = 5.0
"""How soon a failed check is made again, seconds: one alone says little."""
_GRACE = 1.0

_log = structlog.get_logger("emberlog.endpoints")


class HealthStanding(msgspec.Struct, frozen=True):
    """The health of an endpoint, why, and since when (seconds since the epoch; None: from the start).

    `ails`: it is unhealthy by its own calls or checks, not (or not only) because its circuit is open or its vectors have drifted.
    """

    health: Health
    reason: str
    since: float | None
    ails: bool = False


class _Watched:
    """One endpoint under watch."""

    def __init__(self, endpoint: Endpoint, configuration: str) -> None:
        self.endpoint = endpoint
        self.configuration = configuration
        self.seen = EndpointHealth(patience(endpoint))
        self.since: float | None = None
        self.checked_at = float("-inf")
        self.check: asyncio.Task[None] | None = None


class HealthWatch:
    """`of` and `on_call` are for the hot path. `run` until cancelled.

    `endpoints` gives those that serve; `known` is what the log tells of endpoints; `say` takes an event to be written, with its subject;
    `instance` is who we are; an endpoint without a call for `check_seconds` is checked. `clock` is monotonic, `wall` seconds since the epoch.
    """

    def __init__(
        self,
        *,
        endpoints: Callable[[], Iterable[Endpoint]],
        provider_of: Callable[[Endpoint], Provider],
        breakers: Breakers,
        known: Endpoints,
        say: Callable[[str, NewEvent], None],
        instance: Callable[[], str],
        check_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._endpoints = endpoints
        self._provider_of = provider_of
        self._breakers = breakers
        self._known = known
        self._say = say
        self._instance = instance
        self._check_seconds = check_seconds
        self._clock = clock
        self._wall = wall
        self._watched: dict[str, _Watched] = {}
        breakers.on_change(self._circuit_changed)

    # -- what is asked --------------------------------------------------------------------------------------------------

    def of(self, name: str) -> Health:
        """The health of an endpoint as of now."""
        watched = self._watched.get(name)
        return Health.UNKNOWN if watched is None else watched.seen.health

    def standing(self, name: str) -> HealthStanding:
        """The same, with why and since when."""
        watched = self._watched.get(name)
        if watched is None:
            return HealthStanding(Health.UNKNOWN, "nothing is known yet", None)
        return HealthStanding(watched.seen.health, watched.seen.reason, watched.since, watched.seen.ails)

    def all(self) -> dict[str, HealthStanding]:
        """That of every endpoint under watch."""
        return {name: self.standing(name) for name in self._watched}

    # -- what is told ---------------------------------------------------------------------------------------------------

    def on_call(self, outcome: CallOutcome) -> None:
        """A provider call ended."""
        watched = self._watched.get(outcome.endpoint)
        if watched is not None:
            self._heard(
                watched,
                lambda seen, now: seen.called(outcome.fault, outcome.model, outcome.tokens, outcome.seconds, now),
            )

    def _circuit_changed(self, name: str) -> None:
        watched = self._watched.get(name)
        if watched is not None:
            state = self._breakers.of(watched.endpoint).state
            self._heard(watched, lambda seen, now: seen.circuit(state, now))

    def _heard(self, watched: _Watched, tell: Callable[[EndpointHealth, float], bool]) -> None:
        seen = watched.seen
        previous = seen.health
        if not tell(seen, self._clock()):
            return
        name, at = watched.endpoint.name, self._wall()
        watched.since = at
        data = EndpointHealthChanged(
            endpoint=name,
            health=seen.health.value,
            previous=previous.value,
            reason=seen.reason,
            at=int(at * 1_000_000),
            instance=self._instance(),
        )
        identity = f"{data.instance}/{name}/{data.at}"
        owner = watched.endpoint.tenant or SYSTEM_TENANT
        self._say(f"health/{name}", tenant_fact(owner, endpoint_stream(name), data, identity, data.at))

    # -- what is found out ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at every endpoint again and again, and check those that nobody calls."""
        try:
            while True:
                try:
                    self.look()
                except Exception as error:  # whatever is wrong, endpoints must go on being watched
                    _log.error("endpoints_not_watched", exc_info=error)
                await asyncio.sleep(TICK_SECONDS)
        finally:
            for watched in self._watched.values():
                if watched.check is not None:
                    watched.check.cancel()

    def look(self) -> None:
        """See how circuits and attestations stand by now, and start the checks that are due."""
        endpoints = {endpoint.name: endpoint for endpoint in self._endpoints()}
        for name in [name for name in self._watched if name not in endpoints]:
            self._forget(name)
        self._breakers.keep(endpoints)
        configurations = {
            name: known.configuration
            if (known := self._watched.get(name)) is not None and known.endpoint is endpoint
            else endpoint.configuration
            for name, endpoint in endpoints.items()
        }
        drifted = self._drifted(configurations)
        now = self._clock()
        for name, endpoint in endpoints.items():
            watched = self._watched.get(name)
            if watched is not None and watched.configuration != configurations[name]:
                self._forget(name)
                watched = None
            if watched is None:
                watched = self._watched[name] = _Watched(endpoint, configurations[name])
            watched.endpoint = endpoint
            self._circuit_changed(name)
            spaces, of = drifted.get(name, (0, 0))
            self._heard(watched, lambda seen, now, spaces=spaces, of=of: seen.drifted(spaces, of, now))  # type: ignore[misc]
            self._heard(watched, EndpointHealth.settle)
            if watched.check is None and self._due(watched, now):
                watched.checked_at = now
                watched.check = asyncio.get_running_loop().create_task(self._check(watched))

    def _forget(self, name: str) -> None:
        watched = self._watched.pop(name)
        if watched.check is not None:
            watched.check.cancel()

    def _due(self, watched: _Watched, now: float) -> bool:
        seen = watched.seen
        if seen.doubtful:
            return now - watched.checked_at >= min(CONFIRM_SECONDS, self._check_seconds)
        called = seen.heard_at if seen.health in (Health.HEALTHY, Health.DEGRADED) else float("-inf")
        return now - max(watched.checked_at, called) >= self._check_seconds

    async def _check(self, watched: _Watched) -> None:
        endpoint = watched.endpoint
        timeout = min(CHECK_TIMEOUT, endpoint.timeout)
        fault: ProviderFault | None = None
        try:
            async with asyncio.timeout(timeout + _GRACE):
                await self._provider_of(endpoint).check(timeout)
        except ProviderError as error:
            fault = error.fault
        except TimeoutError:
            fault = ProviderFault.TIMEOUT
        except Exception as error:
            _log.error("endpoint_check_failed", endpoint=endpoint.name, exc_info=error)
            fault = ProviderFault.SERVER
        watched.check = None
        self._heard(watched, lambda seen, now: seen.checked(fault, now))

    def _drifted(self, configurations: dict[str, str]) -> dict[str, tuple[int, int]]:
        """Of how many of its spaces an endpoint's vectors are not, and for how many it was attested."""
        found: dict[str, tuple[int, int]] = {}
        for name, space in self._known.attested:
            configuration = configurations.get(name)
            if configuration is not None:
                state = attestation_state(self._known, name, configuration, space)
                spaces, of = found.get(name, (0, 0))
                if state is not AttestationState.UNATTESTED:
                    found[name] = spaces + (state is AttestationState.QUARANTINED), of + 1
        return found
