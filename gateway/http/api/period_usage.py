"""`/api/v1/tenant-models/usage`: what a tenant used lately, by model and by agent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from domain.errors import GatewayError, invalid_request
from gateway.http.api.route import ApiRoute, Call, Parameter
from projections.usage.query import utc_text
from projections.usage.totals import read_totals

MAX_AGENTS = 1000
PERIODS = ("hour", "day", "week", "month")
_GRAIN = {"hour": "minute", "day": "hour", "week": "hour", "month": "day"}
_STEP = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_BUCKETS = {"hour": 60, "day": 24, "week": 7 * 24}
_LONGEST = timedelta(days=1500)


class PeriodSums(msgspec.Struct, frozen=True, kw_only=True):
    """Answered requests, those that failed, tokens and nano-USD. `unpriced` requests have an unknown price: they are not in `nano_usd`."""

    requests: int
    failed: int
    tokens: int
    billed_tokens: int
    nano_usd: int
    unpriced: int


class AgentUsage(PeriodSums, frozen=True, kw_only=True):
    """Of one agent."""

    agent: str


class PeriodUsage(msgspec.Struct, frozen=True):
    """From `start_time` to before `end_time` (UTC). `by_agent` lists the thousand that cost most."""

    period: Literal["hour", "day", "week", "month", "custom"]
    start_time: str
    end_time: str
    total_tokens: int
    total_requests: int
    total_nano_usd: int
    unpriced: int
    by_model: dict[str, PeriodSums]
    by_agent: list[AgentUsage]


async def show(call: Call) -> PeriodUsage:
    """The usage of a period up to now, or of a span of time."""
    query = call.query
    name = query.text("model_id")
    model = None
    if name is not None:
        known = call.service.models().resolve(name)
        model = name if known is None else known.id
        if known is None and name not in call.plane.models.models:
            raise GatewayError("model_not_found", f"there is no model {name[:64]!r}", details={"field": "model_id"})
    period = query.choice("period", PERIODS, "day")
    since, until = query.time("from"), query.time("to")
    now = datetime.now(UTC)
    if since is None and until is not None:
        raise invalid_request("`from` is needed beside `to`: say where the span begins", "from")
    if since is None:
        grain, start, end = _span(period, now)
    else:
        start, end = since.astimezone(UTC), (until or now).astimezone(UTC)
        if end <= start or end - start > _LONGEST:
            raise invalid_request(f"`to` must be later than `from`, by at most {_LONGEST.days} days", "to")
        grain = "minute" if end - start <= timedelta(days=1) else "hour" if end - start <= timedelta(days=62) else "day"
        start, end = _floor(start, grain), _ceiling(end, grain)
    async with call.service.reads.view(call.principal) as views:
        found = await read_totals(views, call.tenant, grain, start, end, model=model)
    agents = [AgentUsage(agent=agent, **sums) for agent, sums in found.by_agent.items()]
    return PeriodUsage(
        period if since is None else "custom",  # type: ignore[arg-type]
        utc_text(start) or "",
        utc_text(end) or "",
        found.total["tokens"],
        found.total["requests"],
        found.total["nano_usd"],
        found.total["unpriced"],
        {name: PeriodSums(**sums) for name, sums in found.by_model.items()},
        agents[:MAX_AGENTS],
    )


def _span(period: str, now: datetime) -> tuple[str, datetime, datetime]:
    """The grain that is summed, and from when to when: up to the end of the bucket that is now."""
    grain = _GRAIN[period]
    end = _ceiling(now, grain)
    if period == "month":
        return grain, _floor(now, grain).replace(day=1), end
    return grain, end - _BUCKETS[period] * _STEP[grain], end


def _floor(at: datetime, grain: str) -> datetime:
    at = at.replace(second=0, microsecond=0)
    if grain != "minute":
        at = at.replace(minute=0)
    return at.replace(hour=0) if grain == "day" else at


def _ceiling(at: datetime, grain: str) -> datetime:
    floor = _floor(at, grain)
    return floor if floor == at else floor + _STEP[grain]


_TIME = {"type": "string", "format": "date-time"}

ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/tenant-models/usage",
        name="getTenantUsage",
        summary="What a tenant used lately, in all, by model and by agent",
        tag="tenant models",
        handler=show,
        answer=PeriodUsage,
        scopes=("billing", "admin"),
        view="usage",
        query=(
            Parameter("model_id", "Of this model alone."),
            Parameter(
                "period",
                "The last 60 minutes, 24 hours or 7 days, each with the one that is running; or the calendar month in UTC so far.",
                {"type": "string", "enum": list(PERIODS), "default": "day"},
            ),
            Parameter("from", "A span of its own instead of a period, from this time on, rounded outwards.", _TIME),
            Parameter("to", "To before this time; absent: now.", _TIME),
        ),
        errors=(504,),
        aliases=("/tenant-models/usage", "/api/v1/embedding-models/usage"),
    ),
)
