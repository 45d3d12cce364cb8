"""What the descriptions of routes are made of: operations, answers, headers and parameters."""

from __future__ import annotations

from typing import Any

from domain.errors import CODES

Json = dict[str, Any]

ANSWER_HEADERS = {
    "x-emberlog-space": "The vector space of the answer; vectors compare only within one.",
    "x-emberlog-provider": "The provider that answered.",
    "x-emberlog-endpoint": "The configured endpoint that answered.",
    "x-emberlog-event": "The id of the outcome event.",
    "x-emberlog-replayed": "true when this repeats the outcome of an earlier request with the same Idempotency-Key.",
    "x-emberlog-nano-usd": "The charge in nano-dollars; absent when the price is unknown.",
    "x-emberlog-failover": "Absent, or a JSON object: from, to and reason of the switch.",
    "x-emberlog-notices": "Absent, or a JSON array of what whoever runs the client should know: that the model is deprecated.",
    "x-emberlog-cursor": "The cursor to go on from: what came after this page.",
    "x-emberlog-position": "Where the write stands in the log, opaque: a read with `after_position` waits for it.",
    "x-ratelimit-limit-requests": "Requests a minute that the tightest rate limit allows; absent where there is none.",
    "x-ratelimit-remaining-requests": "How many of them are left.",
    "x-ratelimit-reset-requests": "In what time they all are, if none are sent: 20ms, 1.5s, 1m0s.",
    "x-ratelimit-limit-tokens": "Tokens a minute that the tightest rate limit allows; absent where there is none.",
    "x-ratelimit-remaining-tokens": "How many of them are left.",
    "x-ratelimit-reset-tokens": "In what time they all are, if none are sent: 20ms, 1.5s, 1m0s.",
    "vary": "Which request headers the form of the answer depends on.",
    "traceparent": "W3C trace context of this request.",
    "retry-after": "Seconds to wait before trying again.",
    "retry-after-ms": "Milliseconds to wait before trying again.",
    "x-should-retry": "Whether the same request may succeed later.",
    "www-authenticate": "The scheme to authenticate with.",
}
_ERROR_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "traceparent")


def route(
    name: str,
    summary: str,
    answers: Json,
    errors: tuple[int, ...],
    tag: str,
    *,
    parameters: list[Json] | None = None,
    open_to_all: bool = False,
    closed: bool = False,
) -> Json:
    """One operation: its good answers, and its errors. `closed`: there are no others."""
    operation: Json = {"operationId": name, "summary": summary, "tags": [tag], "responses": {**answers}}
    for status in errors:
        codes = sorted(code for code, (s, _) in CODES.items() if s == status)
        answer = answers_with(f"Error: {', '.join(codes) or 'invalid_request'}.", "ErrorBody")
        answer["headers"] = header_refs(
            [*_ERROR_HEADERS, "www-authenticate"] if status == 401 else list(_ERROR_HEADERS)
        )
        operation["responses"][str(status)] = answer
    if not closed:
        operation["responses"]["default"] = answers_with("Any other error.", "ErrorBody")
    if parameters:
        operation["parameters"] = parameters
    if open_to_all:
        operation["security"] = []
    return operation


def answers_with(description: str, schema: str, media: str = "application/json") -> Json:
    """An answer whose JSON body is this schema."""
    return {
        "description": description,
        "content": {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def header_of(description: str) -> Json:
    """A header of an answer."""
    return {"description": description, "schema": {"type": "string"}}


def header_refs(names: list[str]) -> Json:
    """The headers of an answer, out of `ANSWER_HEADERS`."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def query_parameter(name: str, description: str, schema: Json | None = None) -> Json:
    """An optional query parameter; a string unless a schema is given."""
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema or {"type": "string"},
    }
