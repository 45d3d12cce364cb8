"""The OpenAPI operations and schemas of the management API, from its table of routes."""

from __future__ import annotations

import re

from gateway.http.api.route import ApiRoute, Nothing
from gateway.http.api.table import ROUTES
from gateway.http.openapi_parts import Json, answers_with, header_refs, query_parameter, route

_GOOD = {200: "Done, or found.", 201: "Made.", 202: "Accepted; it goes on.", 204: "Gone."}


def structs() -> list[type]:
    """Every struct that a route takes or answers with."""
    found = dict.fromkeys(r.answer for r in ROUTES if r.answer is not Nothing)
    found.update(dict.fromkeys(r.body for r in ROUTES if r.body is not None))
    return list(found)


def paths() -> Json:
    """The path items, by path."""
    found: Json = {}
    for api_route in ROUTES:
        for number, path in enumerate((api_route.path, *api_route.aliases)):
            operation = _operation(api_route, path)
            if number:
                operation["operationId"] += f"Alias{number}"
            found.setdefault(re.sub(r":\w+}", "}", path), {})[api_route.method.lower()] = operation
    return found


def _operation(api_route: ApiRoute, path: str) -> Json:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)", path)
    ]
    parameters += [query_parameter(p.name, p.description, p.schema) for p in api_route.parameters()]
    answers: Json = {}
    for status in api_route.statuses:
        if api_route.answer is Nothing:
            answers[str(status)] = {"description": _GOOD[status]}
        else:
            answers[str(status)] = answers_with(_GOOD[status], api_route.answer.__name__, api_route.media)
        if api_route.writes:
            answers[str(status)]["headers"] = header_refs(["x-emberlog-position"])
    errors = {400, 401, 403, 404, 429, 500, 503, *api_route.errors}
    if api_route.writes:
        errors |= {408, 409, 413}
    scopes = ", ".join(api_route.scopes) or "operator"
    operation = route(
        api_route.name,
        f"{api_route.summary} (scope {scopes})",
        answers,
        tuple(sorted(errors)),
        api_route.tag,
        parameters=parameters,
        closed=True,
    )
    if api_route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{api_route.body.__name__}"}}},
        }
    return operation
