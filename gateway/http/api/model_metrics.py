"""`/api/v1/models/{model}/metrics`: how a model does. A part that cannot be had is named in `degraded`; the others are there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.errors import GatewayError, invalid_request
from gateway.http.api.route import ApiRoute, Call, Parameter
from gateway.model_metrics import CurrentAlert, ModelMetrics, ModelUsage, current_alerts, model_usage
from projections.alerts.query import read_alerts
from projections.usage.model import read_model_usage
from projections.usage.query import utc_text

LONGEST = timedelta(days=31)
_DEFAULT = timedelta(hours=1)


async def show(call: Call) -> ModelMetrics:
    """The metrics of one model."""
    model = call.service.models().resolve(call.path["model"])
    if model is None:
        raise GatewayError(
            "model_not_found", f"there is no model {call.path['model'][:128]!r}", details={"field": "model"}
        )
    tenant = call.query.text("tenant")
    if call.principal.tenant is not None:
        if tenant not in (None, call.principal.tenant):
            raise GatewayError("forbidden", "this key sees its own tenant only", details={"field": "tenant"})
        tenant = call.principal.tenant
    since, until = _span(call)
    degraded: list[str] = []

    async def usage() -> ModelUsage:
        async with call.service.reads.view(call.principal) as views:
            return model_usage(
                await read_model_usage(views, model.id, since, until, tenant), (until - since).total_seconds()
            )

    return ModelMetrics(
        model=model.id,
        since=utc_text(since) or "",
        until=utc_text(until) or "",
        usage=await _part("usage", usage, degraded),
        alerts=await _part("alerts", lambda: _alerts(call, model.id, tenant), degraded),
        degraded=degraded,
    )


async def _part(name: str, read: Callable[[], Awaitable[Any]], degraded: list[str]) -> Any:
    try:
        return await read()
    except GatewayError as error:
        if error.code not in ("unavailable", "deadline_exceeded"):
            raise
        degraded.append(name)
        return None


async def _alerts(call: Call, model: str, tenant: str | None) -> list[CurrentAlert]:
    async with call.service.reads.view(call.principal) as views:
        found = await read_alerts(views, tenants=None if tenant is None else [tenant], still_open=True)
    return current_alerts(found, model)


def _span(call: Call) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    until = call.query.time("to") or now
    since = call.query.time("from") or until - _DEFAULT
    if until < since:
        raise invalid_request("`to` must not be earlier than `from`", "to")
    since, until = since.replace(second=0, microsecond=0), until.replace(second=0, microsecond=0)
    if until <= since:
        until = since + timedelta(minutes=1)
    if until - since > LONGEST:
        raise invalid_request(f"the span is longer than {LONGEST.days} days: ask for a shorter one", "from")
    return since, until


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/models/{model}/metrics",
        name="getModelMetrics",
        summary="How a model does: latency, throughput, errors, tokens, cost, cache hits, current alerts",
        tag="models",
        handler=show,
        answer=ModelMetrics,
        scopes=("billing", "admin"),
        tenanted=False,
        view="usage",
        query=(
            Parameter(
                "from",
                "From this minute on, ISO 8601; absent: an hour before `to`.",
                {"type": "string", "format": "date-time"},
            ),
            Parameter("to", "Before this minute; absent: now.", {"type": "string", "format": "date-time"}),
            Parameter("tenant", "Of this tenant alone; absent: the key's own, or all for operators."),
        ),
        errors=(504,),
    ),
)
