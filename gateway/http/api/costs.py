"""`/api/v1/costs` and `/api/v1/agents/{agent}/costs`: what was charged, from the cost view."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from domain.errors import invalid_request
from gateway.http.api.route import ApiRoute, Call, Parameter
from gateway.http.usage import CompleteTo
from gateway.reads.reach import tenants_within
from projections.cost.query import GRAINS, GROUPS, SUMS, CostReport, read_costs
from projections.usage.query import utc_text

MAX_ROWS = 10_000
MAX_HOURS = 1500
"""Hours that one answer may span: two months."""
MAX_DAYS = 365
_AT_ONCE = 100
"""Rows made ready between two turns of the loop."""


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """What was charged, in nano-USD, and for how much. `unpriced` counts the requests whose price is unknown: they are not in `nano_usd`.

    `characters` are those billed at prices per character. What providers charge is shown to operators.
    """

    requests: int
    tokens: int
    billed_tokens: int
    characters: int
    nano_usd: int
    unpriced: int
    provider_nano_usd: int | msgspec.UnsetType = msgspec.UNSET
    provider_unpriced: int | msgspec.UnsetType = msgspec.UNSET


class CostRow(Sums, frozen=True, kw_only=True):
    """The costs of the bucket that begins at `bucket` (UTC). What they are not grouped by is null; a provider, too, where none was called."""

    bucket: str
    tenant: str | None
    agent: str | None
    model: str | None
    provider: str | None


class Costs(msgspec.Struct, frozen=True):
    """Costs by bucket and group, with their sum."""

    grain: Literal["hour", "day", "month"]
    costs: list[CostRow]
    total: Sums
    complete_to: CompleteTo


class ModelCosts(Sums, frozen=True, kw_only=True):
    """Of one model at one provider."""

    model: str
    provider: str | None


class DayCosts(Sums, frozen=True, kw_only=True):
    """Of the day that begins at `bucket` (UTC)."""

    bucket: str


class AgentCosts(msgspec.Struct, frozen=True):
    """What an agent was charged on the last `period_days` days, today included, from `start_time` to before `end_time`."""

    agent: str
    period_days: int
    start_time: str
    end_time: str
    total: Sums
    by_model: list[ModelCosts]
    by_day: list[DayCosts]
    complete_to: CompleteTo


async def show(call: Call) -> Costs:
    """Costs of a span of time."""
    query = call.query
    asked = query.text("tenant")
    tenants = tenants_within(call.principal, None if asked is None else [asked], "tenant")
    grain = query.choice("grain", GRAINS, "day")
    since, until = query.time("from"), query.time("to")
    _check_span(grain, since, until)
    by = query.names("group_by") or frozenset(GROUPS)
    if unknown := sorted(by - set(GROUPS)):
        raise invalid_request(f"`group_by` has {unknown[0][:40]!r}: expected some of {', '.join(GROUPS)}", "group_by")
    async with call.service.reads.view(call.principal) as views:
        report = await read_costs(
            views,
            grain=grain,
            by=("bucket", *sorted(by)),
            tenant=None if tenants is None else next(iter(tenants)),
            since=since,
            until=until,
            agent=query.text("agent"),
            model=query.text("model"),
            provider=query.text("provider"),
            limit=MAX_ROWS + 1,
        )
    if len(report.rows) > MAX_ROWS:
        raise invalid_request(
            f"that is more than {MAX_ROWS} rows: ask for a shorter time, a longer grain or less in `group_by`", "from"
        )
    rows = await _shown(call, report.rows, CostRow)
    return Costs(grain, rows, _total(call, report.rows), _complete_to(call, report))  # type: ignore[arg-type]


async def show_agent(call: Call) -> AgentCosts:
    """Costs of an agent."""
    days = call.query.integer("period_days", 30, 1, MAX_DAYS)
    now = datetime.now(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    start, end = today - timedelta(days=days - 1), today + timedelta(days=1)
    agent = call.path["agent"]
    span: dict[str, Any] = {"tenant": call.tenant, "agent": agent, "since": start, "until": end}
    async with call.service.reads.view(call.principal) as views:
        models = await read_costs(views, by=("model", "provider"), **span)
        by_day = await read_costs(views, by=("bucket",), **span)
    return AgentCosts(
        agent,
        days,
        utc_text(start) or "",
        utc_text(end) or "",
        _total(call, by_day.rows),
        await _shown(call, models.rows, ModelCosts),
        await _shown(call, by_day.rows, DayCosts),
        _complete_to(call, models),
    )


def _check_span(grain: str, since: datetime | None, until: datetime | None) -> None:
    if since is not None and until is not None and until <= since:
        raise invalid_request("`to` must be later than `from`", "to")
    if grain != "hour":
        return
    if since is None:
        raise invalid_request("`from` is needed where the grain is hour: say where the span begins", "from")
    if (until or datetime.now(UTC)) - since > timedelta(hours=MAX_HOURS):
        raise invalid_request(f"the span is longer than {MAX_HOURS} hours: ask for a shorter one, or for days", "from")


async def _shown(call: Call, rows: Sequence[dict[str, Any]], kind: type[Any]) -> list[Any]:
    """The rows as the answer has them: what providers charge us is for operators."""
    left_out = () if call.principal.tenant is None else ("provider_nano_usd", "provider_unpriced")
    names = [name for name in kind.__struct_fields__ if name not in left_out]
    shown = []
    for number, row in enumerate(rows, 1):
        shown.append(kind(**{name: row[name] for name in names}))
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return shown


def _total(call: Call, rows: Sequence[dict[str, Any]]) -> Sums:
    sums = {name: sum(row[name] for row in rows) for name in SUMS}
    if call.principal.tenant is not None:
        del sums["provider_nano_usd"], sums["provider_unpriced"]
    return Sums(**sums)


def _complete_to(call: Call, report: CostReport) -> CompleteTo:
    return CompleteTo(report.time, report.position if call.principal.tenant is None else msgspec.UNSET)


_TIME = {"type": "string", "format": "date-time"}

ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/costs",
        name="listCosts",
        summary="What was charged, by hour, day or month in UTC",
        tag="costs",
        handler=show,
        answer=Costs,
        scopes=("billing", "admin"),
        tenanted=False,
        view="cost",
        query=(
            Parameter("grain", "The length of a bucket.", {"type": "string", "enum": list(GRAINS), "default": "day"}),
            Parameter("from", "From the bucket that holds this time on, ISO 8601; needed for hours.", _TIME),
            Parameter("to", "Buckets that begin before this time.", _TIME),
            Parameter("tenant", "Of this tenant alone; absent: the key's own, or all for operators."),
            Parameter("agent", "Of this agent alone."),
            Parameter("model", "Of this model alone."),
            Parameter("provider", "At this provider alone."),
            Parameter("group_by", f"Some of {', '.join(GROUPS)}, separated by commas; absent: all of them."),
        ),
        errors=(504,),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/agents/{agent}/costs",
        name="getAgentCosts",
        summary="What an agent was charged lately, by model and by day",
        tag="costs",
        handler=show_agent,
        answer=AgentCosts,
        scopes=("billing", "admin"),
        view="cost",
        query=(
            Parameter(
                "period_days",
                "How many days, today included.",
                {"type": "integer", "minimum": 1, "maximum": MAX_DAYS, "default": 30},
            ),
        ),
        errors=(504,),
        aliases=("/api/v1/embeddings/agents/{agent}/costs",),
    ),
)
