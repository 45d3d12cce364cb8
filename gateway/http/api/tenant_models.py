"""`/api/v1/tenant-models`: the models of a tenant, which of them it uses, and which is its default."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from domain.events import TenantModelConfigured
from domain.problems import Problems
from domain.tenant_models import decide_default_model, decide_remove_tenant_model, decide_tenant_model, tenant_model
from gateway.http.api.quotas import standing_quotas
from gateway.http.api.route import Answer, ApiRoute, Call, Nothing, Pagination, Parameter
from gateway.quota.live import StandingQuotas
from gateway.tenant_documents import TenantModel, tenant_model_document

ALIASES = {"enabled": "is_enabled", "monthly_quota": "monthly_token_limit", "daily_quota": "daily_token_limit"}
"""Other names that a body may use."""


class TenantModelChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the tenant may use the model; what is left out stays as it is, or takes its default.

    `enabled`, `monthly_quota` and `daily_quota` are other names of `is_enabled`, `monthly_token_limit` and `daily_token_limit`. Limits are
    hard quotas of the model; null takes one away. Prices are pico-dollars, for operators to set; null goes back to the list price.
    """

    is_enabled: bool | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    is_default: bool | msgspec.UnsetType = msgspec.UNSET
    priority: int | msgspec.UnsetType = msgspec.UNSET
    fallback_models: list[str] | msgspec.UnsetType = msgspec.UNSET
    custom_settings: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    monthly_token_limit: int | msgspec.UnsetType | None = msgspec.UNSET
    monthly_quota: int | msgspec.UnsetType | None = msgspec.UNSET
    daily_token_limit: int | msgspec.UnsetType | None = msgspec.UNSET
    daily_quota: int | msgspec.UnsetType | None = msgspec.UNSET
    monthly_request_limit: int | msgspec.UnsetType | None = msgspec.UNSET
    custom_cost_per_token_pico_usd: int | msgspec.UnsetType | None = msgspec.UNSET
    custom_cost_per_character_pico_usd: int | msgspec.UnsetType | None = msgspec.UNSET


class TenantModelConfiguration(TenantModelChange, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model for the tenant. It is enabled unless `is_enabled` is false; one with `is_default` takes the place of the default."""

    model_id: str


class TenantModels(msgspec.Struct, frozen=True):
    """Models of a tenant, by id. `version` is that of its stream, for `expected_version`."""

    models: list[TenantModel]
    pagination: Pagination
    version: int


def wanted_of(body: msgspec.Struct) -> Mapping[str, Any]:
    """The fields that a body gives, under the names of `decide_tenant_model`. Raises `invalid_config` where two names say two things."""
    problems = Problems()
    given = {n: v for n, v in msgspec.structs.asdict(body).items() if v is not msgspec.UNSET and n != "model_id"}
    for alias, field in ALIASES.items():
        if alias not in given:
            continue
        value = given.pop(alias)
        if given.setdefault(field, value) != value:
            problems.add(alias, f"says something else than `{field}`, of which it is another name: leave one out")
    problems.check("the body")
    return given


async def listing(call: Call) -> TenantModels:
    """A page of the tenant's models."""
    only = call.query.choice("enabled_only", ("true", "false"), "false") == "true"
    models = sorted(call.plane.tenants.of(call.tenant).models.values(), key=lambda m: m.model)
    page, pagination = call.page([m for m in models if m.state == "enabled" or not only])
    quotas = await standing_quotas(call)
    return TenantModels(
        [_document(call, m, quotas) for m in page], pagination, call.plane.versions.get(f"tenant/{call.tenant}", 0)
    )


async def show(call: Call) -> TenantModel:
    """One of them."""
    found = tenant_model(call.plane, call.tenant, call.path["model"])
    return _document(call, found, await standing_quotas(call))


async def configure(call: Call) -> Answer:
    """Add a model, or change how it is configured."""
    known = set(call.plane.tenants.of(call.tenant).models)
    await _decide(call, call.body.model_id)
    found = tenant_model(call.plane, call.tenant, call.body.model_id)
    return Answer(_document(call, found, await standing_quotas(call)), status=200 if found.model in known else 201)


async def change(call: Call) -> TenantModel:
    """Change how a model of the tenant is configured."""
    name = tenant_model(call.plane, call.tenant, call.path["model"]).model
    await _decide(call, name)
    return await show(call)


async def set_default(call: Call) -> TenantModel:
    """Make a model of the tenant its default."""
    await call.decide(
        f"tenant/{call.tenant}",
        lambda plane: decide_default_model(plane, call.tenant, call.path["model"], actor=call.actor),
    )
    return await show(call)


async def remove(call: Call) -> Nothing:
    """Take a model from the tenant."""
    await call.decide(
        f"tenant/{call.tenant}",
        lambda plane: decide_remove_tenant_model(plane, call.tenant, call.path["model"], actor=call.actor),
    )
    return Nothing()


async def _decide(call: Call, name: str) -> None:
    wanted, now, operator = wanted_of(call.body), time.time(), call.principal.tenant is None
    await call.decide(
        f"tenant/{call.tenant}",
        lambda plane: decide_tenant_model(
            plane, call.tenant, name, wanted, operator=operator, now=now, actor=call.actor
        ),
    )


def _document(call: Call, configured: TenantModelConfigured, quotas: StandingQuotas) -> TenantModel:
    return tenant_model_document(
        call.plane,
        call.tenant,
        configured,
        call.service.selector.menu(call.tenant),
        exceeded=quotas.exceeded(configured.model),
        ceiling=call.service.selector.ceiling(call.tenant, quotas),
        now=time.time(),
    )


def _route(
    method: str,
    path: str,
    name: str,
    summary: str,
    handler: Any,
    answer: type,
    errors: tuple[int, ...] = (),
    **more: Any,
) -> ApiRoute:
    return ApiRoute(
        method=method,
        path=f"/api/v1/tenant-models{path}",
        aliases=(f"/tenant-models{path}",),
        name=name,
        summary=summary,
        tag="tenant models",
        handler=handler,
        answer=answer,
        scopes=("admin",),
        errors=(504, *errors),
        view="quota" if method == "GET" else None,
        **more,
    )


ROUTES = (
    _route(
        "GET",
        "",
        "listTenantModels",
        "The models of the tenant",
        listing,
        TenantModels,
        paged=True,
        query=(
            Parameter(
                "enabled_only",
                "Leave out those that are not enabled.",
                {"type": "string", "enum": ["true", "false"], "default": "false"},
            ),
        ),
    ),
    _route(
        "POST",
        "",
        "configureTenantModel",
        "Add a model for the tenant, or change how it is configured",
        configure,
        TenantModel,
        body=TenantModelConfiguration,
        statuses=(201, 200),
        errors=(404, 409),
    ),
    _route("GET", "/{model}", "getTenantModel", "A model of the tenant", show, TenantModel),
    _route(
        "PUT",
        "/{model}",
        "changeTenantModel",
        "Change how a model of the tenant is configured",
        change,
        TenantModel,
        body=TenantModelChange,
        errors=(409,),
    ),
    _route(
        "DELETE",
        "/{model}",
        "removeTenantModel",
        "Take a model from the tenant; its quotas and prices stay set",
        remove,
        Nothing,
        statuses=(204,),
        errors=(409,),
    ),
    _route(
        "POST",
        "/{model}/set-default",
        "setDefaultModel",
        "Make an enabled model of the tenant its default",
        set_default,
        TenantModel,
        errors=(409,),
    ),
)
