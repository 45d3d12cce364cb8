"""OpenAI's errors, and those of the servers that imitate it, in our taxonomy.

A provider's message may quote the input or the key, so none is passed on: it is only searched for what kind of error it is. What
leaves here is the status, the error's `code`, `type` and `param` where they are known ones, and sentences of our own: what leaves here
stands in the log for ever, and a server may repeat an input in any of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx2
import msgspec
import openai

from adapters.providers.sizes import UNREADABLE
from domain.ports.provider import ProviderError, ProviderFault

_TOO_LONG_CODES = frozenset({
    "context_length_exceeded", "exceed_context_size_error", "string_above_max_length", "string_too_long",
})  # fmt: skip
_TOO_LARGE_CODES = frozenset({"max_tokens_per_request", "array_above_max_length", "request_too_large", "too_long"})

# Codes and types of OpenAI, Azure, vLLM, llama.cpp, Ollama, text-embeddings-inference and FastAPI (Infinity).
_KNOWN = (
    _TOO_LONG_CODES
    | _TOO_LARGE_CODES
    | frozenset({
        "invalid_request_error", "invalid_api_key", "authentication_error", "permission_error", "permission_denied", "access_denied",
        "not_found_error", "model_not_found", "deploymentnotfound", "unsupported_country_region_territory", "rate_limit_error",
        "rate_limit_exceeded", "tokens", "requests", "insufficient_quota", "billing_hard_limit_reached", "billing_not_active",
        "account_deactivated", "server_error", "api_error", "internal_error", "internal_server_error", "overloaded_error",
        "engine_overloaded", "service_unavailable", "unavailable_error", "timeout", "invalid_type", "invalid_value", "invalid_input",
        "missing_required_parameter", "unknown_parameter", "unsupported_parameter", "unsupported_value", "not_supported_error",
        "empty_array", "empty_string", "integer_above_max_value", "integer_below_min_value", "content_filter",
        "content_policy_violation", "badrequesterror", "notfounderror", "internalservererror", "validation", "tokenizer", "backend",
        "overloaded", "unhealthy", "empty", "operationnotsupported", "ratelimitreached", "nocapacity", "requesttimeout",
        "permissiondenied", "invalidparameter", "missing", "list_type", "string_type",
    })
)  # fmt: skip
_PARAM = re.compile(r"(input|model|dimensions|encoding_format|user)(\[\d{1,6}\]|\.\d{1,6})?")

# llama.cpp takes no text over its "physical batch", which is the limit of one text and none of the call.
_TOO_LONG_AT_ONCE = re.compile(r"too large to process|larger than the max context size", re.IGNORECASE)
# OpenAI and vLLM say "maximum context length", llama.cpp and Ollama "exceeds the … context", text-embeddings-inference
# "must have less than N tokens".
_TOO_LONG = re.compile(
    r"maximum (context|input|sequence) length|context (length|size|window)|exceeds? .{0,40}(context|n_ctx)|must have less than \d+ tokens",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(
    r"max(imum)? \d+ tokens per request|maximum request size|array too long|too many inputs|batch size|input array"
    r"|request body: length limit|payload too large|request entity too large",
    re.IGNORECASE,
)
# A call over what an account may use in a minute is refused for ever, though the status says later.
_NEVER_FITS = re.compile(r"request too large for .{0,200}tokens per min", re.IGNORECASE | re.DOTALL)
_QUOTED_INDEX = re.compile(r"'(?:\$\.)?input(?:\[|\.)(\d{1,6})\]?'")
_INDEX = re.compile(r"input(?:\[|\.)(\d{1,6})\]?")
_LATER = re.compile(r"retry after (\d{1,6}) seconds?", re.IGNORECASE)


_ENOUGH = 2048
"""Characters of either end of a message in which its kind is looked for."""


class Said(NamedTuple):
    """What a body says of an error. `message` never leaves this module; `code`, `type` and `param` are known ones or None."""

    message: str = ""
    code: str | None = None
    type: str | None = None
    param: str | None = None
    flagged: bool = False


def status_error(error: openai.APIStatusError) -> ProviderError:
    """The error that an answer with a status of 3xx, 4xx or 5xx stands for."""
    return error_of(error.status_code, read_error(error.response.content), error.response.headers)


def error_of(status: int, said: Said, headers: Mapping[str, str]) -> ProviderError:
    """The error of a status, a body and headers."""
    fault, sentence = _fault(status, said)
    named = ", ".join(f"{name} {value}" for name in ("code", "type", "param") if (value := getattr(said, name)))
    pause = retry_after(headers)
    if pause is None and fault is ProviderFault.RATE_LIMITED and (found := _LATER.search(said.message)):
        pause = float(found[1])  # Azure, behind proxies that drop the header
    return ProviderError(
        fault,
        f"HTTP {status}: {sentence}{f' ({named})' if named else ''}",
        status=status,
        retry_after=pause,
        index=_index(said) if fault is ProviderFault.TOO_LONG else None,
    )


def connection_error(error: BaseException) -> ProviderError:
    """The error that a call without a usable answer stands for, told by what lies under the SDK's own exception."""
    # The SDK's aiohttp transport reports every lost connection as a connect timeout: only the first cause tells the truth.
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    if isinstance(first, TimeoutError):
        return ProviderError(ProviderFault.TIMEOUT, "the connection timed out")
    if isinstance(first, httpx2.DecodingError):
        return ProviderError(ProviderFault.BAD_ANSWER, "the body cannot be decompressed")
    return ProviderError(
        ProviderFault.CONNECTION, f"no connection, or it broke before the answer was whole ({type(first).__name__})"
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (seconds or an HTTP date); None where neither can be read."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None and (parsed := _number(milliseconds)) is not None:
        return parsed / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def read_error(content: bytes) -> Said:
    """What a body says, in any of the shapes that these servers give an error: nested under `error` (OpenAI), flat (vLLM,
    text-embeddings-inference), one string (LM Studio), FastAPI's `detail` (Infinity), or no JSON at all.
    """
    try:
        body: Any = msgspec.json.decode(content)
    except UNREADABLE:
        return Said(content[:4096].decode(errors="replace"))
    if not isinstance(body, dict):
        return Said()
    if "error" not in body and "detail" in body:
        return _detail(body["detail"])
    error = body.get("error", body)
    if isinstance(error, str):
        error = {**body, "message": error, "type": body.get("error_type", body.get("type"))}
    if not isinstance(error, dict):
        return Said()
    message = error.get("message")
    message = message if isinstance(message, str) else ""
    if len(message) > 2 * _ENOUGH:  # a text may be quoted in full: what is said of it stands before it or after it
        message = message[:_ENOUGH] + message[-_ENOUGH:]
    if message.startswith('{"error"'):  # Ollama hands on what its llama.cpp said, as a string
        return read_error(message.encode())
    metadata = error.get("metadata")
    return Said(
        message,
        _known(error.get("code")),
        _known(error.get("type")),
        _parameter(error.get("param")),
        isinstance(metadata, dict) and "flagged_input" in metadata,
    )


def _detail(detail: object) -> Said:
    """FastAPI's: a string, or a list of findings, each with the rule that failed and where."""
    if isinstance(detail, str):
        return Said(detail)
    if not isinstance(detail, list) or not detail or not isinstance(detail[0], dict):
        return Said()
    finding = detail[0]
    where = finding.get("loc")
    path = where if isinstance(where, list) else []
    param = next((part for part in path if part in ("input", "model", "dimensions", "encoding_format")), None)
    index = next((part for part in reversed(path) if isinstance(part, int)), None)
    return Said(
        "", _known(finding.get("type")), None, f"input[{index}]" if param == "input" and index is not None else param
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def _known(value: object) -> str | None:
    return value if isinstance(value, str) and value.lower() in _KNOWN else None


def _parameter(value: object) -> str | None:
    return value if isinstance(value, str) and _PARAM.fullmatch(value) else None


def _index(said: Said) -> int | None:
    # In a message the index must stand as OpenAI writes it: elsewhere it may be part of an input that is quoted.
    found = _INDEX.search(said.param or "") or _QUOTED_INDEX.search(said.message)
    return int(found[1]) if found else None


def _size(names: set[str], message: str) -> tuple[ProviderFault, str] | None:
    large = ProviderFault.TOO_LARGE, "the call is over the provider's limit"
    long = ProviderFault.TOO_LONG, "a text is over the model's limit"
    if names & _TOO_LARGE_CODES:
        return large
    if names & _TOO_LONG_CODES or _TOO_LONG_AT_ONCE.search(message):
        return long
    if _TOO_LARGE.search(message):
        return large
    return long if _TOO_LONG.search(message) else None


def _fault(status: int, said: Said) -> tuple[ProviderFault, str]:
    names = {name.lower() for name in (said.code, said.type) if name is not None}
    if status == 403 and said.flagged:
        return ProviderFault.REFUSED, "the provider's moderation refuses a text"
    if status in (401, 403):
        return ProviderFault.AUTHENTICATION, "the provider does not accept this endpoint's credential"
    if status == 402:
        return ProviderFault.AUTHENTICATION, "the provider's account has no credit left"
    if status in (429, 498):
        if _NEVER_FITS.search(said.message):
            return ProviderFault.TOO_LARGE, "the call is over what the provider's account may use in a minute"
        if "insufficient_quota" in names:
            return ProviderFault.RATE_LIMITED, "the provider's account has no quota left"
        return ProviderFault.RATE_LIMITED, "the provider limits the rate"
    if status in (400, 413, 422, 500) and (size := _size(names, said.message)) is not None:
        return size
    if status == 413:
        return ProviderFault.TOO_LARGE, "the call is over the provider's limit"
    if status in (408, 409, 424, 425) or status >= 500:
        return ProviderFault.SERVER, "the provider failed"
    if 300 <= status < 400:
        return ProviderFault.NOT_SERVED, "the provider redirects elsewhere; set base_url to the place itself"
    if status == 404:
        return ProviderFault.NOT_SERVED, "the provider has no such model or address"
    return ProviderFault.REFUSED, "the provider refuses the request"
