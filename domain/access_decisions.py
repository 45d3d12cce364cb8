"""Decisions about tenants and their keys: what somebody wants as events, or why it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import SYSTEM_STREAM, SYSTEM_TENANT, KeyRevoked, TenantCreated
from domain.problems import Problems
from domain.tenancy import IssuedKey, Principal, check_tenant_name

if TYPE_CHECKING:
    from domain.plane import ControlPlane

MAX_KEYS = 10_000
"""Keys of a tenant, or of the installation, that are good."""
_MAX_NAME = 128
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999."""


def keys_stream(tenant: str | None) -> str:
    """The stream of a tenant's keys, or of the installation's."""
    return SYSTEM_STREAM if tenant is None else f"tenant/{tenant}"


def decide_create_tenant(plane: ControlPlane, name: str, *, actor: str) -> list[Decision]:
    """Make a tenant; nothing is to do where it exists. Raises `invalid_config`, `resource_constraint` for a name that was shredded."""
    check_tenant_name(name)
    if name in plane.directory.shredded:
        raise GatewayError("resource_constraint", f"tenant {name} was shredded: its name stays taken, choose another")
    if name in plane.directory.tenants:
        return []
    return [Decision(name, f"tenant/{name}", TenantCreated(tenant=name, actor=actor))]


def decide_create_key(plane: ControlPlane, issued: IssuedKey, *, by: Principal | None, now: float) -> list[Decision]:
    """Record a key that was issued. `by`: whose credential asks for it; None for whoever may write to the database anyway.

    A credential makes keys of its own tenant and of scopes that it has itself, and where it is bound to an agent, bound to that one.
    Raises `invalid_config`, `not_found`, `forbidden`, `resource_constraint`.
    """
    key = issued.event
    problems = Problems()
    if key.expires_at is not None and not now < key.expires_at <= _LAST_SECOND:
        problems.add("expires_at", "expected a time to come, before the year 10000")
    for field, value in (("name", key.name), ("agent", key.agent)):
        if value is not None and not (1 <= len(value) <= _MAX_NAME and value.isprintable()):
            problems.add(field, f"expected 1 to {_MAX_NAME} printable characters")
    if key.agent is not None and key.tenant is None:
        problems.add("agent", "a key of the installation has no agents: name a tenant, or leave the agent out")
    problems.check("the key")
    if by is not None:
        _check_reach(issued, by)
    directory = plane.directory
    if key.tenant is not None and (key.tenant not in directory.tenants or key.tenant in directory.shredded):
        raise GatewayError("not_found", f"there is no tenant {key.tenant[:63]!r}", details={"field": "tenant"})
    good = sum(directory.valid(other, now) for other in directory.unrevoked.get(key.tenant, ()))
    if good >= MAX_KEYS:
        raise GatewayError(
            "resource_constraint", f"there are {MAX_KEYS} good keys already, the most there can be: revoke some first"
        )
    return [Decision(key.tenant or SYSTEM_TENANT, keys_stream(key.tenant), key)]


def _check_reach(issued: IssuedKey, by: Principal) -> None:
    key = issued.event
    if by.tenant is not None and key.tenant != by.tenant:
        raise GatewayError(
            "forbidden", "this credential makes keys of its own tenant only", details={"field": "tenant"}
        )
    if lacking := sorted(set(key.scopes) - by.scopes):
        raise GatewayError(
            "forbidden",
            f"a key cannot have scopes that its maker lacks: this credential has no {', '.join(lacking)}; ask for fewer, or use one that has them",
            details={"field": "scopes", "scope": lacking[0]},
        )
    if by.agent is not None and key.agent != by.agent:
        raise GatewayError(
            "forbidden",
            "this credential speaks for one agent alone: bind the key to the same `agent`",
            details={"field": "agent"},
        )


def decide_revoke_key(plane: ControlPlane, key_id: str, *, by: Principal | None, actor: str) -> list[Decision]:
    """Take a key back; nothing is to do where it is revoked already, by itself or with its tenant.

    Raises `not_found`, for another tenant's key as for one that never was. The id is not repeated, for it may be a key.
    """
    directory = plane.directory
    key = directory.keys.get(key_id)
    if key is None or (by is not None and by.tenant is not None and key.tenant != by.tenant):
        raise GatewayError("not_found", "there is no key of this id: list the keys to see theirs")
    if key_id in directory.revoked or key.tenant in directory.shredded:
        return []
    return [Decision(key.tenant or SYSTEM_TENANT, keys_stream(key.tenant), KeyRevoked(key=key_id, actor=actor))]
