"""Cohere's v2 embeddings API: fields, caps and error bodies as its documentation and those who met them have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.bench.connection import Answer, Request
from gateway.bench.faults import Fault
from gateway.bench.tokens import Counter
from gateway.bench.wire_api import Asked, Limits, Refused
from tests.conformance.http_rig import rows_of
from tests.support.http_api import JsonApi, Reading, as_text, body_of, counted, cut, numbers

SIZES = {"embed-v4.0": (256, 512, 1024, 1536), "embed-english-v3.0": ()}
INPUT_TYPES = ("search_document", "search_query", "classification", "clustering")


class CohereApi(JsonApi):
    path = "/v2/embed"
    models: Mapping[str, int] = {"embed-v4.0": 1536, "embed-english-v3.0": 1024}

    def error(self, status: int, message: str, code: str | None = None) -> dict[str, Any]:
        return {"id": "8b1f8b6e-6b9f-4f0a-9d0e-0c6a3f1c2d3e", "message": message}

    def no_such_model(self, model: str) -> Refused:
        told = "make sure the correct model ID was used and that you have access to the model."
        return self.refused(404, f"model '{model}' not found, {told}")

    def wrong_key(self) -> Answer:
        return self.refused(401, "invalid api token").answer

    def read(self, request: Request, limits: Limits, count: Counter) -> Asked:
        fields = Reading(request, lambda detail: self.refused(422, f"invalid request: {detail}"))
        model = fields.text("model")
        texts = fields.texts("texts")
        input_type = fields.text("input_type", *INPUT_TYPES)
        types = fields.texts("embedding_types")
        truncate = fields.maybe("truncate", str, "NONE", "START", "END") or "END"
        dimensions = fields.maybe("output_dimension", int)
        fields.end()
        if types not in (["float"], ["base64"]):
            fields.wrong("embedding_types: expected one of float and base64 here")
        size = self.size(model, dimensions, SIZES.get(model, ()).__contains__, fields)
        if len(texts) > limits.max_inputs:
            most = f"total number of texts must be at most {limits.max_inputs} - received {len(texts)}"
            raise self.refused(400, f"invalid request: {most}")
        if truncate != "NONE":
            texts = cut(texts, limits)
        counts, long, over = counted(texts, count, limits)
        if long is not None:
            told = f"cannot exceed {limits.max_input_tokens} - received {counts[long]}"
            raise self.refused(400, f"too many tokens: total number of tokens in the prompt {told}.")
        if over:
            told = f"size limit exceeded by {sum(counts) - limits.max_tokens} tokens"
            raise self.refused(400, f"too many tokens: {told}. Try using shorter or fewer inputs.")
        return Asked(texts, size, counts, input_type, types[0] if self.base64 else "float")

    def answer(self, asked: Asked, fault: Fault | None) -> Answer:
        _, rows = rows_of(asked, fault)
        kind = fault.kind if fault is not None else None
        form = "float" if kind == "float" else asked.request
        shown: list[Any] = [as_text(row) if form == "base64" else numbers(row) for row in rows]
        if kind == "bad_base64":
            shown[-1] = "not base64 at all!"
        meta: dict[str, Any] = {"api_version": {"version": "2"}}
        if kind != "no_usage":
            meta["billed_units"] = {"input_tokens": sum(asked.counts)}
        told = {"id": "1c0d", "embeddings": {form: shown}, "texts": list(asked.texts), "meta": meta}
        return body_of({**told, "response_type": "embeddings_by_type"}, fault)

    def other(self, request: Request) -> Answer:
        if request.method == b"GET" and request.target.partition(b"?")[0] == b"/v1/models":
            return Answer(200, msgspec.json.encode({"models": [{"name": name} for name in self.models]}))
        return super().other(request)
