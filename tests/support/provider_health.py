"""Facts about endpoints in a log, and the provider_health view folded from it in plain Python."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from domain.events import (
    Attempt,
    BreakerChanged,
    DeploymentChanged,
    EmbeddingFailed,
    EmbeddingGenerated,
    EndpointAttested,
    EndpointHealthChanged,
    EndpointSpec,
    EventData,
    Failover,
)

if TYPE_CHECKING:  # it imports us
    from tests.support.projecting import Recorded, Row

REASONS = {
    "timeout": "timeouts",
    "connection": "connection_errors",
    "server": "server_errors",
    "rate_limited": "rate_limited",
    "authentication": "authentication_errors",
    "refused": "refused",
    "bad_answer": "bad_answers",
    "circuit_open": "circuit_open",
    "drifted": "drifted",
    "unattested": "unattested",
}
_COUNTS = ["answered", "latency_ms", "failed_attempts", *REASONS.values(), "failed_ms", "failovers"]


def breaker(endpoint: str, state: str = "open", **more: Any) -> EventData:
    return BreakerChanged(endpoint=endpoint, state=state, previous="closed", reason="failures", at=1, **more)


def health(endpoint: str, state: str = "degraded", reason: str = "slow") -> EventData:
    return EndpointHealthChanged(endpoint=endpoint, health=state, previous="healthy", reason=reason, at=1, instance="i")


def deployment(endpoint: str, state: str = "ready", **more: Any) -> EventData:
    return DeploymentChanged(endpoint=endpoint, deployment="d", model="m", state=state, at=1, **more)


def attested(endpoint: str, *, passed: bool = True, model: str = "m", space: str = "s", **more: Any) -> EventData:
    return EndpointAttested(endpoint=endpoint, model=model, space=space, passed=passed, at=1, configuration="c", **more)


def endpoint_event(n: int) -> EventData:
    """The n-th event of a history of three endpoints."""
    endpoint = f"e{n % 3}"
    match n // 3 % 6:
        case 0:
            return attested(endpoint, passed=n % 2 == 0, cosine_min=n, space=f"s{n % 2}")
        case 1:
            return breaker(endpoint)
        case 2:
            return health(endpoint, reason=f"{n} calls")
        case 3:
            spec = EndpointSpec(provider="p", models={"m": ""})
            return deployment(endpoint, "preparing", spec=spec) if n % 2 else deployment(endpoint)
        case 4:
            return breaker(endpoint, "closed")
        case _:
            return attested(endpoint)


_endpoints = st.sampled_from(["e", "f'\"\\"])
_models = st.sampled_from(["m", "ä"])
_reasons = st.sampled_from([*REASONS, "too_long", "new"])
_attempts = st.lists(
    st.builds(Attempt, endpoint=_endpoints, reason=_reasons, ms=st.integers(0, 90_000), model=st.none() | _models),
    max_size=3,
)
_failovers = st.none() | st.builds(Failover, model=_models, endpoint=_endpoints, reason=_reasons)
_outcome: dict[str, Any] = {"request_id": "q", "agent": "a", "attempt": 1, "at": 1, "space": "s", "latency_ms": 1}
ENDPOINT_DATA: st.SearchStrategy[EventData] = st.one_of(
    st.builds(breaker, _endpoints, st.sampled_from(["open", "half_open", "closed"])),
    st.builds(health, _endpoints, st.sampled_from(["healthy", "unknown"]), st.sampled_from(["", "ä'"])),
    st.builds(deployment, _endpoints, st.sampled_from(["ready", "stopped"])),
    st.builds(
        attested, _endpoints, passed=st.booleans(), model=_models, space=st.sampled_from(["s", "S"]),
        cosine_min=st.none() | st.integers(-1_000_000, 1_000_000),
    ),
    st.builds(
        lambda model, endpoint, attempts, failover, cached, ms: EmbeddingGenerated(
            **_outcome, model=model, provider="p", endpoint=endpoint, inputs=2, tokens=1, billed_tokens=1, price="x",
            dimensions=3, cached_inputs=cached, provider_ms=ms, attempts=attempts, failover=failover,
        ),
        _models, _endpoints, _attempts, _failovers, st.integers(0, 2), st.integers(0, 9),
    ),
    st.builds(
        lambda model, endpoint, attempts, failover: EmbeddingFailed(
            **_outcome, model=model, endpoint=endpoint, code="provider_unavailable", retryable=True, message="no", inputs=2,
            attempts=attempts, failover=failover,
        ),
        _models, st.none() | _endpoints, _attempts, _failovers,
    ),
)  # fmt: skip


def plain_provider_health(events: Sequence[Recorded], skip: Collection[int] = ()) -> list[Row]:
    """The provider_health view of these events but those at the positions `skip`, in the order of its key."""
    view: dict[tuple[str, str, str], dict[str, Any]] = {}

    def row(endpoint: str, model: str = "", space: str = "") -> dict[str, Any]:
        return view.setdefault((endpoint, model, space), dict.fromkeys(_COUNTS, 0))

    for position, event in enumerate(events, 1):
        data, seen = event.data, [position, event.at]
        if position in skip:
            continue
        match data:
            case BreakerChanged():
                row(data.endpoint)["circuit"] = [data.state, *seen, data.reason]
            case EndpointHealthChanged():
                row(data.endpoint)["health"] = [data.health, *seen, data.reason]
            case DeploymentChanged():
                row(data.endpoint)["deployment"] = [data.state, *seen]
            case EndpointAttested():
                row(data.endpoint, data.model, data.space)["attested"] = [data.passed, *seen, data.cosine_min]
            case EmbeddingGenerated() | EmbeddingFailed():
                if isinstance(data, EmbeddingGenerated) and data.inputs > data.cached_inputs:
                    r = row(data.endpoint, data.model)
                    r["answered"] += 1
                    r["latency_ms"] += data.provider_ms
                    r["success"] = seen
                first = data.failover
                for attempt in data.attempts:
                    r = row(attempt.endpoint, attempt.model or data.model)
                    r["failed_attempts"] += 1
                    r["failed_ms"] += attempt.ms
                    if attempt.reason in REASONS:
                        r[REASONS[attempt.reason]] += 1
                    r["failure"] = seen
                if first is not None and data.endpoint is not None and first.endpoint != data.endpoint:
                    row(first.endpoint, first.model)["failovers"] += 1
            case _:
                pass
    return [
        (
            *key,
            *(r[c] for c in _COUNTS),
            *r.get("success", [None] * 2),
            *r.get("failure", [None] * 2),
            *r.get("circuit", [None] * 4),
            *r.get("health", [None] * 4),
            *r.get("deployment", [None] * 3),
            *r.get("attested", [None] * 4),
        )
        for key, r in sorted(view.items())
    ]
