"""`/api/v1/tenant-settings`: what holds for every request of a tenant."""

from __future__ import annotations

import msgspec

from domain.tenant_config import decide_tenant_settings
from gateway.http.api.route import ApiRoute, Call
from gateway.tenant_documents import TenantSettings, tenant_settings


class TenantSettingsChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to change; what is left out stays as it is. `tier` is for operators to set."""

    failover: str | msgspec.UnsetType = msgspec.UNSET
    time_zone: str | msgspec.UnsetType = msgspec.UNSET
    require_known_prices: bool | msgspec.UnsetType = msgspec.UNSET
    tier: str | msgspec.UnsetType = msgspec.UNSET
    price_ceiling: str | msgspec.UnsetType = msgspec.UNSET


async def show(call: Call) -> TenantSettings:
    """The settings as of now."""
    return tenant_settings(call.plane, call.tenant)


async def change(call: Call) -> TenantSettings:
    """Change some of them."""
    wanted = {name: value for name, value in msgspec.structs.asdict(call.body).items() if value is not msgspec.UNSET}
    await call.decide(
        f"tenant/{call.tenant}",
        lambda plane: decide_tenant_settings(
            plane, call.tenant, wanted, operator=call.principal.tenant is None, actor=call.actor
        ),
    )
    return tenant_settings(call.plane, call.tenant)


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/tenant-settings",
        name="getTenantSettings",
        summary="What holds for every request of the tenant",
        tag="tenants",
        handler=show,
        answer=TenantSettings,
        scopes=("admin",),
    ),
    ApiRoute(
        method="PUT",
        path="/api/v1/tenant-settings",
        name="changeTenantSettings",
        summary="Change what holds for every request of the tenant",
        tag="tenants",
        handler=change,
        body=TenantSettingsChange,
        answer=TenantSettings,
        scopes=("admin",),
        errors=(409,),
    ),
)
