"""`docs/api.md`, written from the table of routes: `make docs`."""

from __future__ import annotations

from gateway.http.api.route import ApiRoute
from gateway.http.api.table import ROUTES

_HEAD = """# The management API

Every route under `/api/v1`, and who may use it. This page is made from the code by `make docs`; `/openapi.json` describes bodies and
answers.

A tenant's key needs one of the scopes named and reaches its own tenant, whatever it asks for. A key of the installation needs the scope
`operator` everywhere, and names the tenant by `?tenant=` where a route is about one. Of `/api/v1/events` it sees all, or those of
`?tenants=`, separated by commas. A JWT is treated as a key with its scopes.

Lists take `page` and `limit` and answer with `pagination`. Writes take `?expected_version=`, the `version` that was read: where it is
another by now, nothing is changed and the answer is `version_conflict` (409). They answer with `x-emberlog-position`, in force already in the
gateway that answers and within a second in every other; a read with `?after_position=` waits for it. Bodies are sent as
`Content-Type: application/json`, which `curl -d` does not say by itself. A body with a field that is unknown,
missing or of a wrong type is refused whole, every such field named in `details.fields`. Whoever changes something stands in the event
as `actor`: `key:<id>`, `jwt:<issuer>:<subject>` or `cli:<user>`.

| method | path | scopes | about | what it does |
|---|---|---|---|---|
"""

_OTHERS = (
    ("GET", "/api/v1/events", "billing, admin", "the installation", "The events within the key's reach"),
    ("GET", "/api/v1/usage", "agent (its own), billing, admin", "the installation", "The usage view"),
    ("GET", "/api/v1/projections", "operator", "the installation", "Where each view of the log stands"),
)


def page() -> str:
    """The whole page."""
    rows = [*_OTHERS, *(row for route in ROUTES for row in _rows(route))]
    return _HEAD + "\n".join(f"| {m} | `{p}` | {s} | {a} | {w} |" for m, p, s, a, w in rows) + "\n"


def _rows(route: ApiRoute) -> list[tuple[str, str, str, str, str]]:
    about = "a tenant" if route.tenanted else "the installation"
    scopes = ", ".join(route.scopes) or "operator"
    return [(route.method, path, scopes, about, route.summary) for path in (route.path, *route.aliases)]


if __name__ == "__main__":
    print(page(), end="")
