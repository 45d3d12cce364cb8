"""OpenAI's embeddings API: what the simulator answers to a request, faults included."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pybase64
from numpy.typing import NDArray

from gateway.bench.connection import Answer, Request
from gateway.bench.faults import Fault
from gateway.bench.tokens import Counter, bytes_of_tokens
from gateway.bench.vectors import VectorTable, table_of
from gateway.bench.wire_api import Asked, Limits, Refused, fault_headers

MODELS: dict[str, int] = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
"""OpenAI's embedding models and their default sizes (https://platform.openai.com/docs/guides/embeddings)."""


class EmbeddingsRequest(msgspec.Struct, gc=False):
    """The body of `POST /v1/embeddings`. Fields that the simulator has no use for are ignored."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str = "float"
    dimensions: int | None = None


def refused(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> Refused:
    """To be raised: the request is answered with an error as OpenAI sends it."""
    return Refused(error_answer(status, message, kind=kind, code=code, param=param))


def error_answer(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
    headers: bytes = b"",
) -> Answer:
    """An error body as OpenAI sends it."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return Answer(status, msgspec.json.encode({"error": error}), headers)


_decode = msgspec.json.Decoder(EmbeddingsRequest).decode


def parse(body: bytes) -> EmbeddingsRequest:
    """The request in a body; raises `Refused` (400) for what is no such request."""
    try:
        return _decode(body)
    except msgspec.MsgspecError as error:
        raise refused(400, f"We could not parse the JSON body of your request: {error}") from None


def texts_of(request: EmbeddingsRequest, limits: Limits) -> list[str] | list[list[int]]:
    """The inputs as a list of strings or of token arrays. Raises `Refused` for empty, mixed or too many inputs."""
    given = request.input
    if isinstance(given, str):
        given = [given]
    if given and all(type(item) is int for item in given):
        given = [given]  # type: ignore[list-item]  # checked the line above: one token array
    if len(given) > limits.max_inputs:
        raise refused(
            400,
            f"Invalid 'input': array too long. Expected an array with maximum length {limits.max_inputs}, "
            f"but got an array with length {len(given)} instead.",
            code="array_above_max_length",
            param="input",
        )
    kind = type(given[0]) if given else None
    if kind not in (str, list) or any(type(item) is not kind for item in given) or not all(given):
        raise refused(400, "'$.input' is invalid. Please check the API reference.", param="input")
    return given  # type: ignore[return-value]  # all strings or all lists, checked above


def count_tokens(texts: Sequence[str | list[int]], count: Counter, limits: Limits) -> list[int]:
    """The tokens of each text. Raises `Refused` naming the first input over the model's limit, or the call's limit."""
    counts = [count(text) if isinstance(text, str) else len(text) for text in texts]
    for index, tokens in enumerate(counts):
        if tokens > limits.max_input_tokens:
            raise refused(400, f"Invalid 'input[{index}]': maximum context length is {limits.max_input_tokens} tokens.")
    total = sum(counts)
    if total > limits.max_tokens:
        raise refused(
            400,
            f"Requested {total} tokens, max {limits.max_tokens} tokens per request",
            kind="max_tokens_per_request",
            code="max_tokens_per_request",
        )
    return counts


def dimensions_of(request: EmbeddingsRequest, models: dict[str, int]) -> int:
    """The size of the vectors asked for. Raises `Refused` for an unknown model or a size that the model cannot give."""
    default = models.get(request.model)
    if default is None:
        raise refused(
            404, f"The model `{request.model}` does not exist or you do not have access to it.", code="model_not_found"
        )
    if request.dimensions is None:
        return default
    if not 1 <= request.dimensions <= default:
        raise refused(400, f"Invalid value for 'dimensions': must be between 1 and {default}.", param="dimensions")
    return request.dimensions


def embed(
    request: EmbeddingsRequest, texts: Sequence[str | list[int]], dimensions: int, tokens: int, fault: Fault | None
) -> Answer:
    """The answer with a vector for each text, spoilt as `fault` says."""
    kind = fault.kind if fault is not None else None
    as_base64 = request.encoding_format == "base64" and kind != "float"
    render = _quoted if as_base64 else _listed
    table = table_of(max(1, dimensions - 1) if kind == "wrong_dimensions" else dimensions)
    texts_seen = [f"another model's {text}" for text in texts] if kind == "drifted" else texts
    rows = [render(table, text if isinstance(text, str) else bytes_of_tokens(text)) for text in texts_seen]
    indices = list(range(len(rows)))
    if kind is not None:
        last = texts[-1] if isinstance(texts[-1], str) else bytes_of_tokens(texts[-1])
        _spoil(kind, rows, indices, last, dimensions, render)
    # One join of all the pieces: each copy of an answer of half a megabyte costs more than all its hashes.
    pieces = [b'{"object":"list","data":[']
    for place, row in zip(indices, rows, strict=True):
        pieces.append(b'{"object":"embedding","index":%d,"embedding":' % place)
        pieces += row
        pieces.append(b"},")
    if rows:
        pieces[-1] = b"}"
    usage = b"" if kind == "no_usage" else b',"usage":{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
    pieces.append(b'],"model":%b%b}' % (msgspec.json.encode(request.model), usage))
    return Answer(200, b"".join(pieces))


def fault_answer(fault: Fault) -> Answer:
    """The answer of a `status` fault."""
    headers = fault_headers(fault)
    if fault.body is not None:
        return Answer(fault.status, fault.body.encode(), headers, b"text/html")
    message = fault.message or f"The simulated provider was told to answer {fault.status}."
    kind = fault.type or ("server_error" if fault.status >= 500 else "invalid_request_error")
    return error_answer(fault.status, message, kind=kind, code=fault.code, param=fault.param, headers=headers)


class OpenAIApi:
    """OpenAI's API as the simulator serves it. `base64` false answers lists of numbers whatever is asked."""

    def __init__(self, models: dict[str, int] | None = None, *, base64: bool = True) -> None:
        self.models = MODELS if models is None else models
        self.base64 = base64

    def embeds(self, target: bytes) -> bool:
        """See `WireApi`."""
        return target.startswith(b"/v1/embeddings")

    def credential(self, request: Request) -> bytes:
        """See `WireApi`."""
        return request.headers.get(b"authorization", b"").removeprefix(b"Bearer ")

    def unauthorised(self) -> Answer:
        """See `WireApi`."""
        return error_answer(401, "Incorrect API key provided.", code="invalid_api_key")

    def read(self, request: Request, limits: Limits, count: Counter) -> Asked:
        """See `WireApi`."""
        parsed = parse(request.body)
        texts = texts_of(parsed, limits)
        dimensions = dimensions_of(parsed, self.models)
        return Asked(texts, dimensions, count_tokens(texts, count, limits), None, parsed)

    def answer(self, asked: Asked, fault: Fault | None) -> Answer:
        """See `WireApi`."""
        if not self.base64:
            asked.request.encoding_format = "float"
        return embed(asked.request, asked.texts, asked.dimensions, sum(asked.counts), fault)

    def fault_answer(self, fault: Fault) -> Answer:
        """See `WireApi`."""
        return fault_answer(fault)

    def other(self, request: Request) -> Answer:
        """The list of models."""
        if request.target != b"/v1/models":
            return error_answer(404, f"Invalid URL ({request.target.decode('latin-1')})")
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "simulator"} for name in self.models]
        return Answer(200, msgspec.json.encode({"object": "list", "data": models}))


def _quoted(table: VectorTable, text: str | bytes) -> list[bytes]:
    return [b'"', *table.base64(text), b'"']


def _listed(table: VectorTable, text: str | bytes) -> list[bytes]:
    return [table.json(text)]


def _spoil(
    kind: str,
    rows: list[list[bytes]],
    indices: list[int],
    last: str | bytes,
    dimensions: int,
    render: Callable[[VectorTable, str | bytes], list[bytes]],
) -> None:
    if kind == "wrong_count":
        rows.pop()
        indices.pop()
    elif kind == "too_many":
        rows.append(rows[-1])
        indices.append(len(indices))
    elif kind == "shuffled":
        rows.reverse()
        indices.reverse()
    elif kind == "same_index":
        indices[:] = [0] * len(indices)
    elif kind == "ragged":
        rows[-1] = render(table_of(max(1, dimensions - 1)), last)
    elif kind == "bad_base64":
        rows[-1] = [b'"not base64 at all!"']
    elif kind in ("nan", "infinity"):
        vector = table_of(dimensions).vector(last)
        vector[-1] = np.nan if kind == "nan" else np.inf
        rows[-1] = _not_finite(vector, render is _quoted)


def _not_finite(vector: NDArray[np.float32], as_base64: bool) -> list[bytes]:
    if as_base64:
        return [b'"', pybase64.b64encode(vector.astype("<f4").tobytes()), b'"']
    # Python's own encoder writes NaN and Infinity, which are no JSON; so do servers that use it.
    return [json.dumps(vector.tolist()).encode()]
