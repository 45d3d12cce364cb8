"""`/api/v1/rate-limits`: how much a tenant, a key, an agent or a thread may send a minute."""

from __future__ import annotations

from typing import Literal

import msgspec

from domain.events import RateLimitSet
from domain.rate_limits import SCOPES, decide_remove_rate_limit, decide_set_rate_limit, in_order
from gateway.http.api.route import ApiRoute, Call, Nothing, Pagination, Parameter


class RateLimit(msgspec.Struct, frozen=True):
    """A limit. `subject` null: for each one that has none of its own. A figure that is null is no limit."""

    scope: Literal["tenant", "key", "agent", "thread"]
    subject: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None


class RateLimitList(msgspec.Struct, frozen=True):
    """A tenant's limits. `version` is that of the tenant's stream, for `expected_version`."""

    tenant: str
    rate_limits: list[RateLimit]
    pagination: Pagination
    version: int


class RateLimitChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limit of `scope` and `subject` from now on, whole: a figure that is left out is no limit. One is needed."""

    scope: str
    subject: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


async def show(call: Call) -> RateLimitList:
    """The limits of a tenant."""
    found = [_document(limit) for limit in in_order(call.plane.rate_limits.of(call.tenant) or {})]
    limits, pagination = call.page(found)
    version = call.plane.versions.get(f"tenant/{call.tenant}", 0)
    return RateLimitList(call.tenant, limits, pagination, version)


async def change(call: Call) -> RateLimit:
    """Set one, instead of what it was."""
    wanted = msgspec.structs.asdict(call.body)
    await call.decide(
        f"tenant/{call.tenant}",
        lambda plane: decide_set_rate_limit(
            plane, call.tenant, **wanted, operator=call.principal.tenant is None, actor=call.actor
        ),
    )
    return RateLimit(**wanted)


async def remove(call: Call) -> None:
    """Remove one."""
    scope, subject = call.query.text("scope") or "", call.query.text("subject")
    await call.decide(
        f"tenant/{call.tenant}",
        lambda plane: decide_remove_rate_limit(
            plane, call.tenant, scope=scope, subject=subject, operator=call.principal.tenant is None, actor=call.actor
        ),
    )


def _document(limit: RateLimitSet) -> RateLimit:
    return RateLimit(
        scope=limit.scope,  # type: ignore[arg-type]  # checked when it was set
        subject=limit.subject,
        requests_per_minute=limit.requests_per_minute,
        tokens_per_minute=limit.tokens_per_minute,
    )


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/rate-limits",
        name="listRateLimits",
        summary="The rate limits of a tenant",
        tag="tenants",
        handler=show,
        answer=RateLimitList,
        scopes=("admin",),
        paged=True,
    ),
    ApiRoute(
        method="PUT",
        path="/api/v1/rate-limits",
        name="setRateLimit",
        summary="Set a rate limit; that of the tenant itself is the operators' to set",
        tag="tenants",
        handler=change,
        body=RateLimitChange,
        answer=RateLimit,
        scopes=("admin",),
        errors=(409,),
    ),
    ApiRoute(
        method="DELETE",
        path="/api/v1/rate-limits",
        name="removeRateLimit",
        summary="Remove a rate limit; where there is none, nothing",
        tag="tenants",
        handler=remove,
        answer=Nothing,
        scopes=("admin",),
        statuses=(204,),
        query=(
            Parameter("scope", "What it is of; required.", {"type": "string", "enum": list(SCOPES)}),
            Parameter("subject", "Which key, agent or thread; absent: that for each one that has none of its own."),
        ),
    ),
)
