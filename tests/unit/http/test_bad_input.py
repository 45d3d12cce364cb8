"""What clients send to wear a gateway out or to trip it: it costs no more than it has bytes, and is refused with the field named."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest
from starlette.requests import Request

from domain.errors import GatewayError
from domain.problems import MOST, Problems
from domain.tenancy import Principal
from gateway.http.api.agents import speaks_for
from gateway.http.api.route import ApiRoute
from gateway.http.api.table import ROUTES
from gateway.http.query import Query
from tests.support.api import ApiSite
from tests.unit.wire.fake_service import ADMIN_KEY, OPERATOR_KEY

AGENTS = "/api/v1/agents"
NAMED = [route for route in ROUTES if "{" in route.path]


def query(text: str, known: tuple[str, ...] = ()) -> Query:
    return Query(
        Request({"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": text.encode()}), known
    )


def test_a_head_full_of_parameters_takes_the_time_of_reading_it_once() -> None:
    names = [f"{number:x}" for number in range(12_000)]
    before = time.process_time()
    with pytest.raises(GatewayError, match="there is no parameter '0' here"):
        query("&".join(names))
    query("&".join(names), dict.fromkeys(names))  # type: ignore[arg-type]  # a collection to look names up in
    assert time.process_time() - before < 2  # over ten seconds where each name looks through all of them


def test_what_is_given_twice_is_still_seen() -> None:
    with pytest.raises(GatewayError, match="given 2 times"):
        query("a=1&b=2&a=3", ("a", "b")).text("a")
    assert query("a=1&a=3,4", ("a",)).names("a") == frozenset({"1", "3", "4"})


def test_only_so_many_problems_are_told() -> None:
    problems = Problems()
    for number in range(MOST * 10):
        problems.add(f"f{number}", "is wrong")
    with pytest.raises(GatewayError) as refused:
        problems.check("the body")
    assert [f["field"] for f in (refused.value.details or {})["fields"]] == [f"f{n}" for n in range(MOST)]


async def test_a_body_of_nothing_but_unknown_fields_is_answered_in_short(site: ApiSite) -> None:
    body = {f"{number:x}": 0 for number in range(50_000)}
    answer = await site.ask("POST", AGENTS, ADMIN_KEY, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_config")
    assert len(answer.content) < 64_000


async def test_scopes_that_there_are_not_are_not_sent_back_whole(site: ApiSite) -> None:
    answer = await site.ask("POST", "/api/v1/keys", OPERATOR_KEY, {"scopes": ["x" * 1000] * 500})
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "scopes")
    assert len(answer.content) < 2_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a\0b"),
        ("capabilities", ["fine", "a\0b"]),
        ("preferences", {"strategy": "a\0b"}),
        ("preferences", {"task_models": {"a\0b": "x"}}),
        ("preferences", {"models": ["a\0b"]}),
    ],
)
async def test_a_nul_is_refused_wherever_in_a_field_it_is(site: ApiSite, field: str, value: Any) -> None:
    answer = await site.ask("POST", AGENTS, ADMIN_KEY, {"agent_id": "a", "preferences": {}, field: value})
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)
    assert "NUL" in answer.json()["error"]["message"]


async def test_what_only_looks_like_a_nul_is_no_matter(site: ApiSite) -> None:
    answer = await site.ask("POST", AGENTS, ADMIN_KEY, {"agent_id": "a", "preferences": {}, "name": "\\u0000"})
    assert (answer.status_code, answer.json()["name"]) == (201, "\\u0000")


@pytest.mark.parametrize("route", NAMED, ids=[f"{r.method} {r.path}" for r in NAMED])
async def test_a_nul_in_the_path_is_refused_before_anything_reads_it(site: ApiSite, route: ApiRoute) -> None:
    site.service.keys["em_all"] = Principal("k", "acme" if route.own else None, frozenset({"operator", "admin"}))
    path = re.sub(r"{\w+(:\w+)?}", "a%00b", route.path)
    body: dict[str, Any] | None = None if route.body is None else {}
    asked = {"tenant": "acme"} if any(p.name == "tenant" for p in route.parameters()) else {}
    answer = await site.ask(route.method, path, "em_all", body, **asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), answer.text
    assert "NUL" in answer.json()["error"]["message"]


def test_who_has_no_agent_of_its_own_is_the_agent_that_its_requests_are_of() -> None:
    """A token's requests are its subject's: the management API must not speak of another agent then."""
    holder = Principal("https://idp:alice", "acme", frozenset({"agent"}), kind="jwt", subject="alice")
    assert speaks_for(holder, None) == holder.default_agent == "alice"


async def test_the_book_does_not_tell_tenants_how_many_prices_others_have(site: ApiSite) -> None:
    whole = (await site.ask("GET", "/api/v1/prices", OPERATOR_KEY)).json()
    own = (await site.ask("GET", "/api/v1/prices", ADMIN_KEY)).json()
    assert (whole["version"], own.get("version", msgspec.UNSET)) == (0, msgspec.UNSET)


@pytest.mark.parametrize(
    "zone", ["Mars/Base", "europe/paris", "localtime", "Factory", "posixrules", "../UTC", "", "+02:00"]
)
async def test_a_zone_that_means_nothing_or_something_else_elsewhere_is_refused(site: ApiSite, zone: str) -> None:
    answer = await site.ask("PUT", "/api/v1/tenant-settings", ADMIN_KEY, {"time_zone": zone})
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "time_zone")
