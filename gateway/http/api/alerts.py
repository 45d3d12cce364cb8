"""`/api/v1/alerts`: what needs a person, and what was done about it. Reading alerts works them out."""

from __future__ import annotations

import msgspec

from domain.alerts import SEVERITIES
from domain.errors import GatewayError
from gateway.alerts.desk import STATES, AlertDocument, FailureDocument
from gateway.control import Written
from gateway.http.api.route import ApiRoute, Call, Pagination, Parameter

_TENANT = Parameter("tenant", "Whose; for operators, who see everybody's without it. Others see their own tenant's.")


class AlertList(msgspec.Struct, frozen=True):
    """A page of alerts, the newest first."""

    alerts: list[AlertDocument]
    pagination: Pagination


class Silence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how long, in seconds; 0 ends a silence."""

    seconds: int


class FailureList(msgspec.Struct, frozen=True):
    """The tenants whose alerts cannot be worked out."""

    failures: list[FailureDocument]


class Retried(msgspec.Struct, frozen=True):
    """The tenants whose alerts were tried again."""

    tenants: list[str]


def whose(call: Call) -> str | None:
    """The key's tenant; for operators the one that they name, or None. Raises `forbidden`, `not_found`."""
    asked, own = call.query.text("tenant"), call.principal.tenant
    if own is not None:
        if asked not in (None, own):
            raise GatewayError(
                "forbidden", "this key sees its own tenant only: leave `tenant` out", details={"field": "tenant"}
            )
        return own
    directory = call.plane.directory
    if asked is not None and (asked not in directory.tenants or asked in directory.shredded):
        raise GatewayError("not_found", f"there is no tenant {asked[:63]!r}", details={"field": "tenant"})
    return asked


async def index(call: Call) -> AlertList:
    """The alerts that pass."""
    query = call.query
    found = await call.service.alerts.alerts(whose(call), state=query.text("state"), kind=query.text("kind"))
    alerts, pagination = call.page(found)
    return AlertList(alerts, pagination)


async def show(call: Call) -> AlertDocument:
    """One."""
    return await call.service.alerts.show(whose(call), call.path["alert"])


async def acknowledge(call: Call) -> AlertDocument:
    """Somebody has seen it."""
    return await call.service.alerts.acknowledge(call.decide, whose(call), call.path["alert"], actor=call.actor)


async def silence(call: Call) -> AlertDocument:
    """Nobody is told for a while."""
    return await call.service.alerts.silence(
        call.decide, whose(call), call.path["alert"], seconds=call.body.seconds, actor=call.actor
    )


async def resolve(call: Call) -> AlertDocument:
    """It is closed by hand."""
    alert, position = await call.service.alerts.resolve(whose(call), call.path["alert"], actor=call.actor)
    call.written = Written(position or call.plane.position, 0, changed=position > 0)
    return alert


async def failures(call: Call) -> FailureList:
    """What cannot be worked out."""
    return FailureList(await call.service.alerts.failures())


async def retry(call: Call) -> Retried:
    """Try that again."""
    tried = await call.service.alerts.retry(call.query.text("tenant"))
    call.written = Written(call.plane.position, 0, changed=bool(tried))
    return Retried(tried)


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/alerts",
        name="listAlerts",
        summary="Alerts, worked out anew, the newest first",
        tag="alerts",
        handler=index,
        answer=AlertList,
        scopes=("admin",),
        tenanted=False,
        paged=True,
        query=(
            Parameter("state", "Only these; `open` is all but `resolved`.", {"type": "string", "enum": list(STATES)}),
            Parameter("kind", "Only this kind.", {"type": "string", "enum": sorted(SEVERITIES)}),
            _TENANT,
        ),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/alerts/{alert}",
        name="getAlert",
        summary="One alert",
        tag="alerts",
        handler=show,
        answer=AlertDocument,
        scopes=("admin",),
        tenanted=False,
        query=(_TENANT,),
    ),
    *(
        ApiRoute(
            method="POST",
            path=f"/api/v1/alerts/{{alert}}/{verb}",
            name=f"{verb}Alert",
            summary=summary,
            tag="alerts",
            handler=handler,
            body=body,
            answer=AlertDocument,
            scopes=("admin",),
            tenanted=False,
            versioned=verb != "resolve",
            query=(_TENANT,),
        )
        for verb, handler, body, summary in (
            ("acknowledge", acknowledge, None, "Say that somebody has seen it: it is not delivered again"),
            ("silence", silence, Silence, "Deliver it to nobody for a while"),
            ("resolve", resolve, None, "Close it by hand; what goes on comes back"),
        )
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/alert-failures",
        name="listAlertFailures",
        summary="The tenants whose alerts cannot be worked out",
        tag="alerts",
        handler=failures,
        answer=FailureList,
        tenanted=False,
    ),
    ApiRoute(
        method="POST",
        path="/api/v1/alert-failures/retry",
        name="retryAlertFailures",
        summary="Work out again what could not be, the parked ones too",
        tag="alerts",
        handler=retry,
        answer=Retried,
        tenanted=False,
        versioned=False,
        query=(Parameter("tenant", "Only this tenant's; absent: those of all that failed."),),
    ),
)
