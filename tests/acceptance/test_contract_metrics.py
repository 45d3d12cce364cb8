"""Every metric that a gateway shows, each provoked: its name, its labels, and that it counts what it says."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.peer import session
from tests.acceptance.provider import MODEL, Simulator
from tests.support.waiting import until

LABELS: dict[str, set[str]] = {
    "embedding_requests_total": {"tenant_id", "model", "provider", "status"},
    "embedding_request_duration_seconds_bucket": {"tenant_id", "model", "provider", "le"},
    "embedding_request_duration_seconds_count": {"tenant_id", "model", "provider"},
    "embedding_request_duration_seconds_sum": {"tenant_id", "model", "provider"},
    "embedding_tokens_total": {"tenant_id", "model", "provider"},
    "embedding_cost_usd_total": {"tenant_id", "model", "provider"},
    "embedding_cache_hits_total": {"tenant_id", "model"},
    "embedding_cache_lookups_total": {"tenant_id", "model"},
    "embedding_errors_total": {"tenant_id", "model", "error_type"},
    "embedding_unpriced_requests_total": {"tenant_id", "model"},
    "embedding_model_switches_total": {"tenant_id", "from_model", "to_model", "reason"},
    "emberlog_errors_told_total": {"source", "tenant_id", "error_type"},
    "health_check_status": {"component"},
    "emberlog_provider_calls_total": {"endpoint", "provider", "model"},
    "emberlog_provider_texts_total": {"endpoint", "provider", "model"},
    "emberlog_provider_seconds_total": {"endpoint", "provider", "model"},
    "emberlog_provider_faults_total": {"endpoint", "model", "fault"},
    "emberlog_discovery_runs_total": {"provider", "status"},
    "emberlog_discovery_models_total": {"provider", "outcome"},
    "circuit_breaker_state": {"name"},
    "circuit_breaker_state_changes_total": {"name", "from", "to"},
    "emberlog_endpoint_health": {"endpoint"},
    "emberlog_requests_in_flight": set(),
    "emberlog_provider_calls_in_flight": set(),
    "emberlog_queued_texts": set(),
    "emberlog_lane_queued_texts": {"endpoint", "model"},
    "emberlog_lane_calls_in_flight": {"endpoint", "model"},
    "emberlog_log_reachable": set(),
    "emberlog_log_queued_events": set(),
    "emberlog_log_batch_seconds": set(),
    "emberlog_log_events_total": set(),
    "emberlog_log_batches_total": set(),
    "emberlog_database_connections": set(),
    "emberlog_database_connections_idle": set(),
    "emberlog_projection_lag_seconds": {"projection"},
    "emberlog_projection_halted": {"projection"},
    "emberlog_projection_parked_events": {"projection"},
    "emberlog_cache_failures_total": set(),
    "emberlog_rate_limits_in_postgres": set(),
    "emberlog_rate_limit_switches_total": set(),
    "emberlog_maintenance_failures": {"task"},
    "emberlog_maintenance_last_success_timestamp_seconds": {"task"},
    "emberlog_alerts_open": {"kind"},
    "emberlog_alertmanager_failures": set(),
    "emberlog_webhook_deliveries_total": set(),
    "emberlog_webhook_failures_total": set(),
    "emberlog_webhook_waiting": {"state"},
    "embedding_quota_drift": set(),
    "embedding_quota_usage_ratio": {"tenant_id", "quota_type"},
    "emberlog_connections": set(),
    "emberlog_sessions": set(),
    "emberlog_buffered_bytes": set(),
}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def _samples(running: Running) -> Samples:
    text = (await request(f"{running.url}/metrics")).body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


async def test_what_a_gateway_does_shows_in_its_metrics_under_the_names_and_labels_that_dashboards_use(
    shared: Running, provider: Simulator
) -> None:
    before = await _samples(shared)

    def grown(name: str, **labels: str) -> float:
        return _value(after, name, **labels) - _value(before, name, **labels)

    provider.fault("status", status=400, marker="metric-refused", count=-1)
    async with session(shared.url, shared.key, "metric-agent") as peer:
        first = await peer.embed("metric-1", ["metric one", "metric two"])
        await peer.embed("metric-2", ["metric one", "metric two"])
        assert (await peer.embed("metric-3", "metric-refused"))["code"] == "provider_error"
        assert (await peer.embed("metric-4", "text", dimensions=7777))["code"] == "invalid_request"
        provider.control(hold=True)
        await peer.begin("metric-5", "held", thread="metric-thread")
        await provider.called(3)
        during = await _samples(shared)
        provider.control(hold=False)
        await peer.answer("metric-5")
        after = await _samples(shared)

    served = {"tenant_id": "default", "model": MODEL, "provider": "openai"}
    tokens = first["usage"]["billed_tokens"]
    assert grown("embedding_requests_total", **served, status="success") == 3
    assert grown("embedding_requests_total", **served, status="failure") == 1
    assert grown("embedding_request_duration_seconds_count", **served) == 3
    assert grown("embedding_request_duration_seconds_bucket", **served, le="+Inf") == 3
    assert grown("embedding_request_duration_seconds_sum", **served) > 0
    assert grown("embedding_tokens_total", **served) == tokens + 1
    assert grown("embedding_cost_usd_total", **served) == pytest.approx((first["cost"]["nano_usd"] + 20) / 1e9)
    assert grown("embedding_cache_hits_total", tenant_id="default", model=MODEL) == 2
    assert grown("embedding_cache_lookups_total", tenant_id="default", model=MODEL) == 5
    for code in ("provider_error", "invalid_request"):
        assert grown("embedding_errors_total", tenant_id="default", model=MODEL, error_type=code) == 1
    endpoint = {"endpoint": "sim", "provider": "openai", "model": MODEL}
    assert grown("emberlog_provider_calls_total", **endpoint) == 3
    assert grown("emberlog_provider_texts_total", **endpoint) == 4
    assert grown("emberlog_provider_seconds_total", **endpoint) > 0
    assert grown("emberlog_provider_faults_total", endpoint="sim", model=MODEL, fault="refused") == 1
    assert grown("emberlog_log_events_total") >= 8
    assert 0 < grown("emberlog_log_batches_total") <= grown("emberlog_log_events_total")
    assert (_value(during, "emberlog_requests_in_flight"), _value(after, "emberlog_requests_in_flight")) == (1, 0)
    assert _value(during, "emberlog_provider_calls_in_flight") == 1
    assert _value(during, "emberlog_sessions") == _value(during, "emberlog_connections") == 1
    assert _value(after, "emberlog_log_reachable") == 1
    assert _value(after, "emberlog_log_batch_seconds") > 0
    assert _value(after, "emberlog_database_connections") >= _value(after, "emberlog_database_connections_idle") >= 1
    for component in ("log", "redis"):
        assert _value(after, "health_check_status", component=component) == 1
    for projection in ("usage", "requests"):
        assert ("emberlog_projection_lag_seconds", frozenset({("projection", projection)})) in after

    async def left() -> bool:
        return _value(await _samples(shared), "emberlog_sessions") == 0

    await until(left, what="the session is no longer counted")


async def test_every_metric_has_the_labels_of_its_name_and_none_names_an_agent_a_thread_or_a_request(
    shared: Running, provider: Simulator
) -> None:
    async with session(shared.url, shared.key, "label-agent") as peer:
        await peer.embed("label-request", "text", thread="label-thread")
        await peer.embed("label-refused", "text", model="label-model-that-nobody-has", dimensions=None)
    samples = await _samples(shared)
    shown: dict[str, set[str]] = {}
    for name, labels in samples:
        if not name.endswith("_created"):
            shown.setdefault(name, set()).update(label for label, _ in labels)
    assert {name: labels for name, labels in shown.items() if name in LABELS} == {
        name: labels for name, labels in LABELS.items() if name in shown
    }
    assert not shown.keys() - LABELS.keys(), "a metric without its place in this list"
    values = {value for _, labels in samples for _, value in labels}
    assert not {v for v in values if v.startswith("label-")}


async def test_a_refusal_on_the_wire_itself_is_counted_too(shared: Running, provider: Simulator) -> None:
    before = await _samples(shared)
    async with session(shared.url, shared.key) as peer:
        assert (await peer.embed("told-1", "text", metadata={"note": "x" * 3000}))["code"] == "invalid_request"
        await peer.send({"type": "no.such.type", "id": "told-2"})
        assert (await peer.answer("told-2"))["code"] == "unknown_type"
    assert (await request(f"{shared.url}/v1/embeddings", {"input": "a"})).status == 401
    assert (await request(f"{shared.url}/v1/embeddings", {"input": 7}, key=shared.key)).status == 400
    after = await _samples(shared)
    for source, tenant, code in (
        ("websocket", "default", "invalid_request"),
        ("websocket", "default", "unknown_type"),
        ("http", "", "unauthorized"),
        ("http", "default", "invalid_message"),
    ):
        labels = {"source": source, "tenant_id": tenant, "error_type": code}
        name = "emberlog_errors_told_total"
        assert _value(after, name, **labels) - _value(before, name, **labels) == 1, labels
