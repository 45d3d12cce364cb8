"""OpenAI's errors, and those of servers that imitate it, in our taxonomy.

A provider's message may quote the input or the key, so none is passed on: it is only searched for what kind of error it is. What
leaves here is the status, the error's `code`, `type` and `param` where they are known ones, and sentences of our own: what leaves here
stands in the log for ever, and a server may repeat an input in any of them.
"""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

import httpx2
import openai

from domain.ports.provider import ProviderError, ProviderFault

_TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})
_TOO_LARGE_CODES = frozenset({"max_tokens_per_request", "array_above_max_length", "request_too_large"})

# Codes and types of OpenAI, Azure, vLLM, llama.cpp and text-embeddings-inference.
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
        "overloaded", "unhealthy", "empty",
    })
)  # fmt: skip
_PARAM = re.compile(r"(input|model|dimensions|encoding_format|user)(\[\d{1,6}\]|\.\d{1,6})?")

# OpenAI and vLLM say "maximum context length", llama.cpp and Ollama "exceeds the … context", text-embeddings-inference
# "must have less than N tokens".
_TOO_LONG = re.compile(
    r"maximum (context|input|sequence) length|context (length|size|window)|exceeds? .{0,40}context|must have less than \d+ tokens",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(
    r"max(imum)? \d+ tokens per request|maximum request size|array too long|too many inputs|batch size|input array",
    re.IGNORECASE,
)
_INDEX = re.compile(r"input(?:\[|\.)(\d{1,6})\]?")


def status_error(error: openai.APIStatusError) -> ProviderError:
    """The error that an answer with a status of 3xx, 4xx or 5xx stands for."""
    status = error.status_code
    code, kind, param = _known(error.code), _known(error.type), _parameter(error.param)
    said = error.message if isinstance(error.message, str) else ""
    fault, sentence = _fault(status, {code, kind}, said)
    index = _index(said, param) if fault is ProviderFault.TOO_LONG else None
    named = ", ".join(f"{name} {value}" for name, value in (("code", code), ("type", kind), ("param", param)) if value)
    return ProviderError(
        fault,
        f"HTTP {status}: {sentence}{f' ({named})' if named else ''}",
        status=status,
        retry_after=retry_after(error.response.headers),
        index=index,
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


def retry_after(headers: httpx2.Headers) -> float | None:
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


def _index(said: str, param: str | None) -> int | None:
    found = _INDEX.search(param or "") or _INDEX.search(said)
    return int(found[1]) if found else None


def _fault(status: int, names: set[str | None], said: str) -> tuple[ProviderFault, str]:
    if status in (401, 403):
        return ProviderFault.AUTHENTICATION, "the provider does not accept this endpoint's credential"
    if status == 429:
        if "insufficient_quota" in names:
            return ProviderFault.RATE_LIMITED, "the provider's account has no quota left"
        return ProviderFault.RATE_LIMITED, "the provider limits the rate"
    if status in (408, 409) or status >= 500:
        return ProviderFault.SERVER, "the provider failed"
    if status in (400, 413, 422):
        if names & _TOO_LARGE_CODES or _TOO_LARGE.search(said):
            return ProviderFault.TOO_LARGE, "the call is over the provider's limit"
        if names & _TOO_LONG_CODES or _TOO_LONG.search(said):
            return ProviderFault.TOO_LONG, "a text is over the model's limit"
    if status == 413:
        return ProviderFault.TOO_LARGE, "the call is over the provider's limit"
    if 300 <= status < 400:
        return ProviderFault.REFUSED, "the provider redirects elsewhere; set base_url to the place itself"
    if status == 404:
        return ProviderFault.REFUSED, "the provider has no such model or address"
    return ProviderFault.REFUSED, "the provider refuses the request"
