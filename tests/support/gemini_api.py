"""The Gemini API's embeddings: fields, caps and error bodies as its reference, its SDK and those who met them have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.bench.connection import Answer, Request
from gateway.bench.faults import Fault
from gateway.bench.tokens import Counter
from gateway.bench.wire_api import Asked, Limits
from tests.conformance.http_rig import rows_of
from tests.support.http_api import JsonApi, Reading, body_of, counted, numbers

_TARGET = re.compile(rb"/v1beta/models/([a-z0-9.-]+):batchEmbedContents")
_NAMES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ABORTED",
    429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 501: "UNIMPLEMENTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_TASKS = ("RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "CLASSIFICATION", "CLUSTERING")


class GeminiApi(JsonApi):
    models: Mapping[str, int] = {"gemini-embedding-001": 3072}

    def embeds(self, target: bytes) -> bool:
        return _TARGET.fullmatch(target) is not None

    def credential(self, request: Request) -> bytes:
        return request.headers.get(b"x-goog-api-key", b"")

    def error(self, status: int, message: str, code: str | None = None) -> dict[str, Any]:
        told: dict[str, Any] = {"code": status, "message": message, "status": _NAMES.get(status, "UNKNOWN")}
        if code is not None:
            told["details"] = [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": code,
                    "domain": "googleapis.com",
                    "metadata": {},
                }
            ]
        return {"error": told}

    def wrong_key(self) -> Answer:
        message = "API key not valid. Please pass a valid API key."
        return Answer(400, msgspec.json.encode(self.error(400, message, "API_KEY_INVALID")))

    def fault_answer(self, fault: Fault) -> Answer:
        answer = super().fault_answer(fault)
        if fault.retry_after is None or fault.body is not None:
            return answer
        body = msgspec.json.decode(answer.body)  # told in the body, and in no header
        body["error"].setdefault("details", []).append(
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{fault.retry_after}s"}
        )
        return Answer(answer.status, msgspec.json.encode(body))

    def read(self, request: Request, limits: Limits, count: Counter) -> Asked:
        found = _TARGET.fullmatch(request.target)
        assert found is not None
        name = found[1].decode()
        if name not in self.models:
            raise self.refused(404, f"models/{name} is not found for API version v1beta")
        fields = Reading(request, lambda detail: self.refused(400, f"Invalid JSON payload received. {detail}"))
        listed = fields.maybe("requests", list)
        fields.end()
        if not listed or len(listed) > limits.max_inputs:
            most = f"at most {limits.max_inputs} requests can be in one batch"
            raise self.refused(400, f"* BatchEmbedContentsRequest.requests: {most}\n")
        texts, told = [], set()
        for item in listed:
            text, task, size = self._one(item, f"models/{name}", self.models[name])
            texts.append(text)
            told.add((task, size))
        if len(told) > 1:
            raise self.refused(400, "this server takes one task and size a batch")
        counts, long, over = counted(texts, count, limits)
        if long is not None:
            raise self.refused(
                400, f"The input token count ({counts[long]}) exceeds the maximum number of tokens allowed (2048)."
            )
        if over:
            raise self.refused(400, "Request payload size exceeds the limit: 4194304 bytes.")
        ((task, size),) = told
        return Asked(texts, size, counts, task)

    def _one(self, item: Any, model: str, default: int) -> tuple[str, str, int]:
        match item:
            case {
                "model": named,
                "content": {"parts": [{"text": str(text), **part}], **content},
                "taskType": task,
                **rest,
            }:
                size = rest.pop("outputDimensionality", default)
                strange = part or content or rest
                if (
                    named == model
                    and not strange
                    and text
                    and task in _TASKS
                    and type(size) is int
                    and 1 <= size <= default
                ):
                    return text, task, size
        raise self.refused(400, "Invalid JSON payload received.")

    def answer(self, asked: Asked, fault: Fault | None) -> Answer:
        _, rows = rows_of(asked, fault)
        shown: list[Any] = [{"values": numbers(row)} for row in rows]
        if fault is not None and fault.kind == "bad_base64":
            shown[-1]["values"][-1] = "not a number"
        told: dict[str, Any] = {"embeddings": shown}
        if fault is None or fault.kind != "no_usage":
            told["usageMetadata"] = {"promptTokenCount": sum(asked.counts)}
        return body_of(told, fault)

    def other(self, request: Request) -> Answer:
        if (request.method, request.target.partition(b"?")[0]) == (b"GET", b"/v1beta/models"):
            return Answer(200, msgspec.json.encode({"models": [{"name": f"models/{name}"} for name in self.models]}))
        return super().other(request)
