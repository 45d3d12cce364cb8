"""The servers that imitate OpenAI's embeddings API, each as far as it differs: what it answers, what it refuses and in which words.

Bodies are as the servers' sources or reports of their users have them; `unverified` says where neither was found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from domain.ports.provider import ProviderFault
from gateway.bench.connection import Answer, Request
from gateway.bench.embeddings_api import OpenAIApi, dimensions_of, parse, refused
from gateway.bench.faults import Fault
from gateway.bench.tokens import Counter
from gateway.bench.wire_api import Asked, Limits, Refused
from tests.conformance.http_rig import rows_of

Body = dict[str, Any] | str
Said = tuple[int, Body]
"""A status and a body; a string is sent as it is."""


@dataclass(frozen=True)
class Dialect:
    """One server's. `too_long` takes a text's index, its tokens and the most there may be; None: it cuts texts, or takes any.
    `too_large` takes the number of texts and the most there may be; None: any number is taken.
    """

    name: str
    too_long: Callable[[int, int, int], Said] | None = None
    too_long_index: bool = False
    too_large: Callable[[int, int], Said] | None = None
    base64: bool = True
    index: bool = True
    usage: Literal["prompt_tokens", "total_tokens", "zero", "none"] = "prompt_tokens"
    says: tuple[tuple[int, Body, ProviderFault], ...] = ()
    unverified: str = ""


class DialectApi(OpenAIApi):
    """The API of a server that speaks a dialect."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__({"served": 64}, base64=dialect.base64)
        self._dialect = dialect

    def read(self, request: Request, limits: Limits, count: Counter) -> Asked:
        parsed = parse(request.body)
        if not isinstance(parsed.input, list) or not all(isinstance(text, str) for text in parsed.input):
            raise refused(400, "expected a list of strings")
        texts = [text for text in parsed.input if isinstance(text, str)]
        dialect, counts = self._dialect, [count(text) for text in texts]
        if dialect.too_large is not None and len(texts) > limits.max_inputs:
            raise Refused(answer_of(dialect.too_large(len(texts), limits.max_inputs)))
        for index, tokens in enumerate(counts):
            if dialect.too_long is not None and tokens > limits.max_input_tokens:
                raise Refused(answer_of(dialect.too_long(index, tokens, limits.max_input_tokens)))
        return Asked(texts, dimensions_of(parsed, self.models), counts, None, parsed)

    def answer(self, asked: Asked, fault: Fault | None) -> Answer:
        if self._dialect.index and self._dialect.usage == "prompt_tokens":
            return super().answer(asked, fault)
        rows = [{"embedding": row.tolist()} for row in rows_of(asked, fault)[1]]
        data = [row | {"index": place} for place, row in enumerate(rows)] if self._dialect.index else rows
        total = sum(asked.counts)
        usage = {
            "zero": {"prompt_tokens": 0, "total_tokens": 0},
            "total_tokens": {"total_tokens": total},
            "prompt_tokens": {"prompt_tokens": total, "total_tokens": total},
        }.get(self._dialect.usage)
        return Answer(200, msgspec.json.encode({"data": data} | ({} if usage is None else {"usage": usage})))


def answer_of(said: Said) -> Answer:
    status, body = said
    if isinstance(body, str):
        return Answer(status, body.encode(), content_type=b"text/plain")
    return Answer(status, msgspec.json.encode(body))


def error(message: str, kind: str | None = None, code: Any = None, **more: Any) -> dict[str, Any]:
    """Nested, as OpenAI has it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


def flat(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"message": message, "type": kind, "code": code}


def fastapi(kind: str, where: list[str | int], message: str) -> dict[str, Any]:
    """FastAPI's, which repeats what was sent."""
    return {"detail": [{"type": kind, "loc": where, "msg": message, "input": "the patient's name is Ottilie Karmesin"}]}


def _vllm(tokens: int, most: int) -> str:
    return (
        f"This model's maximum context length is {most} tokens. However, you requested {tokens} tokens in the input for "
        "embedding generation. Please reduce the length of the input."
    )


def _physical_batch(tokens: int, most: int) -> str:
    return f"input ({tokens} tokens) is too large to process. increase the physical batch size (current batch size: {most})"


_SLOT = "request (2622 tokens) exceeds the available context size (512 tokens), try increasing it"

DIALECTS = (
    Dialect(
        "vLLM",
        too_long=lambda index, tokens, most: (400, error(_vllm(tokens, most), "BadRequestError", 400)),
        says=(
            (401, {"error": "Unauthorized"}, ProviderFault.AUTHENTICATION),
            (404, error("The model `x` does not exist.", "NotFoundError", 404), ProviderFault.NOT_SERVED),
            (500, error("EngineCore encountered an issue.", "InternalServerError", 500), ProviderFault.SERVER),
        ),
    ),
    Dialect(
        "vLLM before 0.10",
        too_long=lambda index, tokens, most: (
            400,
            {"object": "error", **flat(_vllm(tokens, most), "BadRequestError", 400), "param": None},
        ),
    ),
    Dialect(
        "text-embeddings-inference",
        too_long=lambda index, tokens, most: (
            413,
            flat(f"Input validation error: `inputs` must have less than {most} tokens. Given: {tokens}", "Validation", 413),
        ),
        too_large=lambda given, most: (413, flat(f"batch size {given} > maximum allowed batch size {most}", "Validation", 413)),
        says=(
            (422, flat("batch size 33 > maximum allowed batch size 32", "Validation", 422), ProviderFault.TOO_LARGE),
            (413, "Failed to buffer the request body: length limit exceeded", ProviderFault.TOO_LARGE),
            (429, flat("Model is overloaded", "Overloaded", 429), ProviderFault.RATE_LIMITED),
            (424, flat("Inference error: CUDA_ERROR_OUT_OF_MEMORY", "Backend", 424), ProviderFault.SERVER),
            (422, flat("Tokenization error", "Tokenizer", 422), ProviderFault.REFUSED),
            (400, flat("`input` cannot be empty", "Empty", 400), ProviderFault.REFUSED),
            (503, flat("unhealthy", "Unhealthy", 503), ProviderFault.SERVER),
        ),
    ),
    Dialect(
        "Infinity",
        too_long=lambda index, tokens, most: (
            422,
            fastapi("string_too_long", ["body", "input", "list[constr]", index], "String should have at most 122880 characters"),
        ),
        too_long_index=True,
        too_large=lambda given, most: (
            422,
            fastapi("too_long", ["body", "input"], f"List should have at most {most} items after validation, not {given}"),
        ),
        says=(
            (422, fastapi("missing", ["body", "model"], "Field required"), ProviderFault.REFUSED),
            (429, error("model overloaded", None, 429), ProviderFault.RATE_LIMITED),
            (500, error("InternalServerError: tensors", None, 500), ProviderFault.SERVER),
        ),
    ),
    Dialect(
        "Ollama",
        base64=False,
        too_long=lambda index, tokens, most: (400, error("the input length exceeds the context length", "invalid_request_error")),
        says=(
            (500, error("the input length exceeds the context length", "api_error"), ProviderFault.TOO_LONG),
            (400, error("input length exceeds maximum context length", "invalid_request_error"), ProviderFault.TOO_LONG),
            (
                400,
                {"error": '{"error":{"code":400,"message":"' + _SLOT + '","type":"exceed_context_size_error","n_ctx":512}}'},
                ProviderFault.TOO_LONG,
            ),
            (404, error('model "x" not found, try pulling it first', "api_error"), ProviderFault.NOT_SERVED),
            (503, error("server busy, please try again. maximum pending requests exceeded", "api_error"), ProviderFault.SERVER),
        ),
    ),
    Dialect(
        "llama.cpp",
        too_long=lambda index, tokens, most: (500, error(_physical_batch(tokens, most), "server_error", 500)),
        says=(
            (400, error(_SLOT, "exceed_context_size_error", 400, n_prompt_tokens=2622, n_ctx=512), ProviderFault.TOO_LONG),
            (500, error("input is larger than the max context size. skipping", "server_error", 500), ProviderFault.TOO_LONG),
            (503, error("Loading model", "unavailable_error", 503), ProviderFault.SERVER),
            (401, error("Invalid API Key", "authentication_error", 401), ProviderFault.AUTHENTICATION),
        ),
    ),
    Dialect(
        "LM Studio",
        base64=False,
        usage="zero",
        too_long=lambda index, tokens, most: (400, {"error": f"the input ({tokens} tokens) exceeds the context length {most}"}),
        says=((404, {"error": "Model not found"}, ProviderFault.NOT_SERVED),),
        unverified="its words for a text that is too long",
    ),
    Dialect(
        "OpenRouter",
        too_long=lambda index, tokens, most: (
            400,
            error(
                f"This model's maximum context length is {most} tokens, however you requested {tokens} tokens", None, 400,
                metadata={"provider_name": "OpenAI"},
            ),
        ),
        says=(
            (401, error("No auth credentials found", None, 401), ProviderFault.AUTHENTICATION),
            (402, error("Insufficient credits", None, 402), ProviderFault.AUTHENTICATION),
            (403, error("flagged", None, 403, metadata={"reasons": ["x"], "flagged_input": "Karmesin"}), ProviderFault.REFUSED),
            (429, error("Rate limit exceeded", None, 429), ProviderFault.RATE_LIMITED),
            (502, error("Provider returned error", None, 502), ProviderFault.SERVER),
            (200, error("Provider returned error", None, 502), ProviderFault.SERVER),
            (200, error("Rate limit exceeded", None, 429), ProviderFault.RATE_LIMITED),
        ),
    ),
    Dialect(
        "Groq",
        too_long=lambda index, tokens, most: (
            400, error("Please reduce the length of the messages", "invalid_request_error", "context_length_exceeded"),
        ),
        says=(
            (413, error("Request too large for model on tokens per minute (TPM)", "tokens", "rate_limit_exceeded"), ProviderFault.TOO_LARGE),
            (429, error("Rate limit reached for model", "tokens", "rate_limit_exceeded"), ProviderFault.RATE_LIMITED),
            (498, error("Flex tier capacity exceeded", None, None), ProviderFault.RATE_LIMITED),
        ),
        unverified="that it serves a model for embeddings at all",
    ),
    Dialect(
        "a server that says little",
        base64=False,
        index=False,
        usage="none",
        too_large=lambda given, most: (400, {"code": 20042, "message": f"input batch size {given} > maximum allowed batch size {most}", "data": None}),
        says=(
            (400, error("Value error, batch size is invalid, it should not be larger than 10.: input.contents", "InvalidParameter"), ProviderFault.TOO_LARGE),
            (429, "slow down", ProviderFault.RATE_LIMITED),
            (500, "", ProviderFault.SERVER),
            (400, "[]", ProviderFault.REFUSED),
            (413, "<html>413 Request Entity Too Large</html>", ProviderFault.TOO_LARGE),
            (200, {"data": None}, ProviderFault.BAD_ANSWER),
            (200, {"data": [{"embedding": [None, 1.0]}, {"embedding": [1.0, 1.0]}]}, ProviderFault.BAD_ANSWER),
        ),
    ),
    Dialect("a server that tells totals alone", usage="total_tokens"),
)  # fmt: skip
