"""The gauges of one gateway: what its parts hold at the moment of asking."""

from __future__ import annotations

from collections.abc import Callable

from adapters.appender import Appender
from adapters.postgres.event_log import PostgresEventLog
from adapters.redis.vector_cache import RedisVectorCache
from gateway.dispatch.dispatcher import Dispatcher, LaneGauge
from gateway.limits.stores import TwoStores
from gateway.maintenance.scheduler import Scheduler
from gateway.service.service import RequestService
from gateway.telemetry.metrics import Gauges
from gateway.wire.sessions import SessionRegistry
from projections.runner import Runner


def watch_parts(
    gauges: Gauges,
    service: RequestService,
    appender: Callable[[], Appender],
    dispatcher: Dispatcher,
    log: PostgresEventLog,
    runner: Runner,
    shared: RedisVectorCache | None,
) -> None:
    """Add the gauges of a gateway's parts. `appender` is asked for anew each time: a fenced gateway goes on with another."""
    gauges.gauge("emberlog_requests_in_flight", "Requests admitted and not yet answered.", lambda: service.in_flight)
    gauges.gauge("emberlog_log_reachable", "1 while the event log takes appends.", lambda: float(appender().healthy))
    gauges.gauge("emberlog_log_queued_events", "Events whose commit is awaited.", lambda: appender().queued)
    gauges.gauge(
        "emberlog_log_batch_seconds", "How long the last batch took to commit.", lambda: appender().last_batch_seconds
    )
    gauges.counter("emberlog_log_events", "Events committed by this process.", lambda: appender().events)
    gauges.counter("emberlog_log_batches", "Batches they were committed in.", lambda: appender().batches)
    gauges.gauge("emberlog_queued_texts", "Texts that wait for a provider call.", lambda: dispatcher.queued_texts)
    gauges.family(
        "emberlog_lane_queued_texts",
        "Texts that wait for a call, by endpoint and model.",
        ["endpoint", "model"],
        lambda: _by_lane(dispatcher, lambda lane: lane.queued_texts),
    )
    gauges.family(
        "emberlog_lane_calls_in_flight",
        "Calls under way, by endpoint and model.",
        ["endpoint", "model"],
        lambda: _by_lane(dispatcher, lambda lane: lane.calls),
    )
    gauges.gauge("emberlog_provider_calls_in_flight", "Provider calls under way.", lambda: dispatcher.calls_in_flight)
    gauges.gauge("emberlog_database_connections", "Open connections of the database pool.", log.pool.get_size)
    gauges.gauge("emberlog_database_connections_idle", "Those of them that are free.", log.pool.get_idle_size)
    gauges.labelled(
        "emberlog_projection_lag_seconds",
        "How far a projection is behind the log.",
        "projection",
        lambda: {name: seconds for name, (_, seconds) in runner.lag().items()},
    )
    gauges.labelled(
        "emberlog_projection_halted",
        "1 while a projection stands before an event that it cannot fold.",
        "projection",
        lambda: {name: float(seen.error is not None) for name, seen in runner.standings().items()},
    )
    gauges.labelled(
        "emberlog_projection_parked_events",
        "Events that a projection went on without, and that wait to be retried or discarded.",
        "projection",
        lambda: {name: float(seen.parked) for name, seen in runner.standings().items()},
    )
    gauges.labelled(
        "health_check_status",
        "1 while a part works.",
        "component",
        lambda: {"log": float(appender().healthy), **({"redis": float(shared.healthy)} if shared is not None else {})},
    )
    if shared is not None:
        gauges.counter("emberlog_cache_failures", "Round trips to Redis that failed.", lambda: shared.failures)


def watch_maintenance(gauges: Gauges, scheduler: Scheduler) -> None:
    """Add the gauges of the periodic tasks, which are those of the installation: whichever process runs them."""
    gauges.labelled(
        "emberlog_maintenance_last_success_timestamp_seconds",
        "When a periodic task last did its work; absent before it first has.",
        "task",
        lambda: {
            name: state.last_succeeded_at.timestamp()
            for name, state in scheduler.states.items()
            if state.last_succeeded_at is not None
        },
    )
    gauges.labelled(
        "emberlog_maintenance_failures",
        "Failed runs of a periodic task since it last did its work.",
        "task",
        lambda: {name: float(state.failures) for name, state in scheduler.states.items()},
    )


def watch_limits(gauges: Gauges, stores: TwoStores) -> None:
    """Add the gauges of the stores that count rate limits."""
    gauges.gauge(
        "emberlog_rate_limits_in_postgres",
        "1 while rate limits are counted in Postgres because Redis is away.",
        lambda: float(stores.on_second),
    )
    gauges.counter(
        "emberlog_rate_limit_switches", "Times that Redis was lost for rate limits.", lambda: stores.failures
    )


def watch_sessions(gauges: Gauges, registry: SessionRegistry) -> None:
    """Add the gauges of the sessions of this process."""
    gauges.gauge("emberlog_connections", "WebSocket connections.", lambda: registry.counts()["connections"])
    gauges.gauge("emberlog_sessions", "Open sessions.", lambda: registry.counts()["sessions"])
    gauges.gauge(
        "emberlog_buffered_bytes",
        "Bytes that wait for agents to read them.",
        lambda: registry.counts()["buffered_bytes"],
    )


def _by_lane(dispatcher: Dispatcher, read: Callable[[LaneGauge], int]) -> dict[tuple[str, ...], float]:
    """What the lanes of an endpoint and model hold together: there is one for each size and kind of input."""
    found: dict[tuple[str, ...], float] = {}
    for lane in dispatcher.gauges():
        key = (lane.endpoint, lane.model)
        found[key] = found.get(key, 0.0) + read(lane)
    return found
