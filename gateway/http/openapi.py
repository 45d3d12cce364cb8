"""`/openapi.json`: OpenAPI 3.1 of every route, its schemas generated from the structs that the routes decode and encode."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from domain.errors import CODES
from gateway.http.answers import ErrorBody
from gateway.http.embeddings import EmbeddingsRequest
from gateway.http.health import Health, Readiness
from gateway.http.models import ModelInfo, ModelList

_Json = dict[str, Any]


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


def document(version: str) -> _Json:
    """The OpenAPI document of this version of the gateway."""
    (_, components) = msgspec.json.schema_components(
        [EmbeddingsRequest, EmbeddingsAnswer, ModelList, ModelInfo, Health, Readiness, ErrorBody],
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
            "headers": {name: _header(text) for name, text in _ANSWER_HEADERS.items()},
        },
    }


_ANSWER_HEADERS = {
    "x-emberlog-space": "The vector space of the answer; vectors compare only within one.",
    "x-emberlog-provider": "The provider that answered.",
    "x-emberlog-endpoint": "The configured endpoint that answered.",
    "x-emberlog-event": "The id of the outcome event.",
    "x-emberlog-replayed": "true when this repeats the outcome of an earlier request with the same Idempotency-Key.",
    "x-emberlog-nano-usd": "The charge in nano-dollars; absent when the price is unknown.",
    "x-emberlog-failover": "Absent, or a JSON object: from, to and reason of the switch.",
    "traceparent": "W3C trace context of this request.",
    "retry-after": "Seconds to wait before trying again.",
    "retry-after-ms": "Milliseconds to wait before trying again.",
    "x-should-retry": "Whether the same request may succeed later.",
    "www-authenticate": "The scheme to authenticate with.",
}
_ERROR_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "traceparent")
_TRACE = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "description": "W3C trace context to go on with.",
    "schema": {"type": "string"},
}


def _paths() -> _Json:
    return {
        "/v1/agent": {"get": _agent()},
        "/v1/embeddings": {"post": _embeddings()},
        "/v1/models": {
            "get": _operation(
                "listModels",
                "The models that are served",
                {"200": _answer("Served models.", "ModelList")},
                (401,),
                "models",
            )
        },
        "/v1/models/{model}": {
            "get": _operation(
                "getModel",
                "One served model, by id or alias",
                {"200": _answer("The model.", "ModelInfo")},
                (401, 404),
                "models",
                parameters=[{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
            )
        },
        "/healthz": {
            "get": _operation(
                "healthz",
                "Liveness",
                {"200": _answer("The process answers.", "Health")},
                (),
                "operations",
                open_to_all=True,
            )
        },
        "/readyz": {
            "get": _operation(
                "readyz",
                "Readiness",
                {"200": _answer("Requests can be served.", "Readiness"), "503": _answer("Not now.", "Readiness")},
                (),
                "operations",
                open_to_all=True,
            )
        },
        "/metrics": {
            "get": _operation(
                "metrics",
                "Prometheus metrics; needs an operator key unless asked over loopback",
                {"200": {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
                (401, 403),
                "operations",
            )
        },
        "/openapi.json": {
            "get": _operation(
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


def _agent() -> _Json:
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
    answers: _Json = {"101": {"description": "The session's connection: MessagePack maps in binary frames."}}
    operation = _operation(
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


def _embeddings() -> _Json:
    names: dict[str, tuple[str, _Json]] = {
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
    good = _answer("The vectors, in the order of the input.", "EmbeddingsAnswer")
    good["headers"] = _header_refs([n for n in _ANSWER_HEADERS if n.startswith("x-emberlog-")] + ["traceparent"])
    statuses = sorted({status for status, _ in CODES.values()} | {408, 413})
    operation = _operation(
        "createEmbeddings",
        "Embed texts: OpenAI's embeddings API",
        {"200": good},
        tuple(statuses),
        "embeddings",
        parameters=[*parameters, _TRACE],
    )
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/EmbeddingsRequest"}}},
    }
    return operation


def _operation(
    name: str,
    summary: str,
    answers: _Json,
    errors: tuple[int, ...],
    tag: str,
    *,
    parameters: list[_Json] | None = None,
    open_to_all: bool = False,
) -> _Json:
    operation: _Json = {"operationId": name, "summary": summary, "tags": [tag], "responses": {**answers}}
    for status in errors:
        codes = sorted(code for code, (s, _) in CODES.items() if s == status)
        answer = _answer(f"Error: {', '.join(codes) or 'invalid_request'}.", "ErrorBody")
        answer["headers"] = _header_refs(
            [*_ERROR_HEADERS, "www-authenticate"] if status == 401 else list(_ERROR_HEADERS)
        )
        operation["responses"][str(status)] = answer
    operation["responses"]["default"] = _answer("Any other error.", "ErrorBody")
    if parameters:
        operation["parameters"] = parameters
    if open_to_all:
        operation["security"] = []
    return operation


def _answer(description: str, schema: str) -> _Json:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _header(description: str) -> _Json:
    return {"description": description, "schema": {"type": "string"}}


def _header_refs(names: list[str]) -> _Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _input_schema() -> _Json:
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
