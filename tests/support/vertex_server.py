"""Vertex AI's prediction service as a real gRPC server with the real protobufs, strict about what it is sent, able to misbehave.

Vectors depend on the text alone (`vector_of`). It takes the tokens that one service account signs: RS256, scope and times are checked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import jwt
import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.aiplatform_v1.types import PredictRequest, PredictResponse
from google.cloud.location.locations_pb2 import GetLocationRequest, Location
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import ListValue, Value
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from numpy.typing import NDArray

from gateway.bench.faults import Fault, FaultPlan
from gateway.bench.simulator import Stats
from gateway.bench.vectors import vector_of

PROJECT = "ember-test"
REGION = "us-central1"
EMAIL = f"gateway@{PROJECT}.iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
MODELS = {"text-embedding-005": (768, 250), "gemini-embedding-001": (3072, 1)}
"""Each model's size and the most texts of a call (in us-central1)."""
MAX_TOKENS = 2048
MAX_CALL_TOKENS = 20_000
TASKS = ("RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "CLASSIFICATION", "CLUSTERING")

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_DROPPED = ("drop", "reset")


class Account:
    """A service account with its key."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.public = self._key.public_key()

    def json(self, **fields: str) -> str:
        """The file that Google gives for its key."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        known = {
            "type": "service_account", "project_id": PROJECT, "private_key_id": "0123456789abcdef", "private_key": pem.decode(),
            "client_email": EMAIL, "client_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
        }  # fmt: skip
        return json.dumps(known | fields)

    def sign(self, claims: dict[str, Any]) -> str:
        """A token of the account's that says this."""
        return jwt.encode(claims, self._key, algorithm="RS256")


class Refusal(Exception):
    """A call is answered with this status."""

    def __init__(self, code: grpc.StatusCode, message: str, details: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class VertexServer:
    """The service on a local port, with TLS by the files of a certificate and its key. `token` is taken beside what the account signs."""

    def __init__(self, account: Account, *, tls: tuple[Path, Path] | None = None) -> None:
        self.account = account
        self.token: str | None = None
        self._tls = tls
        self.stats = Stats()
        self.faults = FaultPlan()
        self.metadata: dict[str, str] = {}
        self.request: dict[str, Any] = {}
        self.port = 0
        self.cut: Callable[[str], None] | None = None
        """What breaks the line (`drop`: at once, `reset`: within the answer): a proxy before this server knows how."""
        self.location_error: Refusal | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._changed = asyncio.Condition()
        self._peers: set[str] = set()

    async def __aenter__(self) -> VertexServer:
        self._server = grpc.aio.server()
        unary = grpc.unary_unary_rpc_method_handler
        handlers = {
            "google.cloud.aiplatform.v1.PredictionService": {
                "Predict": unary(self._predict, PredictRequest.pb().FromString)
            },
            "google.cloud.location.Locations": {
                "GetLocation": unary(self._get_location, GetLocationRequest.FromString, Location.SerializeToString)
            },
        }
        self._server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(service, methods) for service, methods in handlers.items())
        )
        if self._tls is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            chain, key = (file.read_bytes() for file in self._tls)
            self.port = self._server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._flowing.set()
        await self._server.stop(0)

    def hold(self, on: bool) -> None:
        """Keep answers back, or let them go."""
        if on:
            self._flowing.clear()
        else:
            self._flowing.set()

    async def until(self, holds: Callable[[Stats], bool]) -> None:
        """Returns when this holds of the statistics."""
        async with self._changed:
            await self._changed.wait_for(lambda: holds(self.stats))

    async def _predict(self, request: Any, context: Any) -> bytes:
        stats = self.stats
        stats.calls += 1
        stats.in_flight += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        self._peers.add(context.peer())
        stats.connections = len(self._peers)
        await self._tell()
        try:
            return await self._answer(request, context)
        except Refusal as refusal:
            await _abort(context, refusal)
            raise AssertionError("abort raises") from None
        except asyncio.CancelledError:
            stats.abandoned += 1
            raise
        finally:
            stats.in_flight -= 1
            await asyncio.shield(self._tell())

    async def _answer(self, request: Any, context: Any) -> bytes:
        self._authorise(context)
        self.request = MessageToDict(request)
        texts, size, truncate = _read(request)
        fault = self.faults.take(texts)
        kind = fault.kind if fault is not None else None
        if fault is not None and kind == "status":
            raise _refusal(fault)
        if kind == "hang":
            await asyncio.Event().wait()
        await self._flowing.wait()
        if kind in _DROPPED:
            assert self.cut is not None, "put a proxy before the server"
            self.cut(str(kind))
        raw: bytes = PredictResponse.pb().SerializeToString(_response(texts, size, truncate, fault))
        if kind == "truncated":
            return raw[: len(raw) // 2]
        if kind == "html":
            return b"<html>502 Bad Gateway</html>"
        return raw

    async def _get_location(self, request: Any, context: Any) -> Any:
        try:
            self._authorise(context)
            if self.location_error is not None:
                raise self.location_error
            if request.name != f"projects/{PROJECT}/locations/{REGION}":
                raise Refusal(CODES[404], "no such location")
        except Refusal as refusal:
            await _abort(context, refusal)
        return Location(name=request.name, location_id=REGION)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _authorise(self, context: Any) -> None:
        self.metadata = {name: str(value) for name, value in context.invocation_metadata()}
        scheme, _, token = self.metadata.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            raise Refusal(CODES[401], "Request is missing required authentication credential.")
        if self.token is not None and token == self.token:
            return
        try:
            claims = jwt.decode(
                token,
                self.account.public,
                algorithms=["RS256"],
                options={"require": ["exp", "iat"], "verify_aud": False},
            )
        except jwt.InvalidTokenError:
            raise Refusal(CODES[401], f"Request had invalid authentication credentials {token}.") from None
        if not (
            claims["iss"] == claims["sub"] == EMAIL
            and claims["scope"] == SCOPE
            and claims["exp"] - claims["iat"] <= 3600
        ):
            raise Refusal(CODES[401], "Request had insufficient authentication scopes.")


def _read(request: Any) -> tuple[list[str], int, bool]:
    """Texts, size and whether to truncate. Refuses a field it does not know, as the service does."""
    prefix = f"projects/{PROJECT}/locations/{REGION}/publishers/google/models/"
    model = request.endpoint.removeprefix(prefix)
    if not request.endpoint.startswith(prefix) or model not in MODELS:
        raise Refusal(CODES[404], f"Publisher Model `{request.endpoint}` was not found.")
    size, most = MODELS[model]
    parameters = MessageToDict(request.parameters)
    instances = [MessageToDict(instance) for instance in request.instances]
    if not parameters.keys() <= {"autoTruncate", "outputDimensionality"} or not all(
        instance.keys() == {"content", "task_type"} and instance["content"] and instance["task_type"] in TASKS
        for instance in instances
    ):
        raise Refusal(CODES[400], "Invalid instances or parameters.")
    if len(instances) > most:
        raise Refusal(CODES[400], f"{most} instance(s) is allowed per prediction. Actual: {len(instances)}")
    size = int(parameters.get("outputDimensionality", size))
    truncate = bool(parameters.get("autoTruncate", True))
    texts = [instance["content"] for instance in instances]
    counts = [count_tokens(text) for text in texts]
    for count, limit in ((max(counts), MAX_TOKENS), (sum(counts), MAX_CALL_TOKENS)):
        if count > limit and not (truncate and limit == MAX_TOKENS):
            raise Refusal(
                CODES[400],
                f"Unable to submit request because the input token count is {count} but the model supports up to {limit}. "
                "Reduce the input token count and try again.",
            )
    return texts, size, truncate


def count_tokens(text: str) -> int:
    """What the server counts for a text."""
    return len(text.split())


def list_value(vector: NDArray[np.float64]) -> ListValue:
    """The numbers as the service sends them."""
    row = np.empty(len(vector), dtype=[("head", "V3"), ("number", "<f8")])
    row["head"] = np.void(b"\x0a\x09\x11")
    row["number"] = vector
    return ListValue.FromString(row.tobytes())


def _response(texts: list[str], size: int, truncate: bool, fault: Fault | None) -> Any:
    kind = fault.kind if fault is not None else None
    message = PredictResponse.pb()()
    given = texts[:-1] if kind == "wrong_count" else [*texts, texts[-1]] if kind == "too_many" else texts
    for index, text in enumerate(given):
        last = index == len(given) - 1
        short = kind == "wrong_dimensions" or (kind == "ragged" and last)
        vector = vector_of(text, size).astype(np.float64)[: size - short]
        if last and kind in ("nan", "infinity"):
            vector[-1] = np.nan if kind == "nan" else 1e300  # what float32 cannot hold
        fields = message.predictions.add().struct_value.fields["embeddings"].struct_value.fields
        fields["values"].list_value.CopyFrom(list_value(vector))
        if last and kind == "bad_base64":
            fields["values"].list_value.values[-1].CopyFrom(Value(string_value="0.5 not"))
        if kind != "no_usage":
            statistics = fields["statistics"].struct_value.fields
            statistics["token_count"].number_value = min(count_tokens(text), MAX_TOKENS)
            statistics["truncated"].bool_value = count_tokens(text) > MAX_TOKENS or text.startswith("cut anyway")
    message.metadata.struct_value.fields["billableCharacterCount"].number_value = sum(map(len, texts))
    return message


def _refusal(fault: Fault) -> Refusal:
    details: list[Any] = []
    if fault.retry_after is not None:
        seconds = float(fault.retry_after)
        details.append(RetryInfo(retry_delay=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))))
    if fault.code is not None:
        details.append(ErrorInfo(reason=fault.code, domain="googleapis.com", metadata={"consumer": "projects/1"}))
    code = grpc.StatusCode[fault.type] if fault.type is not None else CODES[fault.status]
    return Refusal(code, fault.body or fault.message or "The simulated service was told to fail.", details)


async def _abort(context: Any, refusal: Refusal) -> None:
    packed = []
    for detail in refusal.details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    status = Status(code=refusal.code.value[0], message=refusal.message, details=packed)
    await context.abort_with_status(rpc_status.to_status(status))
