"""What a key may read: an operator's key of the installation everything, a tenant's key its tenant."""

from __future__ import annotations

from collections.abc import Iterable

from domain.errors import GatewayError
from domain.tenancy import Principal

_WHOLE_TENANT = ("billing", "admin")


def whole_tenant(principal: Principal) -> bool:
    """Whether the key may read all of its tenant, or of every tenant where it is the installation's. Raises `forbidden` there only."""
    if principal.tenant is None:
        principal.require("operator")
        return True
    return not principal.scopes.isdisjoint(_WHOLE_TENANT)


def require_whole_tenant(principal: Principal) -> None:
    """Raise `forbidden` unless the key may read all of its tenant."""
    if not whole_tenant(principal):
        raise GatewayError(
            "forbidden",
            f"this key has neither the scope {' nor '.join(map(repr, _WHOLE_TENANT))}; use a key created with one of them",
            details={"scope": _WHOLE_TENANT[0]},
        )


def tenants_within(principal: Principal, asked: Iterable[str] | None, field: str) -> frozenset[str] | None:
    """The tenants to read: those `asked` for, or all within reach (None: every one). Raises `forbidden` for one beyond it."""
    wanted = None if asked is None else frozenset(asked)
    if principal.tenant is None:
        return wanted
    own = frozenset({principal.tenant})
    if wanted is not None and wanted != own:
        raise GatewayError(
            "forbidden",
            f"this key sees its own tenant only: leave `{field}` out",
            details={"field": field},
        )
    return own
