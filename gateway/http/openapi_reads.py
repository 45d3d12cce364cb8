"""The routes that read the log and its views, described."""

from __future__ import annotations

from gateway.http.accept import NDJSON
from gateway.http.events import DEFAULT_LIMIT, MAX_LIMIT
from gateway.http.openapi_parts import Json, answers_with, header_refs, query_parameter, route
from gateway.http.usage import MAX_BUCKETS


def events() -> Json:
    """`GET /api/v1/events`."""
    good = answers_with("Events, in the order of the log.", "EventsAnswer")
    good["content"][NDJSON] = {"schema": {"$ref": "#/components/schemas/EventDocument"}}
    good["headers"] = header_refs(["x-emberlog-cursor", "vary"])
    return route(
        "listEvents",
        "The events within the key's reach: its tenant's (scope billing or admin), or all (operator)",
        {"200": good},
        (400, 401, 403, 404, 406, 429, 500, 503),
        "reads",
        closed=True,
        parameters=[
            query_parameter(
                "after", "The cursor that an earlier page came with; absent or `start`: from the beginning."
            ),
            query_parameter(
                "limit",
                "How many events at most. An answer with fewer is not the end: a call looks at a bounded stretch of the log. "
                "The end is reached where the cursor stays the same.",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            ),
            query_parameter("types", "Only events of these types, separated by commas."),
            query_parameter("streams", "Only events of these streams, separated by commas."),
            query_parameter(
                "tenants", "Only events of these tenants, separated by commas; others than one's own for operators."
            ),
        ],
    )


def usage() -> Json:
    """`GET /api/v1/usage`."""
    return route(
        "listUsage",
        "Usage by bucket, tenant, agent, model and provider: of the key's tenant (scope billing or admin), of one agent (agent), of all (operator)",
        {"200": answers_with("Usage, and how far it is complete.", "UsageAnswer")},
        (400, 401, 403, 404, 429, 500, 503, 504),
        "reads",
        closed=True,
        parameters=[
            query_parameter(
                "grain", "The length of a bucket, in UTC.", {"enum": ["minute", "hour", "day"], "default": "day"}
            ),
            query_parameter(
                "from",
                f"From the bucket that holds this time on, ISO 8601; needed unless the grain is day. At most {MAX_BUCKETS} buckets "
                "before `to`.",
                {"type": "string", "format": "date-time"},
            ),
            query_parameter(
                "to", "Buckets that begin before this time; absent: now.", {"type": "string", "format": "date-time"}
            ),
            query_parameter("tenant", "Only this tenant's usage; another than one's own for operators."),
            query_parameter(
                "after_position",
                "A cursor: the answer waits, at most 10 s, until the view holds everything before it.",
            ),
            {
                "name": "x-emberlog-agent",
                "in": "header",
                "required": False,
                "description": "For a key with the scope agent alone: whose usage; the key's id if absent.",
                "schema": {"type": "string"},
            },
        ],
    )


def projections() -> Json:
    """`GET /api/v1/projections`."""
    return route(
        "listProjections",
        "Where each view of the log stands (operator)",
        {"200": answers_with("Every view.", "ProjectionsAnswer")},
        (400, 401, 403, 429, 500, 503),
        "reads",
        closed=True,
    )
