"""Jina's embeddings API: fields, caps and error bodies as its documentation and those who met them have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.bench.connection import Answer, Request
from gateway.bench.faults import Fault
from gateway.bench.tokens import Counter
from gateway.bench.wire_api import Asked, Limits, Refused
from tests.support.http_api import JsonApi, Reading, body_of, counted, cut, data_of

TASKS = {
    "jina-embeddings-v3": ("retrieval.query", "retrieval.passage", "text-matching", "classification", "separation"),
    "jina-embeddings-v4": ("retrieval.query", "retrieval.passage", "text-matching", "code.query", "code.passage"),
    "jina-embeddings-v2-base-en": ("none is known",),
}


class JinaApi(JsonApi):
    models: Mapping[str, int] = {
        "jina-embeddings-v3": 1024,
        "jina-embeddings-v4": 2048,
        "jina-embeddings-v2-base-en": 768,
    }

    def error(self, status: int, message: str, code: str | None = None) -> dict[str, Any]:
        if code is not None:
            return {"detail": {"message": message, "request_id": "r", "code": code}}
        return {"detail": f"[RID: ec422fa8b74c3c20b493406ac1388555] {message}"}

    def no_such_model(self, model: str) -> Refused:
        return self.refused(422, f"Validation error: 'body' no model {model}")

    def wrong_key(self) -> Answer:
        return self.refused(401, "Failed to authenticate with the provided api key.").answer

    def read(self, request: Request, limits: Limits, count: Counter) -> Asked:
        fields = Reading(request, lambda detail: self.refused(422, f"Validation error: 'body' {detail}"))
        model = fields.text("model")
        if model not in self.models:
            raise self.no_such_model(model)
        texts = fields.texts("input")
        form = fields.maybe("embedding_type", str, "float", "base64")
        truncate = fields.maybe("truncate", bool)
        task = fields.maybe("task", str, *TASKS[model])
        dimensions = fields.maybe("dimensions", int)
        normalized = fields.maybe("normalized", bool) if model == "jina-embeddings-v3" else None
        fields.end()
        size = self.size(model, dimensions, lambda n: 1 <= n <= self.models[model], fields)
        if len(texts) > limits.max_inputs:
            told = f"Each input list can contain at most {limits.max_inputs} items.. Field errors: : Invalid value"
            raise self.refused(400, f"Validation error: 'body -> {model}' {told}")
        if truncate:
            texts = cut(texts, limits)
        counts, long, over = counted(texts, count, limits)
        if long is not None:
            told = f"Input text exceeds the model's maximum of {limits.max_input_tokens} tokens."
            raise self.refused(400, f"{told} Use 'truncate: true' or split it.", "INPUT_TOKEN_LIMIT_EXCEEDED")
        if over:
            raise self.refused(400, "Batch size exceeds the limit")
        return Asked(texts, size, counts, task, (form == "base64", normalized))

    def answer(self, asked: Asked, fault: Fault | None) -> Answer:
        told: dict[str, Any] = {"model": "m", "object": "list"}
        told["data"] = data_of(asked, fault, self.base64 and asked.request[0])
        if fault is None or fault.kind != "no_usage":
            told["usage"] = {"total_tokens": sum(asked.counts), "prompt_tokens": 0}
        return body_of(told, fault)
