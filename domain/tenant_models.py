"""The models of a tenant: what it may do with each, and the rules for changing that.

States: `configured` (added, not in use yet), `enabled`, `disabled`, removed; the default is a flag on an enabled one, and
`quota_exceeded` is what an enabled one is called while a hard quota of its own is used up. The default is neither disabled nor removed
before another is made the default. Nobody adds a model that is deprecated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import TenantModelConfigured, TenantModelRemoved
from domain.model_catalog import CatalogModel
from domain.model_lifecycle import DRAFT, REMOVED, deprecated
from domain.price_decisions import MAX_UNIT_PICO_USD, decide_price, decide_price_end
from domain.problems import Problems
from domain.quotas import MAX_LIMIT, QuotaKey, decide_remove_quota, decide_set_quota, resolve_model
from domain.tenant_config import TIERS, TenantConfig

if TYPE_CHECKING:
    from domain.plane import ControlPlane

CONFIGURED, ENABLED, DISABLED, QUOTA_EXCEEDED = "configured", "enabled", "disabled", "quota_exceeded"
MAX_PRIORITY = 1_000_000
MAX_FALLBACKS = 20
MAX_SETTINGS = 32
MAX_SETTING = 512
"""Characters of a name or value among `custom_settings`."""
LIMITS = {
    "monthly_token_limit": ("tokens", "month"),
    "daily_token_limit": ("tokens", "day"),
    "monthly_request_limit": ("requests", "month"),
}
"""Field -> unit and window of the hard quota of the model that it sets; None takes it away."""
PRICES = {"custom_cost_per_token_pico_usd": "token", "custom_cost_per_character_pico_usd": "character"}
"""Field -> unit of the price that the tenant is charged for the model, whichever provider answers; None goes back to the list price."""
_SECRETS = ("password", "secret", "token", "apikey", "api_key")


def tenant_model(plane: ControlPlane, tenant: str, name: str) -> TenantModelConfigured:
    """How the tenant has configured a model, by its id or alias. Raises `not_found`."""
    models = plane.tenants.of(tenant).models
    found = models.get(name) or models.get(resolve_model(plane, name) or "")
    if found is None:
        raise GatewayError(
            "not_found",
            f"the tenant has not configured a model {name[:128]!r}: GET /api/v1/tenant-models shows those it has",
            details={"field": "model_id"},
        )
    return found


def limit_of(plane: ControlPlane, tenant: str, model: str, field: str) -> int | None:
    """The limit that `field`, one of `LIMITS`, shows; None where there is none, or a soft one."""
    unit, window = LIMITS[field]
    quota = plane.quotas.of(tenant).get(QuotaKey("model", model, unit, window))
    return None if quota is None or not quota.hard else quota.limit


def decide_tenant_model(
    plane: ControlPlane, tenant: str, name: str, wanted: Mapping[str, Any], *, operator: bool, now: float, actor: str
) -> list[Decision]:
    """Configure a model for a tenant, or change how it is configured: what `wanted` leaves out stays, or takes its default.

    `wanted` may hold `is_enabled`, `is_default`, `priority`, `fallback_models`, `custom_settings` and what `LIMITS` and `PRICES` name.
    Limits and prices are set before the model is, so that it is never in use without them. Raises `model_not_found`, `type_unsupported`,
    `invalid_config`, `forbidden` (prices are the operators' to set) and `resource_constraint`.
    """
    model = _model(plane, name)
    config = plane.tenants.of(tenant)
    known = config.models.get(model.id)
    if known is None and deprecated(model):
        raise GatewayError(
            "resource_constraint",
            f"model {model.id!r} is deprecated: tenants that have it may go on using it, none may add it",
            details={"field": "model_id"},
        )
    problems = Problems()
    fallbacks = _fallbacks(plane, config, model.id, wanted, problems)
    _check_values(wanted, problems)
    problems.check(f"model {model.id!r} of the tenant")
    data = _configured(config, model, known, wanted, fallbacks, actor)
    decisions = _limits(plane, tenant, model.id, wanted, operator=operator, actor=actor)
    decisions += _prices(plane, tenant, model, wanted, operator=operator, now=now, actor=actor)
    if known is None or msgspec.structs.replace(data, actor=known.actor) != known:
        decisions.append(Decision(tenant, f"tenant/{tenant}", data))
    return decisions


def decide_default_model(plane: ControlPlane, tenant: str, name: str, *, actor: str) -> list[Decision]:
    """Make a model of the tenant its default. Raises `not_found`, `resource_constraint` for one that is not enabled."""
    known = tenant_model(plane, tenant, name)
    if known.state != ENABLED:
        raise GatewayError(
            "resource_constraint",
            f"model {known.model!r} is {known.state} for the tenant: only an enabled one can be its default; enable it first",
            details={"field": "is_default", "state": known.state},
        )
    if known.default:
        return []
    data = msgspec.structs.replace(known, default=True, actor=actor)
    return [Decision(tenant, f"tenant/{tenant}", data)]


def decide_remove_tenant_model(plane: ControlPlane, tenant: str, name: str, *, actor: str) -> list[Decision]:
    """Take a model from the tenant; its quotas and prices stay set. Raises `not_found`, `resource_constraint` for the default."""
    known = tenant_model(plane, tenant, name)
    if known.default:
        raise _is_default(known.model, "removed")
    return [Decision(tenant, f"tenant/{tenant}", TenantModelRemoved(known.model, actor=actor))]


def _model(plane: ControlPlane, name: str) -> CatalogModel:
    found = plane.models.models.get(resolve_model(plane, name) or "")
    if found is None or found.state in (DRAFT, REMOVED):
        raise GatewayError(
            "model_not_found",
            f"the catalogue has no model {name[:128]!r} that a tenant could use: GET /api/v1/models shows what it has",
            details={"field": "model_id"},
        )
    if found.type != "embedding":
        raise GatewayError(
            "type_unsupported",
            f"model {found.id!r} is of the type {found.type!r}: only embedding models serve requests",
            details={"field": "model_id"},
        )
    return found


def _configured(
    config: TenantConfig,
    model: CatalogModel,
    known: TenantModelConfigured | None,
    wanted: Mapping[str, Any],
    fallbacks: Sequence[str] | None,
    actor: str,
) -> TenantModelConfigured:
    """The statement that `wanted` makes of what is known."""
    was = known or TenantModelConfigured(model.id, state=CONFIGURED)
    enabled = wanted.get("is_enabled", known is None or was.state == ENABLED)
    default = wanted.get("is_default", was.default)
    if was.default and not enabled:
        raise _is_default(model.id, "disabled")
    if was.default and not default:
        raise _is_default(model.id, "replaced by none")
    if default and not enabled:
        problems = Problems()
        problems.add("is_default", "only an enabled model can be the default: give is_enabled = true with it")
        problems.check(f"model {model.id!r} of the tenant")
    tier = config.settings.tier
    if enabled and was.state != ENABLED and TIERS.index(model.spec.minimum_tier) > TIERS.index(tier):
        raise GatewayError(
            "resource_constraint",
            f"model {model.id!r} needs the tier {model.spec.minimum_tier}, and the tenant's is {tier}",
            details={"field": "is_enabled", "minimum_tier": model.spec.minimum_tier, "tier": tier},
        )
    return TenantModelConfigured(
        model.id,
        state=ENABLED if enabled else CONFIGURED if was.state == CONFIGURED else DISABLED,
        default=default,
        priority=wanted.get("priority", was.priority),
        fallback_models=list(fallbacks) if fallbacks is not None else was.fallback_models,
        custom_settings=dict(wanted.get("custom_settings", was.custom_settings)),
        actor=actor,
    )


def _is_default(model: str, done: str) -> GatewayError:
    return GatewayError(
        "resource_constraint",
        f"model {model!r} is the tenant's default and cannot be {done}: make another the default first",
        details={"field": "is_default"},
    )


def _check_values(wanted: Mapping[str, Any], problems: Problems) -> None:
    priority = wanted.get("priority", 0)
    if not 0 <= priority <= MAX_PRIORITY:
        problems.add("priority", f"is {priority}; expected 0 to {MAX_PRIORITY}, higher is preferred")
    settings = wanted.get("custom_settings", {})
    if len(settings) > MAX_SETTINGS:
        problems.add("custom_settings", f"has {len(settings)} entries; expected at most {MAX_SETTINGS}")
    for name, value in list(settings.items())[:MAX_SETTINGS]:
        if not name or max(len(name), len(value)) > MAX_SETTING:
            problems.add(
                "custom_settings", f"{name[:40]!r}: expected 1 to {MAX_SETTING} characters in names and values"
            )
        elif any(word in name.lower().replace("-", "_") for word in _SECRETS):
            problems.add("custom_settings", f"{name[:40]!r} sounds like a secret: the log keeps none")
    for field, most in (*dict.fromkeys(LIMITS, MAX_LIMIT).items(), *dict.fromkeys(PRICES, MAX_UNIT_PICO_USD).items()):
        value = wanted.get(field)
        if value is not None and not 0 <= value <= most:
            problems.add(field, f"expected a whole number from 0 to {most}, or null for none")
    if sum(wanted.get(field) is not None for field in PRICES) > 1:
        problems.add(
            list(PRICES)[1], f"a model is charged by tokens or by characters: leave one of {', '.join(PRICES)} out"
        )


def _fallbacks(
    plane: ControlPlane, config: TenantConfig, model: str, wanted: Mapping[str, Any], problems: Problems
) -> list[str] | None:
    """The catalogue ids of the fallbacks that are wanted; None where nothing is said of them."""
    names = wanted.get("fallback_models")
    if names is None:
        return None
    if len(names) > MAX_FALLBACKS:
        problems.add("fallback_models", f"has {len(names)} models; expected at most {MAX_FALLBACKS}")
        return None
    found: list[str] = []
    for index, name in enumerate(names):
        known = resolve_model(plane, name)
        field = f"fallback_models[{index}]"
        if known is None or plane.models.models[known].state in (DRAFT, REMOVED):
            problems.add(field, f"there is no model {name[:128]!r} in the catalogue")
        elif known == model:
            problems.add(field, "a model is no fallback of itself")
        elif known in found:
            problems.add(field, f"{known!r} is there twice")
        else:
            found.append(known)
    if (circle := _circle(config, model, found)) is not None:
        problems.add("fallback_models", f"they lead back: {' -> '.join(circle)}")
    return found


def _circle(config: TenantConfig, model: str, fallbacks: Sequence[str]) -> list[str] | None:
    """The way from `model` back to it, if its fallbacks were these; None where there is none."""
    ways = [[model, name] for name in fallbacks]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        if way[-1] == model:
            return way
        if way[-1] in seen or (known := config.models.get(way[-1])) is None:
            continue
        seen.add(way[-1])
        ways += [[*way, name] for name in known.fallback_models]
    return None


def _limits(
    plane: ControlPlane, tenant: str, model: str, wanted: Mapping[str, Any], *, operator: bool, actor: str
) -> list[Decision]:
    decisions: list[Decision] = []
    for field, (unit, window) in LIMITS.items():
        if field not in wanted:
            continue
        if (limit := wanted[field]) is None:
            decisions += decide_remove_quota(
                plane, tenant, scope="model", unit=unit, window=window, subject=model, operator=operator, actor=actor
            )
        else:
            decisions += decide_set_quota(
                plane,
                tenant,
                scope="model",
                unit=unit,
                window=window,
                subject=model,
                limit=limit,
                operator=operator,
                actor=actor,
            )
    return decisions


def _prices(
    plane: ControlPlane,
    tenant: str,
    model: CatalogModel,
    wanted: Mapping[str, Any],
    *,
    operator: bool,
    now: float,
    actor: str,
) -> list[Decision]:
    given = {PRICES[field]: wanted[field] for field in PRICES if field in wanted}
    if not given:
        return []
    if not operator:
        field = next(field for field in PRICES if field in wanted)
        raise GatewayError("forbidden", f"prices are set by operators: leave `{field}` out", details={"field": field})
    unit, pico = next(((u, p) for u, p in given.items() if p is not None), (None, None))
    decisions: list[Decision] = []
    for provider in [offering.provider for offering in model.offerings]:
        held = [e for begin, end, e in plane.prices.spans((model.id, provider, tenant)) if begin <= now < end]
        if pico is None:
            for entry in held:
                decisions += decide_price_end(plane, entry.set.price, None, now=now, actor=actor)
        elif not any((e.set.unit, e.set.unit_pico_usd) == (unit, pico) for e in held):
            decisions += decide_price(
                plane,
                {
                    "id": f"tenant:{tenant}:{_digest(model.id, provider, str(unit), str(pico), str(int(now)))}",
                    "model": model.id,
                    "provider": provider,
                    "unit_pico_usd": pico,
                    "unit": unit,
                    "for_tenant": tenant,
                },
                now=now,
                actor=actor,
            )
    return decisions


def _digest(*parts: str) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
