"""Mistral's embeddings API: fields, caps and error bodies as its specification and those who met them have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.bench.connection import Answer, Request
from gateway.bench.faults import Fault
from gateway.bench.tokens import Counter
from gateway.bench.wire_api import Asked, Limits, Refused
from tests.support.http_api import JsonApi, Reading, body_of, counted, data_of


class MistralApi(JsonApi):
    models: Mapping[str, int] = {"codestral-embed": 1536, "mistral-embed": 1024}

    def error(self, status: int, message: str, code: str | None = None) -> dict[str, Any]:
        kind = "rate_limited" if status == 429 else "invalid_request_error"
        told = {"object": "error", "message": message, "type": kind, "param": None, "code": code}
        return {**told, "raw_status_code": status}

    def unprocessable(self, detail: str) -> Refused:
        told = {"detail": [{"type": "value_error", "loc": ["body"], "msg": detail, "input": "what was sent"}]}
        body = {"object": "error", "message": told, "type": "invalid_request_error", "param": None, "code": None}
        return Refused(Answer(422, msgspec.json.encode(body)))

    def no_such_model(self, model: str) -> Refused:
        return self.refused(400, f"Invalid model: {model}", "1500")

    def wrong_key(self) -> Answer:
        return Answer(401, b'{"detail":"Unauthorized"}')

    def read(self, request: Request, limits: Limits, count: Counter) -> Asked:
        fields = Reading(request, self.unprocessable)
        model = fields.text("model")
        texts = fields.texts("input")
        form = fields.maybe("encoding_format", str, "float", "base64")
        dimensions = fields.maybe("output_dimension", int)
        fields.end()
        size = self.size(model, dimensions, lambda n: model == "codestral-embed" and 1 <= n <= 3072, fields)
        if len(texts) > limits.max_inputs:
            raise self.refused(400, "Too many inputs in request, split into more batches.", "3210")
        counts, long, over = counted(texts, count, limits)
        if long is not None:
            told = f"has {counts[long]} tokens, exceeding max {limits.max_input_tokens} tokens."
            raise self.refused(400, f"Input id {long} {told}", "3210")
        if over:
            raise self.refused(400, "Too many tokens overall, split into more batches.", "3210")
        return Asked(texts, size, counts, None, form == "base64")

    def answer(self, asked: Asked, fault: Fault | None) -> Answer:
        data = data_of(asked, fault, self.base64 and asked.request)
        told: dict[str, Any] = {"id": "af12", "object": "list", "data": data, "model": "m"}
        if fault is None or fault.kind != "no_usage":
            tokens = sum(asked.counts)
            told["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
        return body_of(told, fault)

    def other(self, request: Request) -> Answer:
        if (request.method, request.target) == (b"GET", b"/v1/models"):
            listed = [{"id": name, "object": "model", "type": "base", "capabilities": {}} for name in self.models]
            return Answer(200, msgspec.json.encode({"object": "list", "data": listed}))
        return super().other(request)
