"""Decisions about endpoints that serve."""

from __future__ import annotations

from domain.catalogue import Endpoint
from domain.decision import Decision
from domain.endpoints import endpoint_stream
from domain.events import SYSTEM_TENANT, BreakerChanged
from domain.plane import ControlPlane
from domain.ports.breaker import CircuitState

RESET = "reset"


def decide_reset_breaker(
    plane: ControlPlane, endpoint: Endpoint, actor: str, *, now: float, state: CircuitState | None = None
) -> list[Decision]:
    """Close the circuit of an endpoint in every process. Nothing where it never changed or was reset last, and is closed here (`state`): where
    the last word is that trial calls closed it, it may still be open in a process that waits for its own. `now` is seconds since the epoch.
    """
    last = plane.endpoints.breakers.get(endpoint.name)
    previous = CircuitState.CLOSED.value if last is None else last.state
    if state is not None and state is not CircuitState.CLOSED:
        previous = state.value
    if previous == CircuitState.CLOSED and (last is None or last.reason == RESET):
        return []
    data = BreakerChanged(
        endpoint=endpoint.name,
        state=CircuitState.CLOSED.value,
        previous=previous,
        reason=RESET,
        at=int(now * 1_000_000),
        actor=actor,
    )
    return [Decision(endpoint.tenant or SYSTEM_TENANT, endpoint_stream(endpoint.name), data)]
