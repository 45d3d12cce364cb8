"""Voyage's embeddings API: fields, caps and error bodies as its documentation and those who met them have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.bench.connection import Answer, Request
from gateway.bench.faults import Fault
from gateway.bench.tokens import Counter
from gateway.bench.wire_api import Asked, Limits, Refused
from tests.support.http_api import JsonApi, Reading, body_of, counted, cut, data_of


class VoyageApi(JsonApi):
    models: Mapping[str, int] = {"voyage-4": 1024, "voyage-law-2": 1024}

    def error(self, status: int, message: str, code: str | None = None) -> dict[str, Any]:
        return {"detail": message} if code is None else {"detail": message, "error_code": code}

    def no_such_model(self, model: str) -> Refused:
        return self.refused(400, f"Model {model} is not supported.")

    def wrong_key(self) -> Answer:
        return self.refused(401, "Provided API key is invalid.").answer

    def read(self, request: Request, limits: Limits, count: Counter) -> Asked:
        fields = Reading(request, lambda detail: self.refused(400, detail))
        model = fields.text("model")
        texts = fields.texts("input")
        input_type = fields.maybe("input_type", str, "query", "document")
        truncation = fields.maybe("truncation", bool)
        dimensions = fields.maybe("output_dimension", int)
        form = fields.maybe("encoding_format", str, "base64")
        fields.maybe("output_dtype", str, "float")
        fields.end()
        size = self.size(model, dimensions, lambda n: model == "voyage-4" and n in (256, 512, 1024, 2048), fields)
        if len(texts) > limits.max_inputs:
            most = f"The batch size limit is {limits.max_inputs}. Your batch size is {len(texts)}."
            raise self.refused(400, most)
        if truncation is not False:
            texts = cut(texts, limits)
        counts, long, over = counted(texts, count, limits)
        failed = f"Request to model '{model}' failed."
        if long is not None:
            window = f"the model's context window of {limits.max_input_tokens} tokens"
            told = f"The example at index {long} in your batch has too many tokens and does not fit into {window}."
            raise self.refused(400, f"{failed} {told} Please lower the number of tokens or use truncation.")
        if over:
            most = f"The max allowed tokens per submitted batch is {limits.max_tokens}."
            told = (
                f"Your batch has {sum(counts)} tokens after truncation. Please lower the number of tokens in the batch."
            )
            raise self.refused(400, f"{failed} {most} {told}", "TOO_MANY_TOKENS_IN_BATCH")
        return Asked(texts, size, counts, input_type, form == "base64")

    def answer(self, asked: Asked, fault: Fault | None) -> Answer:
        told: dict[str, Any] = {"object": "list", "data": data_of(asked, fault, self.base64 and asked.request)}
        if fault is None or fault.kind != "no_usage":
            told["usage"] = {"total_tokens": sum(asked.counts)}
        return body_of(told, fault)
