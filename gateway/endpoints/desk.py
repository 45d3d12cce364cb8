"""The circuits and the health of a gateway's endpoints, put together: what the gateway runs, and what is shown of them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from adapters.breaker import CircuitPolicy
from domain.alerts import Condition
from domain.catalogue import Endpoint
from domain.endpoint_alerts import endpoint_conditions
from domain.endpoint_health import Health
from domain.errors import GatewayError
from domain.events import EventData
from domain.plane import ControlPlane
from domain.ports.breaker import CircuitState
from domain.ports.event_log import NewEvent
from domain.ports.provider import Provider
from domain.tenancy import Principal
from gateway.dispatch.dispatcher import LaneGauge
from gateway.endpoints.announcer import Announcer
from gateway.endpoints.breakers import Breakers
from gateway.endpoints.documents import CircuitDocument, EndpointDocument, circuit_document, endpoint_document
from gateway.endpoints.health import HealthWatch
from gateway.telemetry.metrics import Gauges

_STATES = {CircuitState.CLOSED: 0.0, CircuitState.HALF_OPEN: 1.0, CircuitState.OPEN: 2.0}
_HEALTH = {Health.HEALTHY: 1.0, Health.DEGRADED: 0.5, Health.UNHEALTHY: 0.0}


class EndpointDesk:
    """`breakers` and `health` are for the dispatcher and the router; `runs` is what to run beside the rest.

    `endpoints` gives those that serve, `configured` the names of those of the settings; `append` returns once the log has an event;
    `instance` is who we are; `lanes` says what the dispatcher holds.
    """

    def __init__(
        self,
        plane: ControlPlane,
        *,
        endpoints: Callable[[], Iterable[Endpoint]],
        configured: Iterable[str],
        provider_of: Callable[[Endpoint], Provider],
        append: Callable[[NewEvent], Awaitable[object]],
        instance: Callable[[], str],
        lanes: Callable[[], Iterable[LaneGauge]] = tuple,
        policy: CircuitPolicy | None = None,
        check_seconds: float = 30.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._plane = plane
        self._endpoints = endpoints
        self._configured = frozenset(configured)
        self._lanes = lanes
        self._wall = wall
        self._announcer = Announcer(append)
        self.breakers = Breakers(
            plane.endpoints.breakers, policy or CircuitPolicy(), self._announcer.say, instance=instance, wall=wall
        )
        self.health = HealthWatch(
            endpoints=endpoints,
            provider_of=provider_of,
            breakers=self.breakers,
            known=plane.endpoints,
            say=self._announcer.say,
            instance=instance,
            check_seconds=check_seconds,
            wall=wall,
        )

    def runs(self) -> list[Coroutine[Any, Any, None]]:
        """What to run until the gateway ends."""
        return [self._announcer.run(), self.health.run()]

    def observe(self, data: EventData) -> None:
        """The log says this."""
        self.breakers.observe(data)

    def watch(self, gauges: Gauges) -> None:
        """Add the metrics."""
        gauges.labelled(
            "circuit_breaker_state",
            "The circuit of an endpoint in this process: 0 closed, 1 half open, 2 open.",
            "name",
            lambda: {name: _STATES[state] for name, state in self.breakers.states().items()},
        )
        gauges.collector(self._changes)
        gauges.labelled(
            "emberlog_endpoint_health",
            "1 healthy, 0.5 degraded, 0 unhealthy; absent while it is unknown.",
            "endpoint",
            lambda: {
                name: _HEALTH[seen.health]
                for name, seen in self.health.all().items()
                if seen.health is not Health.UNKNOWN
            },
        )

    def _changes(self) -> Metric:
        family = CounterMetricFamily(
            "circuit_breaker_state_changes",
            "Changes of an endpoint's circuit in this process, those that another process told it of included.",
            labels=["name", "from", "to"],
        )
        for key, count in self.breakers.changes.items():
            family.add_metric(list(key), count)
        return family

    def conditions(self, now: float) -> list[Condition]:
        """What of the endpoints needs a person, as of `now` (seconds since the epoch)."""
        ailing = {name: (seen.reason, seen.since) for name, seen in self.health.all().items() if seen.ails}
        return endpoint_conditions(self._plane.endpoints, self._endpoints(), ailing, now)

    # -- what is shown --------------------------------------------------------------------------------------------------

    def of(self, principal: Principal) -> list[Endpoint]:
        """The endpoints that serve, by name: those of its own for a tenant's key."""
        found = [e for e in self._endpoints() if principal.tenant is None or e.tenant == principal.tenant]
        return sorted(found, key=lambda endpoint: endpoint.name)

    def find(self, principal: Principal, name: str) -> Endpoint:
        """One of these. Raises `not_found`, alike for one that there is not and one that is not the asker's."""
        for endpoint in self.of(principal):
            if endpoint.name == name:
                return endpoint
        raise unknown_endpoint(name)

    def document(self, endpoint: Endpoint) -> EndpointDocument:
        """An endpoint as it stands in this process."""
        return endpoint_document(
            self._plane,
            endpoint,
            self._configured,
            now=self._wall(),
            circuit=self.breakers.standing(endpoint),
            health=self.health.standing(endpoint.name),
            lanes=self._lanes(),
        )

    def circuit(self, endpoint: Endpoint) -> CircuitDocument:
        """Its circuit as it stands in this process."""
        return circuit_document(self._plane, endpoint, now=self._wall(), circuit=self.breakers.standing(endpoint))


def unknown_endpoint(name: str) -> GatewayError:
    """Nothing that serves has this name, or nothing that the asker may see."""
    return GatewayError(
        "not_found",
        f"there is no endpoint {name[:64]!r} that serves: GET /api/v1/endpoints lists those there are",
        details={"field": "endpoint"},
    )
