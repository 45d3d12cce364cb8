"""`GET /api/v1/usage`: the usage view within a key's reach."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from domain.errors import invalid_request
from domain.tenancy import Principal
from gateway.http.credentials import principal_of
from gateway.http.headers import header
from gateway.http.query import Query
from gateway.reads.reach import tenants_within, whole_tenant
from gateway.reads.reads import UsageQuery
from gateway.wire import checks
from gateway.wire.service import EmbeddingService
from projections.usage.query import GRAINS

PARAMETERS = ("grain", "from", "to", "tenant", "after_position")
MAX_BUCKETS = 1500
"""Buckets that one answer may span: a day of minutes, two months of hours, four years of days."""
_OURS = ("provider_nano_usd", "provider_unpriced")
_AT_ONCE = 100
"""Rows made ready between two turns of the loop."""


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from the request to its result."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: int | None


class UsageRow(msgspec.Struct, frozen=True):
    """What an agent used of a model at a provider (None: none was called) in the bucket that begins at `bucket` (ISO 8601, UTC).

    Money is in nano-USD; `unpriced` counts the requests whose price is unknown. `failed` counts `cancelled` and `late` too.
    """

    bucket: str
    grain: Literal["minute", "hour", "day"]
    tenant: str
    agent: str
    model: str
    provider: str | None
    requests: int
    failed: int
    cancelled: int
    late: int
    abandoned: int
    reembedded: int
    inputs: int
    cached_inputs: int
    tokens: int
    billed_tokens: int
    nano_usd: int
    unpriced: int
    latency_ms: Latency | None
    provider_nano_usd: int | msgspec.UnsetType = msgspec.UNSET
    provider_unpriced: int | msgspec.UnsetType = msgspec.UNSET


class CompleteTo(msgspec.Struct, frozen=True):
    """How far the view has come: every event recorded before `time` is in it. `position` is shown to the installation only."""

    time: str | None
    position: int | msgspec.UnsetType = msgspec.UNSET


class UsageAnswer(msgspec.Struct, frozen=True):
    """Usage by bucket, tenant, agent, model and provider."""

    usage: list[UsageRow]
    complete_to: CompleteTo


class UsageRoutes:
    """The route. A tenant's key sees its tenant (scopes billing, admin) or one agent (scope agent); an installation key needs operator."""

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service

    async def list(self, request: Request) -> Response:
        """The rows of a span of time."""
        principal = await principal_of(request, self._service)
        agent = None if whole_tenant(principal) else _own_agent(request, principal)
        query = Query(request, PARAMETERS)
        asked = query.text("tenant")
        tenants = tenants_within(principal, None if asked is None else [asked], "tenant")
        grain = query.choice("grain", tuple(GRAINS), "day")
        since, until = query.time("from"), query.time("to")
        _check_span(grain, since, until)
        report = await self._service.reads.usage(
            principal,
            UsageQuery(
                grain=grain,
                tenant=None if tenants is None else next(iter(tenants)),
                agent=agent,
                since=since,
                until=until,
                after_position=query.text("after_position"),
            ),
        )
        whole = principal.tenant is None
        answer = UsageAnswer(
            await _shown(report.rows, whole=whole),
            CompleteTo(report.time, report.position if whole else msgspec.UNSET),
        )
        return Response(msgspec.json.encode(answer), media_type="application/json")


def _own_agent(request: Request, principal: Principal) -> str:
    """The agent that a request with this key and these headers is from."""
    principal.require("agent")
    agent = header(request.scope["headers"], b"x-emberlog-agent") or principal.default_agent
    checks.may_speak_for(principal, agent, "x-emberlog-agent")
    return agent


def _check_span(grain: str, since: datetime | None, until: datetime | None) -> None:
    if since is None:
        if grain != "day":
            raise invalid_request(f"`from` is needed where the grain is {grain}: say where the span begins", "from")
        return
    end = until or datetime.now(UTC)
    if until is not None and until <= since:
        raise invalid_request("`to` must be later than `from`", "to")
    longest = timedelta(seconds=GRAINS[grain] * MAX_BUCKETS)
    if end - since > longest:
        raise invalid_request(
            f"the span is longer than {MAX_BUCKETS} buckets of a {grain} ({longest}): ask for a shorter one, or for a longer grain",
            "from",
        )


async def _shown(rows: list[dict[str, Any]], *, whole: bool) -> list[UsageRow]:
    """`whole`: with what providers charge us."""
    shown = []
    for number, row in enumerate(rows, 1):
        fields = row if whole else {name: value for name, value in row.items() if name not in _OURS}
        shown.append(msgspec.convert(fields, UsageRow))
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return shown
