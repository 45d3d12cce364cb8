"""A connection to Vertex AI's prediction service. Importing this loads `google-cloud-aiplatform`: see `vertex`."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import Credentials
from google.cloud.aiplatform_v1.services.prediction_service import PredictionServiceAsyncClient, transports
from google.cloud.aiplatform_v1.types import PredictRequest, PredictResponse
from google.cloud.location.locations_pb2 import GetLocationRequest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

from adapters.providers.google_errors import google_error
from adapters.providers.google_tasks import task_of
from adapters.providers.vertex_answer import Prediction, read_answer
from adapters.providers.vertex_token import Token
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault

# At DEBUG the client logs each request with its texts, whatever logger an operator turns up.
logging.getLogger("google.cloud.aiplatform_v1.services.prediction_service").setLevel(logging.INFO)

_OPTIONS = [
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", -1),
    (
        "grpc.max_receive_message_length",
        64 << 20,
    ),  # 250 vectors of 3,072 numbers of 11 bytes are 8 MB; gRPC's own limit is 4
    # The dispatcher's breaker decides when to try again: a channel that waits two minutes by itself would be down for longer.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection that went dead without a word is noticed within 80 s while calls wait on it.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]

# What gRPC says of a connection of its own, where a server's UNAVAILABLE says something else.
_LINE = re.compile(
    r"failed to connect|socket closed|connection (?:reset|refused|aborted|closed)|recvmsg|sendmsg|broken pipe|stream removed|goaway|"
    r"endpoint closing|transport closed|keepalive|ping timeout|dns (?:resolution|query|server)|name resolution|handshake|channel closed|"
    r"rst_stream|tcp|ssl_error|end of (?:tcp )?stream",
    re.IGNORECASE,
)
_UNUSABLE = frozenset({"SERVICE_DISABLED", "BILLING_DISABLED", "CONSUMER_INVALID", "CONSUMER_SUSPENDED"})


class Link:
    """One channel with its client and its token. `location` is `projects/<project>/locations/<region>`."""

    def __init__(self, target: str, tls: bool, location: str, credentials: Credentials, max_concurrency: int) -> None:
        if tls:
            self._channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        transport = transports.PredictionServiceGrpcAsyncIOTransport(channel=self._channel, host=target)
        self._client = PredictionServiceAsyncClient(transport=transport)
        self._location = location
        self._token = Token(credentials)
        self._slots = asyncio.Semaphore(max_concurrency)
        self._closed = False

    async def warm_up(self) -> None:
        """Get a token. Raises `ProviderError`."""
        await self._token.metadata()

    async def predict(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once. Raises `ProviderError`."""
        truncate = call.config.get("auto_truncate") == "true"
        request = _request(call, f"{self._location}/publishers/google/models/{call.model}", truncate)
        async with self._slots:
            response = await self._send(request, call.timeout, len(call.texts))
        if response is None:  # what gRPC gives where it cannot read the message
            raise ProviderError(ProviderFault.BAD_ANSWER, "the message is not an embeddings answer", status=200)
        predictions: Sequence[Prediction] = PredictResponse.pb(response).predictions
        return read_answer(predictions, len(call.texts), call.dimensions, truncate)

    async def check(self, timeout: float) -> None:
        """Ask for the description of the location. Raises `ProviderError`.

        An answer that refuses this very question, for want of a permission that embedding needs none of, is a sign of life too.
        """
        error: ProviderError
        metadata = await self._token.metadata()
        try:
            self._must_be_open()
            request = GetLocationRequest(name=self._location)
            await self._client.get_location(request, retry=None, timeout=timeout, metadata=metadata)
            return
        except GoogleAPICallError as caught:
            error = _call_error(caught, 1)
            usable = _UNUSABLE.isdisjoint(_reasons(caught))
        if error.status not in (400, 403, 404, 501) or not usable:
            raise error

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        self._closed = True
        self._token.close()
        await self._channel.close()

    async def _send(self, request: PredictRequest, timeout: float, texts: int) -> PredictResponse | None:
        error: ProviderError
        metadata = await self._token.metadata()
        try:
            self._must_be_open()
            return await self._client.predict(request, retry=None, timeout=timeout, metadata=metadata)
        except GoogleAPICallError as caught:
            error = _call_error(caught, texts)
        raise error

    def _must_be_open(self) -> None:
        if self._closed:
            raise ProviderError(ProviderFault.CONNECTION, "this provider was closed during the call")


def _request(call: EmbedCall, model: str, truncate: bool) -> PredictRequest:
    # Into the protobuf message itself: through proto-plus each field costs ten times as much.
    message = PredictRequest.pb()(endpoint=model)
    task = task_of(call.input_type)
    unsendable = False
    try:
        for text in call.texts:
            fields = message.instances.add().struct_value.fields
            fields["content"].string_value = text
            fields["task_type"].string_value = task
    except UnicodeEncodeError:
        unsendable = True
    if unsendable:
        raise ProviderError(ProviderFault.REFUSED, "a text holds a lone surrogate and cannot be sent as UTF-8")
    parameters = message.parameters.struct_value.fields
    parameters["autoTruncate"].bool_value = truncate
    if call.dimensions is not None:
        parameters["outputDimensionality"].number_value = call.dimensions
    return PredictRequest.wrap(message)


def _call_error(caught: GoogleAPICallError, texts: int) -> ProviderError:
    code = caught.grpc_status_code
    said = caught.message if isinstance(caught.message, str) else ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ProviderError(ProviderFault.TIMEOUT, "no answer within the time that the call has", status=504)
    if code is grpc.StatusCode.UNAVAILABLE and _LINE.search(said):
        return ProviderError(ProviderFault.CONNECTION, "no connection, or it broke before the answer was whole")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in said:
        return ProviderError(ProviderFault.TOO_LARGE, "the answer is larger than 64 MiB: send fewer texts", status=200)
    delays = [
        detail.retry_delay.ToTimedelta().total_seconds() for detail in caught.details if isinstance(detail, RetryInfo)
    ]
    return google_error(
        500 if caught.code is None else int(caught.code),
        "" if code is None else code.name,
        said,
        _reasons(caught),
        texts=texts,
        retry_after=max(0.0, delays[0]) if delays else None,
    )


def _reasons(caught: GoogleAPICallError) -> list[str]:
    return [detail.reason for detail in caught.details if isinstance(detail, ErrorInfo)]
