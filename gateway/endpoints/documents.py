"""Endpoints as the management API and the commands show them. Nothing here holds a credential."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from domain.attestations import attestation_state
from domain.catalogue import Endpoint
from domain.endpoint_health import Health
from domain.events import BreakerChanged
from domain.plane import ControlPlane
from domain.ports.breaker import CircuitState
from gateway.endpoints.breakers import CircuitStanding
from gateway.event_document import time_text

if TYPE_CHECKING:  # a command that shows endpoints has no use for what runs them
    from gateway.dispatch.dispatcher import LaneGauge
    from gateway.endpoints.health import HealthStanding


class CircuitDocument(msgspec.Struct, frozen=True):
    """The circuit of an endpoint. `until` is when an open one lets trial calls through; `reason` and `changed_at` are of the last word of any
    gateway, null where none ever said a word. `adopted`: another gateway than the one asked opened it. Times are ISO 8601, UTC.
    """

    endpoint: str
    state: str
    failure_count: int
    until: str | None
    reason: str | None
    changed_at: str | None
    adopted: bool


class HealthDocument(msgspec.Struct, frozen=True):
    """The health of an endpoint in the eyes of the gateway that is asked: `healthy`, `degraded`, `unhealthy` or `unknown`, and why."""

    status: str
    reason: str
    since: str | None


class SpaceDocument(msgspec.Struct, frozen=True):
    """Whether an endpoint's vectors are those of a space: `attested`, `unattested` or `quarantined`, as was last seen `at`."""

    space: str
    state: str
    at: str
    problems: list[str]


class EndpointModelDocument(msgspec.Struct, frozen=True):
    """A model that an endpoint serves, by the provider's own id where one is configured."""

    model_id: str
    provider_model: str | None
    spaces: list[SpaceDocument]


class LaneDocument(msgspec.Struct, frozen=True):
    """What one lane of a model holds at the endpoint, in the gateway that is asked, and what was learnt there from what the provider refused:
    the most texts (`max_inputs`) and tokens of a call, from how many tokens on a text goes alone, the most calls at once (`max_calls`) and a
    second. Null: no such limit is known.
    """

    model_id: str
    calls: int
    queued_texts: int
    max_inputs: int
    max_calls: int
    max_tokens: int
    alone_from: int | None
    calls_per_second: float | None


class EndpointDocument(msgspec.Struct, frozen=True):
    """An endpoint that serves. `origin` is `settings` or `deployed`; `owner` is the tenant that it serves alone, null: it serves everybody.

    `base_url` is its address, of which only scheme, host and path are shown. `health` and `lanes` are null where no gateway was asked.
    """

    name: str
    provider: str
    origin: str
    owner: str | None
    base_url: str | None
    weight: int
    max_concurrency: int
    max_inputs: int | None
    max_tokens_per_call: int | None
    timeout_ms: int
    models: list[EndpointModelDocument]
    circuit: CircuitDocument
    health: HealthDocument | None
    lanes: list[LaneDocument] | None


def endpoint_document(
    plane: ControlPlane,
    endpoint: Endpoint,
    configured: Collection[str],
    *,
    now: float,
    circuit: CircuitStanding | None = None,
    health: HealthStanding | None = None,
    lanes: Iterable[LaneGauge] | None = None,
) -> EndpointDocument:
    """The document of an endpoint. Without `circuit` it stands as the last word of any process says, as of `now` (seconds, epoch)."""
    return EndpointDocument(
        name=endpoint.name,
        provider=endpoint.provider,
        origin="settings" if endpoint.name in configured else "deployed",
        owner=endpoint.tenant,
        base_url=shown_address(endpoint.base_url),
        weight=endpoint.weight,
        max_concurrency=endpoint.max_concurrency,
        max_inputs=endpoint.max_inputs,
        max_tokens_per_call=endpoint.max_tokens_per_call,
        timeout_ms=round(endpoint.timeout * 1000),
        models=_models(plane, endpoint),
        circuit=circuit_document(plane, endpoint, now=now, circuit=circuit),
        health=None if health is None else _health(health),
        lanes=None if lanes is None else [_lane(gauge) for gauge in lanes if gauge.endpoint == endpoint.name],
    )


def circuit_document(
    plane: ControlPlane, endpoint: Endpoint, *, now: float, circuit: CircuitStanding | None = None
) -> CircuitDocument:
    """The document of an endpoint's circuit; see `endpoint_document`."""
    word = plane.endpoints.breakers.get(endpoint.name)
    if circuit is None:
        circuit = told_standing(word, now)
    opened = circuit.state is CircuitState.OPEN
    return CircuitDocument(
        endpoint=endpoint.name,
        state=circuit.state.value,
        failure_count=circuit.failures,
        until=time_text(int((now + circuit.open_for) * 1_000_000)) if opened else None,
        reason=None if word is None else word.reason,
        changed_at=None if word is None else time_text(word.at),
        adopted=circuit.adopted,
    )


def told_standing(word: BreakerChanged | None, now: float) -> CircuitStanding:
    """How a circuit stands by the last word on it: an open one whose time has passed is half open."""
    if word is None:
        return CircuitStanding(CircuitState.CLOSED, 0.0, 0, adopted=False)
    left = max(0.0, (word.until or 0) / 1_000_000 - now)
    state = CircuitState(word.state)
    if state is CircuitState.OPEN and not left:
        state = CircuitState.HALF_OPEN
    return CircuitStanding(state, left, word.failures, adopted=False)


def shown_address(address: str | None) -> str | None:
    """An address without whatever may be a secret in it: user, password, query."""
    if address is None:
        return None
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _models(plane: ControlPlane, endpoint: Endpoint) -> list[EndpointModelDocument]:
    configuration = endpoint.configuration
    spaces: dict[str, list[SpaceDocument]] = {}
    for (name, space), told in sorted(plane.endpoints.attested.items()):
        if name == endpoint.name:
            state = attestation_state(plane.endpoints, name, configuration, space)
            spaces.setdefault(told.model, []).append(
                SpaceDocument(space, state.value, time_text(told.at), list(told.problems))
            )
    return [
        EndpointModelDocument(model, own or None, spaces.get(model, []))
        for model, own in sorted(endpoint.models.items())
    ]


def _health(health: HealthStanding) -> HealthDocument:
    since = None if health.since is None else time_text(int(health.since * 1_000_000))
    return HealthDocument(Health(health.health).value, health.reason, since)


def _lane(gauge: LaneGauge) -> LaneDocument:
    return LaneDocument(
        gauge.model,
        gauge.calls,
        gauge.queued_texts,
        gauge.max_inputs,
        gauge.max_calls,
        gauge.max_tokens,
        gauge.alone_from,
        gauge.calls_per_second,
    )
