"""Tenants are walls: every route of the management API, asked by every kind of key that must not have it."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from domain.tenancy import Principal
from gateway.http.api.route import ApiRoute
from gateway.http.api.table import ROUTES
from tests.support.api import ApiSite

SCOPES = ("agent", "billing", "admin", "operator")
PLACES = [(route, path) for route in ROUTES for path in (route.path, *route.aliases)]
KEYS = {f"em_{tenant}_{scope}": (tenant, scope) for tenant in ("acme", "") for scope in SCOPES if tenant or scope}


def _arm(site: ApiSite) -> None:
    site.service.keys = {
        key: Principal(f"{tenant}{scope}", tenant or None, frozenset({scope})) for key, (tenant, scope) in KEYS.items()
    }


async def _ask(site: ApiSite, route: ApiRoute, path: str, key: str | None, **query: Any) -> tuple[int, str]:
    url = re.sub(r"{\w+(:\w+)?}", "x", path)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    body = {} if route.body is None else {"json": {}}
    answer = await site.http.request(route.method, url, params=query, headers=headers, **body)
    return answer.status_code, answer.json()["error"]["code"] if answer.content else ""


def may(route: ApiRoute, tenant: str, scope: str) -> bool:
    """What the page of the API says, in other words than the code."""
    if not tenant:
        return scope == "operator" and not route.own
    return scope in route.scopes and scope != "operator"


@pytest.mark.parametrize(("route", "path"), PLACES, ids=[f"{r.method} {p}" for r, p in PLACES])
async def test_no_key_gets_past_its_scope_or_its_tenant(site: ApiSite, route: ApiRoute, path: str) -> None:
    _arm(site)
    assert await _ask(site, route, path, None) == (401, "unauthorized")
    assert await _ask(site, route, path, "em_unknown") == (401, "unauthorized")
    for key, (tenant, scope) in KEYS.items():
        if not may(route, tenant, scope):
            assert await _ask(site, route, path, key) == (403, "forbidden"), key
            assert await _ask(site, route, path, key, tenant="other") != (200, ""), key
        elif tenant and route.tenanted:
            assert await _ask(site, route, path, key, tenant="other") == (403, "forbidden"), key
        elif route.tenanted:
            assert await _ask(site, route, path, key) == (400, "invalid_request"), key
            assert await _ask(site, route, path, key, tenant="nobody") == (404, "not_found"), key


async def test_a_route_that_forgot_its_scope_would_be_found(site: ApiSite) -> None:
    """The control: the matrix fails for a route that lets everyone in."""
    closed = next(route for route in ROUTES if not route.scopes)
    open_to_all = msgspec.structs.replace(closed, scopes=SCOPES)
    _arm(site)
    for key, (tenant, scope) in KEYS.items():
        if tenant and scope != "operator":
            open_to_all.admit(site.service.keys[key])
            assert may(open_to_all, tenant, scope)
            assert not may(closed, tenant, scope)


def test_what_is_written_is_for_admins_or_operators() -> None:
    exceptions = {"registerAgent", "changeAgent", "selectModel", "deleteCollectionRows", "searchCollection"}
    for route in ROUTES:
        if route.writes and route.name not in exceptions:
            assert set(route.scopes) <= {"admin"}, route.name
