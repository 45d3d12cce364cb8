"""Amazon Bedrock's runtime for the simulated server: InvokeModel of the embedding models, strict about bodies, with signatures checked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from gateway.bench.connection import Answer, Request
from gateway.bench.faults import Fault
from gateway.bench.tokens import Counter
from gateway.bench.wire_api import Asked, Limits, Refused, fault_headers
from tests.conformance.http_rig import rows_of
from tests.support.bedrock_sigv4 import Account, SignatureRefused, Signed, verify

REGION = "eu-west-1"

_ERROR_TYPES = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}


class Model(NamedTuple):
    """What a model takes. `sizes`: the default first; one alone cannot be asked for. `characters`: the most of a text, where it is limited."""

    family: str
    sizes: tuple[int, ...]
    characters: int | None = None


MODELS = {
    "amazon.titan-embed-text-v2:0": Model("titan", (1024, 512, 256), 50_000),
    "cohere.embed-english-v3": Model("cohere", (1024,), 2048),
    "cohere.embed-v4:0": Model("cohere", (1536, 1024, 512, 256)),
}
TRUNCATES = {False: {"NONE", "START", "END"}, True: {"NONE", "LEFT", "RIGHT"}}
"""The values of v3 (one size) and of v4."""


class BedrockApi:
    """Implements `WireApi`. Requests must be signed by `account`, or carry `api_key` as a bearer token where one is given.

    `refuse_lists`: the caller is known and may embed, and nothing else. `clock` gives the time by which signatures are judged.
    """

    def __init__(
        self,
        account: Account,
        *,
        api_key: str | None = None,
        refuse_lists: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.account = account
        self.api_key = api_key
        self.refuse_lists = refuse_lists
        self.requests: list[Signed] = []
        self.bodies: list[dict[str, Any]] = []
        self._clock = clock

    def embeds(self, target: bytes) -> bool:
        return target.startswith(b"/model/") and target.endswith(b"/invoke")

    def credential(self, request: Request) -> bytes:
        return b""  # a signature is no key to compare: `read` and `other` verify it

    def unauthorised(self) -> Answer:
        raise AssertionError("the server is to be run without a key")

    def read(self, request: Request, limits: Limits, count: Counter) -> Asked:
        self._authorise(request)
        if request.method != b"POST" or request.headers.get(b"content-type") != b"application/json":
            raise _malformed("The provided content type is invalid.")
        name = unquote(request.target.decode().removeprefix("/model/").removesuffix("/invoke"))
        model = MODELS.get(name.removeprefix("eu.").removeprefix("global."))
        if model is None:
            raise _malformed("The provided model identifier is invalid.")
        try:
            body = msgspec.json.decode(request.body, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise _malformed("Malformed input request, please reformat your input and try again.") from None
        self.bodies.append(body)
        return (_titan if model.family == "titan" else _cohere)(body, model, limits, count)

    def answer(self, asked: Asked, fault: Fault | None) -> Answer:
        kind = fault.kind if fault is not None else None
        _, vectors = rows_of(asked, fault)
        rows: list[Any] = [vector.tolist() for vector in vectors]
        if kind == "bad_base64":
            rows[-1] = "not numbers at all"
        tokens = sum(asked.counts)
        body: dict[str, Any]
        if asked.request == "titan":
            body = {"embedding": rows[0], "embeddingsByType": {"float": rows[0]}} if rows else {"embeddingsByType": {}}
            if kind != "no_usage":
                body["inputTextTokenCount"] = tokens
        elif asked.request == "cohere by type":
            body = {"id": "1", "texts": list(asked.texts), "embeddings": {"float": rows}}
            body["response_type"] = "embeddings_by_type"
        else:
            body = {"id": "1", "texts": list(asked.texts), "embeddings": rows, "response_type": "embeddings_floats"}
        content = msgspec.json.encode(body)
        if kind in ("nan", "infinity"):
            # JSON has neither; what a careless server writes for them, the encoder above has made null.
            content = content.replace(b"null", b"NaN" if kind == "nan" else b"Infinity")
        usage = b"" if kind == "no_usage" else b"X-Amzn-Bedrock-Input-Token-Count: %d\r\n" % tokens
        return Answer(200, content, b"x-amzn-RequestId: 5ca1ab1e\r\nX-Amzn-Bedrock-Invocation-Latency: 12\r\n" + usage)

    def fault_answer(self, fault: Fault) -> Answer:
        if fault.body is not None:
            return Answer(fault.status, fault.body.encode(), fault_headers(fault), b"text/html")
        code = fault.code or _ERROR_TYPES.get(fault.status)
        return error(fault.status, code, fault.message or "told to fail", fault_headers(fault))

    def other(self, request: Request) -> Answer:
        try:
            self._authorise(request)
        except Refused as refusal:
            return refusal.answer
        if not request.target.startswith(b"/async-invoke?") or request.method != b"GET":
            return error(404, "UnknownOperationException", "")
        if self.refuse_lists:
            return error(
                403,
                "AccessDeniedException",
                f"User: arn:aws:iam::123456789012:user/{self.account.key} is not authorized to perform: bedrock:ListAsyncInvokes",
            )
        return Answer(200, b'{"asyncInvokeSummaries":[]}')

    def _authorise(self, request: Request) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
        signed = Signed(request.method.decode(), request.target.decode(), headers, request.body)
        self.requests.append(signed)
        token = headers.get("authorization", "")
        if token.startswith("Bearer "):
            if self.api_key is None or token != f"Bearer {self.api_key}":
                raise Refused(
                    error(
                        403, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid."
                    )
                )
            return
        try:
            verify(signed, self.account, REGION, "bedrock", self._clock())
        except SignatureRefused as refusal:
            raise Refused(error(403, refusal.code, str(refusal))) from None


def error(status: int, code: str | None, message: str, headers: bytes = b"") -> Answer:
    """An error as AWS sends it."""
    if code is not None:
        headers += b"x-amzn-ErrorType: %b:http://internal.amazon.com/coral/com.amazon.bedrock/\r\n" % code.encode()
    return Answer(status, msgspec.json.encode({"message": message}), headers)


def _malformed(what: str) -> Refused:
    return Refused(error(400, "ValidationException", what))


def _schema(*faults: str) -> Refused:
    return _malformed(f"Malformed input request: {''.join(faults)}, please reformat your input and try again.")


def _check_keys(body: dict[str, Any], needed: set[str], allowed: set[str]) -> None:
    faults = [f"#: required key [{key}] not found" for key in sorted(needed - body.keys())]
    faults += [f"#: extraneous key [{key}] is not permitted" for key in sorted(body.keys() - needed - allowed)]
    if faults:
        raise _schema(*faults)


def _titan(body: dict[str, Any], model: Model, limits: Limits, count: Counter) -> Asked:
    _check_keys(body, {"inputText"}, {"dimensions", "normalize", "embeddingTypes"})
    text, size = body["inputText"], body.get("dimensions", model.sizes[0])
    if not isinstance(text, str) or not isinstance(body.get("normalize", True), bool):
        raise _schema("#/inputText: expected type: String, #/normalize: expected type: Boolean")
    if model.characters is not None and len(text) > model.characters:
        raise _schema(f"expected maxLength: {model.characters}, actual: {len(text)}")
    if size not in model.sizes:
        raise _schema(f"#/dimensions: {size} is not a valid enum value")
    tokens = count(text)
    if tokens > limits.max_input_tokens:
        raise _malformed(
            f"400 Bad Request: Too many input tokens. Max input tokens: {limits.max_input_tokens}, "
            f"request input token count: {tokens} "
        )
    return Asked([text], size, [tokens], None, "titan")


def _cohere(body: dict[str, Any], model: Model, limits: Limits, count: Counter) -> Asked:
    v4 = len(model.sizes) > 1
    _check_keys(
        body,
        {"texts", "input_type"},
        {"truncate", "embedding_types"} | ({"output_dimension", "max_tokens"} if v4 else set()),
    )
    texts, size = body["texts"], body.get("output_dimension", model.sizes[0])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _schema("#/texts: expected type: JSONArray")
    if len(texts) > limits.max_inputs:
        raise _schema(f"#/texts: expected maximum item count: {limits.max_inputs}, found: {len(texts)}")
    if body["input_type"] not in {"search_document", "search_query", "classification", "clustering"}:
        raise _schema("#/input_type: not a valid enum value")
    if body.get("truncate", "NONE") not in TRUNCATES[v4]:
        raise _schema("#/truncate: not a valid enum value")
    if size not in model.sizes or body.get("embedding_types", ["float"]) != ["float"]:
        raise _schema("#/output_dimension or #/embedding_types: not a valid enum value")
    long = [i for i, text in enumerate(texts) if model.characters is not None and len(text) > model.characters]
    if long:
        raise _schema(*(f"#/texts/{i}: expected maxLength: {model.characters}, actual: {len(texts[i])}" for i in long))
    counts = [count(text) for text in texts]
    if max(counts) > limits.max_input_tokens:
        raise _malformed("Input is too long for requested model.")
    form = "cohere by type" if "embedding_types" in body else "cohere"
    return Asked(texts, size, counts, body["input_type"], form)
