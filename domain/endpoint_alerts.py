"""What of endpoints needs a person: circuits that stay open, endpoints that stay ill, and vectors that are not those of their space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from domain.alerts import CIRCUIT_OPEN, ENDPOINT_DRIFT, ENDPOINT_UNHEALTHY, Condition
from domain.attestations import quarantined
from domain.catalogue import Endpoint
from domain.endpoints import Endpoints
from domain.events import SYSTEM_TENANT
from domain.ports.breaker import CircuitState

ENDPOINT_KINDS = (CIRCUIT_OPEN, ENDPOINT_UNHEALTHY, ENDPOINT_DRIFT)
"""The kinds that are worked out of the endpoints' state."""
OPEN_SECONDS = 5.0
"""A circuit that opened less than this ago is no news yet: trial calls may close it. Nor is its alert over."""
UNHEALTHY_SECONDS = 60.0
"""The same of an endpoint that is unhealthy by its calls or checks."""


def endpoint_conditions(
    known: Endpoints, serving: Iterable[Endpoint], ailing: Mapping[str, tuple[str, float | None]], now: float
) -> list[Condition]:
    """What is so of the endpoints that serve. `known` is what the log tells of them, `ailing` which are ill by their calls or checks, why and
    since when. Times are seconds since the epoch. An endpoint that a tenant has for itself is that tenant's business.
    """
    found: list[Condition] = []
    endpoints = {endpoint.name: endpoint for endpoint in serving}
    for name, endpoint in endpoints.items():
        owner, labels = endpoint.tenant or SYSTEM_TENANT, {"endpoint": name, "provider": endpoint.provider}
        word = known.breakers.get(name)
        if word is not None and word.state != CircuitState.CLOSED:
            summary = (
                f"the circuit of the endpoint {name} is open: its calls fail, and nothing but trial calls goes there"
            )
            lasts = word.state != CircuitState.OPEN or now - word.at / 1_000_000 >= OPEN_SECONDS
            found.append(Condition(CIRCUIT_OPEN, owner, labels, summary, news=lasts))
        elif name in ailing:
            reason, since = ailing[name]
            lasts = since is not None and now - since >= UNHEALTHY_SECONDS
            summary = f"the endpoint {name} is unhealthy: {reason}"
            found.append(Condition(ENDPOINT_UNHEALTHY, owner, labels, summary, news=lasts))
    for told in quarantined(known):
        drifted = endpoints.get(told.endpoint)
        if drifted is not None and drifted.configuration == told.configuration:
            labels = {"endpoint": told.endpoint, "model": told.model, "space": told.space}
            summary = (
                f"the endpoint {told.endpoint} gives vectors that are not those of the space {told.space}, and serves it no longer: "
                "see `emberlog models attest`"
            )
            found.append(Condition(ENDPOINT_DRIFT, drifted.tenant or SYSTEM_TENANT, labels, summary))
    return found
