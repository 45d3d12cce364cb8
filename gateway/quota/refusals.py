"""What a request is told that a quota keeps out."""

from __future__ import annotations

from typing import Any

from domain.calendar import resets_at
from domain.errors import GatewayError
from domain.quota_lease import Lease
from domain.quotas import OWN, QuotaKey
from projections.quota.query import QuotaStanding

_UNITS = {"tokens": "tokens", "requests": "requests", "nano_usd": "nano-dollars"}


def exceeded(lease: Lease, need: int, zone: str, alternatives: list[Any]) -> GatewayError:
    """`quota_exceeded`, or `budget_exceeded` for one of money: the request may need `need`, and less than that is free.

    `used` is what all gateways have billed by about a second ago, `reserved` what they hold for requests in flight and next.
    """
    used = lease.seen_used
    reserved = max(0, lease.seen_granted - used)
    return _exceeded(lease.key, lease.limit, used, reserved, resets_at(zone, lease.period), need, alternatives)


def standing(found: QuotaStanding, need: int) -> GatewayError:
    """The same from the view: `reserved` is what the requests in flight hold."""
    key = QuotaKey(found.scope, found.subject or "", found.unit, found.window)
    return _exceeded(key, found.limit, found.used, found.reserved, found.resets_at, need, [])


def _exceeded(
    key: QuotaKey, limit: int, used: int, reserved: int, end: str, need: int, alternatives: list[Any]
) -> GatewayError:
    code = "budget_exceeded" if key.unit == "nano_usd" else "quota_exceeded"
    subject = {"tenant": "the tenant", "model": f"model {key.subject!r}"}.get(key.scope, f"agent {key.subject!r}")
    own = " (its own statement)" if key.scope == OWN else ""
    return GatewayError(
        code,
        f"{subject} may use {limit} {_UNITS[key.unit]} a {key.window}{own}: {used} are used and {reserved} reserved, and this request "
        f"may need {need}; wait until {end}, or have the limit raised",
        details={
            "window": key.window,
            "limit": limit,
            "used": used,
            "reserved": reserved,
            "resets_at": end,
            "alternatives": alternatives,
            "unit": key.unit,
            "scope": key.scope,
            "subject": key.subject or None,
        },
    )


def unpriced(model: str) -> GatewayError:
    """A hard budget binds, and what the request would cost is unknown: nothing bounds it."""
    return GatewayError(
        "no_model_available",
        f"the price of model {model!r} is unknown, and a hard budget lets in only what it can bound: choose a model of known price, or have "
        "its price set",
        details={"model": model, "reason": "price_unknown"},
    )


def unreachable() -> GatewayError:
    """Postgres, which alone grants, does not answer, and nothing is left of what it granted: never let in unasked."""
    return GatewayError("unavailable", "the quotas cannot be reached: try again shortly", retry_after_ms=1000)
