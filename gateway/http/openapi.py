"""`/openapi.json`: OpenAPI 3.1 of every route, its schemas generated from the structs that the routes decode and encode."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from domain.errors import CODES
from gateway.http.answers import ErrorBody
from gateway.http.api import describe
from gateway.http.embeddings import EmbeddingsRequest
from gateway.http.events import EventsAnswer
from gateway.http.health import Health, Readiness
from gateway.http.models import ModelInfo, ModelList
from gateway.http.openapi_parts import ANSWER_HEADERS, Json, answers_with, header_of, header_refs, route
from gateway.http.openapi_reads import events, projections, usage
from gateway.http.projections import ProjectionsAnswer
from gateway.http.usage import UsageAnswer


class EmbeddingObject(msgspec.Struct, frozen=True):
    """One vector: a list of numbers, or base64 of little-endian float32 where `encoding_format` is base64."""

    object: str
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(msgspec.Struct, frozen=True):
    """Tokens of the whole input, cached or not."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(msgspec.Struct, frozen=True):
    """The answer of `POST /v1/embeddings`; `model` is the one that answered."""

    object: str
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingsUsage


class OpenApiRoute:
    """Serves the document; it is made once, when first asked for."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._body: bytes | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer with the document."""
        if self._body is None:
            self._body = msgspec.json.encode(document(self._version))
        await Response(self._body, media_type="application/json")(Request(scope).scope, receive, send)


def document(version: str) -> Json:
    """The OpenAPI document of this version of the gateway."""
    (_, components) = msgspec.json.schema_components(
        [
            EmbeddingsRequest,
            EmbeddingsAnswer,
            ModelList,
            ModelInfo,
            EventsAnswer,
            UsageAnswer,
            ProjectionsAnswer,
            Health,
            Readiness,
            ErrorBody,
            *describe.structs(),
        ],
        ref_template="#/components/schemas/{name}",
    )
    components["EmbeddingsRequest"]["properties"]["input"] = _input_schema()
    components["ErrorInfo"]["properties"]["code"]["enum"] = sorted(CODES)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Emberlog",
            "version": version,
            "description": "An event-sourced embedding gateway. Errors of every route have one shape; `code` says what to do.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": _paths(),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a JWT."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "headers": {name: header_of(text) for name, text in ANSWER_HEADERS.items()},
        },
    }


_EMBEDDING_HEADERS = tuple(
    f"x-emberlog-{name}"
    for name in ("space", "provider", "endpoint", "event", "replayed", "nano-usd", "failover", "notices")
)
_RATE_HEADERS = tuple(
    f"x-ratelimit-{name}-{unit}" for unit in ("requests", "tokens") for name in ("limit", "remaining", "reset")
)
_TRACE = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "description": "W3C trace context to go on with.",
    "schema": {"type": "string"},
}


def _paths() -> Json:
    return {
        "/v1/agent": {"get": _agent()},
        "/v1/embeddings": {"post": _embeddings()},
        "/v1/models": {
            "get": route(
                "listModels",
                "The models that are served",
                {"200": answers_with("Served models.", "ModelList")},
                (401,),
                "models",
            )
        },
        "/v1/models/{model}": {
            "get": route(
                "getModel",
                "One served model, by id or alias",
                {"200": answers_with("The model.", "ModelInfo")},
                (401, 404),
                "models",
                parameters=[{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
            )
        },
        "/api/v1/events": {"get": events()},
        "/api/v1/usage": {"get": usage()},
        "/api/v1/projections": {"get": projections()},
        **describe.paths(),
        "/healthz": {
            "get": route(
                "healthz",
                "Liveness",
                {"200": answers_with("The process answers.", "Health")},
                (),
                "operations",
                open_to_all=True,
            )
        },
        "/readyz": {
            "get": route(
                "readyz",
                "Readiness",
                {
                    "200": answers_with("Requests can be served.", "Readiness"),
                    "503": answers_with("Not now.", "Readiness"),
                },
                (),
                "operations",
                open_to_all=True,
            )
        },
        "/metrics": {
            "get": route(
                "metrics",
                "Prometheus metrics; needs an operator key unless asked over loopback",
                {"200": {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
                (401, 403),
                "operations",
            )
        },
        "/openapi.json": {
            "get": route(
                "openapi",
                "This document",
                {
                    "200": {
                        "description": "OpenAPI 3.1.",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    }
                },
                (),
                "operations",
                open_to_all=True,
            )
        },
    }


def _agent() -> Json:
    parameters = [
        {
            "name": "Sec-WebSocket-Protocol",
            "in": "header",
            "required": True,
            "description": "Must offer emberlog.v1.msgpack.",
            "schema": {"type": "string"},
        },
        _TRACE,
    ]
    answers: Json = {"101": {"description": "The session's connection: MessagePack maps in binary frames."}}
    operation = route(
        "agentSession",
        "Upgrade to an agent's WebSocket session",
        answers,
        (400, 401, 403, 426, 429, 503),
        "sessions",
        parameters=parameters,
    )
    # A browser cannot set headers: it sends its token in session.open.
    operation["security"] = [{"bearer": []}, {"apiKey": []}, {}]
    return operation


def _embeddings() -> Json:
    names: dict[str, tuple[str, Json]] = {
        "Idempotency-Key": (
            "The request's id, 1 to 64 characters. Without it a retry may be billed twice.",
            {"minLength": 1, "maxLength": 64},
        ),
        "x-emberlog-agent": ("Who asks; the key's id if absent.", {"minLength": 1, "maxLength": 128}),
        "x-emberlog-thread": (
            "Conversation or job id, for limits and usage grouping.",
            {"minLength": 1, "maxLength": 128},
        ),
        "x-emberlog-failover": (
            "Where the request may go when its model does not answer.",
            {"enum": ["same_space", "any", "none"]},
        ),
        "x-emberlog-deadline-ms": (
            "Milliseconds until the request is given up; 60000 if absent.",
            {"pattern": "^[0-9]+$"},
        ),
    }
    parameters = [
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string", **rules}}
        for name, (text, rules) in names.items()
    ]
    good = answers_with("The vectors, in the order of the input.", "EmbeddingsAnswer")
    good["headers"] = header_refs([*_EMBEDDING_HEADERS, *_RATE_HEADERS, "traceparent"])
    statuses = sorted({status for status, _ in CODES.values()} | {408, 413})
    operation = route(
        "createEmbeddings",
        "Embed texts: OpenAI's embeddings API",
        {"200": good},
        tuple(statuses),
        "embeddings",
        parameters=[*parameters, _TRACE],
    )
    operation["responses"]["429"]["headers"] |= header_refs([*_RATE_HEADERS])
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/EmbeddingsRequest"}}},
    }
    return operation


def _input_schema() -> Json:
    tokens = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
    return {
        "description": "One text, many texts, one text as tokens, or many. Tokens only where every candidate endpoint takes them.",
        "oneOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            tokens,
            {"type": "array", "items": tokens, "minItems": 1},
        ],
    }
