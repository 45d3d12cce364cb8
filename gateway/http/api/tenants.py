"""`/api/v1/tenants`: the tenants of the installation, for operators."""

from __future__ import annotations

from functools import partial

import msgspec

from domain.access_decisions import decide_create_tenant
from domain.plane import ControlPlane
from gateway.event_document import time_text
from gateway.http.api.route import Answer, ApiRoute, Call, Pagination


class Tenant(msgspec.Struct, frozen=True):
    """A tenant. `shredded_at` is null while it lives. Times are ISO 8601, UTC."""

    id: str
    created_at: str
    created_by: str | None
    shredded_at: str | None


class Tenants(msgspec.Struct, frozen=True):
    """Tenants in the order of their creation, the shredded ones too."""

    tenants: list[Tenant]
    pagination: Pagination


class TenantWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant to be made: 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first."""

    id: str


async def show(call: Call) -> Tenants:
    """The tenants."""
    page, pagination = call.page(list(call.plane.directory.tenants))
    return Tenants([_document(call.plane, tenant) for tenant in page], pagination)


async def create(call: Call) -> Answer:
    """Make a tenant; one that exists is answered as it is."""
    wanted: TenantWanted = call.body
    decide = partial(decide_create_tenant, name=wanted.id, actor=call.actor)
    if decide(call.plane):
        await call.service.keep_tenant_key(wanted.id)
    written = await call.decide(f"tenant/{wanted.id}", decide)
    return Answer(_document(call.plane, wanted.id), 201 if written.changed else 200)


def _document(plane: ControlPlane, name: str) -> Tenant:
    directory = plane.directory
    shredded = directory.shredded_since.get(name)
    return Tenant(
        name,
        time_text(directory.tenants_since[name]),
        directory.tenants[name].actor,
        None if shredded is None else time_text(shredded),
    )


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/tenants",
        name="listTenants",
        summary="The tenants of the installation",
        tag="tenants",
        handler=show,
        answer=Tenants,
        tenanted=False,
        paged=True,
    ),
    ApiRoute(
        method="POST",
        path="/api/v1/tenants",
        name="createTenant",
        summary="Make a tenant",
        tag="tenants",
        handler=create,
        body=TenantWanted,
        answer=Tenant,
        tenanted=False,
        statuses=(201, 200),
        errors=(409,),
    ),
)
