"""Whether a request may enter, and on what terms: limits, model, endpoint. Nothing is logged or spent here."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from domain.catalogue import Candidate
from domain.errors import GatewayError, invalid_request
from domain.ports.provider import Text
from domain.selection import Question
from domain.tenancy import Principal
from gateway.wire import checks
from gateway.wire.messages import EmbeddingGenerate, Limits

DEFAULT_DEADLINE_MS = 60_000
MAX_DEADLINE_MS = 3_600_000
_ROW_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "ubinary": 0.125}
_ENVELOPE_BYTES = 4096

_options = msgspec.msgpack.Encoder()


def check_texts(texts: Sequence[Text], limits: Limits) -> None:
    """Raise `invalid_request` for no texts, too many, an empty one, or one of too many characters, naming the index."""
    if not texts:
        raise invalid_request("input is an empty list: send at least one text", "input")
    if len(texts) > limits.max_inputs:
        raise invalid_request(
            f"input has {len(texts)} texts; one request takes at most {limits.max_inputs}: split it",
            "input",
            limits.max_inputs,
        )
    for index, text in enumerate(texts):
        if not text:
            raise invalid_request(f"input {index} is empty: every text needs at least one character", "input", index)
        if len(text) > limits.max_input_chars:
            raise invalid_request(
                f"input {index} has {len(text)} characters; a text takes at most {limits.max_input_chars}",
                "input",
                index,
            )


def deadline_seconds(message: EmbeddingGenerate) -> float:
    """How long the asker waits. Raises `invalid_request` for a deadline that is not positive or over an hour."""
    wanted = DEFAULT_DEADLINE_MS if message.deadline_ms is None else message.deadline_ms
    if not 0 < wanted <= MAX_DEADLINE_MS:
        raise invalid_request(f"deadline_ms is {wanted}: expected 1 to {MAX_DEADLINE_MS}", "deadline_ms")
    return wanted / 1000


def metadata_bytes(message: EmbeddingGenerate) -> bytes | None:
    """The free metadata as JSON. Raises `invalid_request` over 2 KiB of strings."""
    if not message.metadata:
        return None
    checks.metadata(message.metadata)
    return msgspec.json.encode(message.metadata)


def body_options(message: EmbeddingGenerate) -> bytes:
    """What of the body, besides the texts, makes a resend the same request: everything that shapes the answer or the bill."""
    told: tuple[object, ...] = (
        message.model,
        message.dimensions,
        message.input_type,
        message.task,
        message.encoding,
        message.failover,
        message.optimize,
        message.truncate,
        message.thread,
        message.metadata,
    )
    return _options.encode(told if message.store is None else (*told, message.store))


def check_answer_size(message: EmbeddingGenerate, count: int, dimensions: int, limits: Limits) -> None:
    """Raise `invalid_request` when the answer would not fit one message and no stream was asked for."""
    if message.stream or message.dry_run:
        return
    size = int(count * (dimensions * _ROW_BYTES[message.encoding] + 4)) + _ENVELOPE_BYTES
    if size > limits.max_message_bytes:
        raise invalid_request(
            f"the answer would be about {size} bytes ({count} vectors of {dimensions} dimensions as {message.encoding}), over the "
            f"{limits.max_message_bytes} of one message: send stream = true, or fewer texts",
            "stream",
        )


def question(principal: Principal, message: EmbeddingGenerate, texts: Sequence[Text], *, another: bool) -> Question:
    """What the request asks of selection; `another`: another model may answer. Tokens are those of one model's tokeniser: no other's; a collection
    keeps the vectors of one space.
    """
    return Question(
        model=message.model,
        dimensions=message.dimensions,
        input_type=message.input_type,
        task=message.task,
        optimize=message.optimize,
        another=another and message.store is None and not isinstance(texts[0], list),
        admin="admin" in principal.scopes,
    )


def check_tokens_taken(texts: Sequence[Text], candidates: Sequence[Candidate]) -> None:
    """Token arrays only where every endpoint that may answer takes tokens of the model's tokeniser."""
    if not isinstance(texts[0], list):
        return
    for candidate in candidates:
        if not candidate.offering.takes_tokens:
            raise GatewayError(
                "invalid_request",
                f"endpoint {candidate.endpoint.name!r} takes texts only, not token arrays: send strings for model {candidate.model.id!r}",
                details={"field": "input"},
            )
