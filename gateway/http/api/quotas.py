"""`/api/v1/quotas`: quotas and budgets, and how they stand. The same by model, as `/api/v1/tenant-models/quotas`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from domain.errors import invalid_request
from domain.quotas import UNITS, QuotaKey, decide_remove_quota, decide_set_quota
from gateway.http.api.route import ApiRoute, Call, Nothing, Pagination, Parameter
from gateway.quota.live import StandingQuotas
from projections.quota.query import QuotaStanding, read_quotas


class QuotaList(msgspec.Struct, frozen=True):
    """A tenant's quotas. `time`: every event recorded before is counted in. `version` is that of the tenant's stream."""

    tenant: str
    quotas: list[QuotaStanding]
    pagination: Pagination
    time: str | None
    version: int


class QuotaChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `limit` of `unit` in each calendar `window`, for the tenant, or for the model or agent `subject`. Soft ones refuse nothing."""

    unit: str
    limit: int | float
    window: str = "month"
    scope: str = "tenant"
    subject: str | None = None
    hard: bool = True


class QuotaSpec(msgspec.Struct, frozen=True):
    """A quota as it was set."""

    scope: Literal["tenant", "model", "agent"]
    subject: str | None
    unit: Literal["tokens", "requests", "nano_usd"]
    window: Literal["day", "month"]
    limit: int
    hard: bool


class ModelQuota(msgspec.Struct, frozen=True):
    """The quotas of one model; a limit that is null does not exist."""

    model_id: str
    monthly_token_limit: int | None
    monthly_tokens_used: int | None
    daily_token_limit: int | None
    daily_tokens_used: int | None
    monthly_request_limit: int | None
    monthly_requests_used: int | None
    is_within_limits: bool


class ModelQuotas(msgspec.Struct, frozen=True):
    """The quotas of a tenant's models, by model."""

    tenant_id: str
    quotas: list[ModelQuota]


async def standing_quotas(call: Call, agent: str | None = None) -> StandingQuotas:
    """What the quotas of the tenant, of its models and of this agent say at the moment; without a query where there are none."""
    keys = [k for k in call.plane.quotas.of(call.tenant) if k.scope in ("tenant", "model") or k.subject == agent]
    return StandingQuotas((await _standings(call, keys))[0] if keys else [])


async def _standings(call: Call, keys: Sequence[QuotaKey]) -> tuple[list[QuotaStanding], str | None]:
    zone = call.plane.tenants.of(call.tenant).settings.time_zone
    async with call.service.reads.view(call.principal) as views:
        report = await read_quotas(views, call.plane.quotas, call.tenant, zone, at=time.time_ns() // 1000, keys=keys)
    return report.quotas, report.time


async def show(call: Call) -> QuotaList:
    """A page of them."""
    keys, pagination = call.page(sorted(call.plane.quotas.of(call.tenant)))
    quotas, complete = await _standings(call, keys)
    return QuotaList(call.tenant, quotas, pagination, complete, call.plane.versions.get(f"tenant/{call.tenant}", 0))


async def show_models(call: Call) -> ModelQuotas:
    """Those of models, a line each."""
    found: dict[str, dict[str, QuotaStanding]] = {}
    keys = [key for key in call.plane.quotas.of(call.tenant) if key.scope == "model"]
    for standing in (await _standings(call, keys))[0]:
        if standing.subject is not None:
            found.setdefault(standing.subject, {})[f"{standing.window}/{standing.unit}"] = standing
    return ModelQuotas(call.tenant, [_by_model(model, each) for model, each in sorted(found.items())])


def _by_model(model: str, each: dict[str, QuotaStanding]) -> ModelQuota:
    def figures(name: str) -> tuple[int | None, int | None]:
        standing = each.get(name)
        return (None, None) if standing is None else (standing.limit, standing.used)

    (month, month_used), (day, day_used), (requests, requests_used) = map(
        figures, ("month/tokens", "day/tokens", "month/requests")
    )
    within = all(standing.within for standing in each.values())
    return ModelQuota(model, month, month_used, day, day_used, requests, requests_used, within)


async def change(call: Call) -> QuotaSpec:
    """Set one, instead of what it was."""
    wanted = msgspec.structs.asdict(call.body)
    await call.decide(
        f"tenant/{call.tenant}",
        lambda plane: decide_set_quota(
            plane, call.tenant, **wanted, operator=call.principal.tenant is None, actor=call.actor
        ),
    )
    return QuotaSpec(**wanted)


async def remove(call: Call) -> None:
    """Remove one."""
    text = call.query.text
    if text("unit") is None:
        raise invalid_request(f"`unit` is missing: say what the quota counts, one of {', '.join(UNITS)}", "unit")
    await call.decide(
        f"tenant/{call.tenant}",
        lambda plane: decide_remove_quota(
            plane,
            call.tenant,
            scope=text("scope") or "tenant",
            unit=text("unit") or "",
            window=text("window") or "month",
            subject=text("subject"),
            operator=call.principal.tenant is None,
            actor=call.actor,
        ),
    )


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/quotas",
        name="listQuotas",
        summary="Quotas and budgets, what is used and reserved of them, and when they reset",
        tag="quotas",
        handler=show,
        answer=QuotaList,
        scopes=("billing", "admin"),
        paged=True,
        errors=(504,),
        view="quota",
    ),
    ApiRoute(
        method="PUT",
        path="/api/v1/quotas",
        name="setQuota",
        summary="Set a quota or budget, or change its limit",
        tag="quotas",
        handler=change,
        body=QuotaChange,
        answer=QuotaSpec,
        scopes=("admin",),
    ),
    ApiRoute(
        method="DELETE",
        path="/api/v1/quotas",
        name="removeQuota",
        summary="Remove a quota or budget",
        tag="quotas",
        handler=remove,
        answer=Nothing,
        statuses=(204,),
        scopes=("admin",),
        query=(
            Parameter("unit", "What it counts.", {"enum": ["tokens", "requests", "nano_usd"]}),
            Parameter("window", "Its window.", {"enum": ["day", "month"], "default": "month"}),
            Parameter("scope", "What it is of.", {"enum": ["tenant", "model", "agent"], "default": "tenant"}),
            Parameter("subject", "Which model or agent."),
        ),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/tenant-models/quotas",
        name="listModelQuotas",
        summary="The quotas of the tenant's models, a line for each model",
        tag="quotas",
        handler=show_models,
        answer=ModelQuotas,
        scopes=("billing", "admin"),
        aliases=("/tenant-models/quotas",),
        errors=(504,),
        view="quota",
    ),
)
