"""What a route of the management API is: a line of a table. Its handler, its checks, its description and its tests are made from that.

A resource is a file here that exports `ROUTES`, listed in `gateway/http/api/table.py`. A handler is `async def (call: Call) -> answer`: it
reads `call.plane`, or takes a decision by `call.decide(...)`, and returns a struct of the route's `answer` type, or an `Answer` where
the status depends on what was done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from domain.errors import GatewayError, invalid_request
from domain.plane import ControlPlane
from domain.tenancy import Principal
from gateway.control import Decide, Written
from gateway.http.query import Query
from gateway.wire.service import EmbeddingService

MAX_PAGE = 100
DEFAULT_PAGE = 20


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter: its name, what it does, its JSON schema (None: a string)."""

    name: str
    description: str
    schema: dict[str, Any] | None = None


class Pagination(msgspec.Struct, frozen=True):
    """Where a page stands: `page` from 1, `limit` items a page, `total` items on `pages` pages."""

    page: int
    limit: int
    total: int
    pages: int


class Nothing(msgspec.Struct, frozen=True):
    """No body: the status says it all."""


class ApiRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One route.

    `scopes`: a tenant's key needs one of them; none: the route is the operators' alone. Installation keys need `operator` everywhere.
    `tenanted`: it is about one tenant, the key's own; an operator names one by the parameter `tenant`. `body` None: there is none.
    `own`: no installation key may use it, for it shows what tenants keep. `media` is what it answers with, one line an item where it is
    `application/x-ndjson`. `view`: the view of the database that it reads, which `after_position` waits for besides the control plane.
    `statuses` are the good ones, the first by default. `paged` lists take `page` and `limit`. Writes take `expected_version` unless they
    are not `versioned`: they change no stream of decisions, and what is asked twice is done once.
    """

    method: str
    path: str
    name: str
    summary: str
    tag: str
    handler: Callable[[Call], Awaitable[Any]]
    answer: type
    scopes: tuple[str, ...] = ()
    tenanted: bool = True
    own: bool = False
    media: str = "application/json"
    body: type | None = None
    statuses: tuple[int, ...] = (200,)
    query: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()
    paged: bool = False
    versioned: bool = True
    view: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether it may change something."""
        return self.method != "GET"

    def parameters(self) -> list[Parameter]:
        """Every query parameter it takes."""
        found = list(self.query)
        if self.tenanted:
            whose = (
                "The key's own, which needs not be said."
                if self.own
                else "Whose; for operators, who must say so. Others see their own tenant."
            )
            found.append(Parameter("tenant", whose))
        if self.paged:
            found += [
                Parameter("page", "Which page.", {"type": "integer", "minimum": 1, "default": 1, "maximum": 1_000_000}),
                Parameter(
                    "limit",
                    "Items a page.",
                    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
                ),
            ]
        if self.writes and self.versioned:
            found.append(
                Parameter(
                    "expected_version",
                    "The version that was read: where it is another by now, nothing is changed (409).",
                    {"type": "integer", "minimum": 0},
                )
            )
        elif not self.writes:
            found.append(
                Parameter(
                    "after_position",
                    "The `x-emberlog-position` of a write: the answer waits, at most 10 s, until it shows that.",
                )
            )
        return found

    def admit(self, principal: Principal) -> None:
        """Raise `forbidden` unless the principal may use it."""
        if principal.tenant is None:
            if self.own:
                raise GatewayError("forbidden", "this is the tenants' own: use a key of the tenant")
            principal.require("operator")
        elif not self.scopes:
            raise GatewayError(
                "forbidden",
                "this is for operators: use a key of the installation with the scope 'operator'",
                details={"scope": "operator"},
            )
        elif principal.scopes.isdisjoint(self.scopes):
            raise GatewayError(
                "forbidden",
                f"this key lacks the scope {' or '.join(map(repr, self.scopes))}; use a key created with it",
                details={"scope": self.scopes[0]},
            )


class Answer(msgspec.Struct, frozen=True):
    """An answer that is more than its body."""

    body: Any
    status: int | None = None
    headers: dict[str, str] = {}


class Call:
    """One request to a route: who asks, about which tenant, with what."""

    def __init__(
        self,
        service: EmbeddingService,
        principal: Principal,
        query: Query,
        path: Mapping[str, str],
        tenant: str | None,
        body: Any,
    ) -> None:
        self.service = service
        self.principal = principal
        self.query = query
        self.path = path
        self.body = body
        self._tenant = tenant
        self.written: Written | None = None

    @property
    def tenant(self) -> str:
        """The tenant that it is about (routes that are `tenanted`)."""
        assert self._tenant is not None
        return self._tenant

    @property
    def actor(self) -> str:
        """Who does it, as events say it."""
        return self.principal.actor

    @property
    def plane(self) -> ControlPlane:
        """The control plane."""
        return self.service.control.plane

    async def decide(self, stream: str, decide: Decide) -> Written:
        """Take a decision; the answer will carry its position."""
        text = self.query.text("expected_version")
        expected = None if text is None else self.query.integer("expected_version", 0, 0, 2**53)
        self.written = await self.service.control.run(decide, stream=stream, expected_version=expected)
        return self.written

    def page(self, items: list[Any]) -> tuple[list[Any], Pagination]:
        """The page of `items` that was asked for."""
        page = self.query.integer("page", 1, 1, 1_000_000)
        limit = self.query.integer("limit", DEFAULT_PAGE, 1, MAX_PAGE)
        start = (page - 1) * limit
        return items[start : start + limit], Pagination(page, limit, len(items), max(1, -(-len(items) // limit)))


def tenant_of(route: ApiRoute, principal: Principal, query: Query, plane: ControlPlane) -> str | None:
    """The tenant that a request is about. Raises `forbidden` for another than one's own, `not_found`, `invalid_request`."""
    if not route.tenanted:
        return None
    asked = query.text("tenant")
    if principal.tenant is not None:
        if asked not in (None, principal.tenant):
            raise GatewayError(
                "forbidden", "this key sees its own tenant only: leave `tenant` out", details={"field": "tenant"}
            )
        return principal.tenant
    if asked is None:
        raise invalid_request("say whose it is: `tenant` is missing", "tenant")
    if asked not in plane.directory.tenants or asked in plane.directory.shredded:
        raise GatewayError("not_found", f"there is no tenant {asked[:63]!r}", details={"field": "tenant"})
    return asked
