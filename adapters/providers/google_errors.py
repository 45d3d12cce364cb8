"""Google's errors in our taxonomy: Vertex tells them as gRPC statuses, the Gemini API as the JSON of the same `google.rpc.Status`.

A message may quote the input or the key, so none is passed on: it is only searched for what kind of error it is. What leaves here is
the status, the reason where it is a known one, and sentences of our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from adapters.providers.http import Reply
from adapters.providers.http_errors import retry_after
from adapters.providers.sizes import UNREADABLE
from domain.ports.provider import ProviderError, ProviderFault

_CREDENTIAL = frozenset({
    "API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED", "API_KEY_IP_ADDRESS_BLOCKED", "API_KEY_HTTP_REFERRER_BLOCKED",
    "ACCESS_TOKEN_EXPIRED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT", "ACCESS_TOKEN_TYPE_UNSUPPORTED", "ACCOUNT_STATE_INVALID",
    "CREDENTIALS_MISSING", "CONSUMER_INVALID", "CONSUMER_SUSPENDED", "SERVICE_DISABLED", "BILLING_DISABLED", "IAM_PERMISSION_DENIED",
    "LOCATION_POLICY_VIOLATED", "USER_PROJECT_DENIED",
})  # fmt: skip
_KNOWN = _CREDENTIAL | {"RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "RESOURCE_QUOTA_EXCEEDED", "QUOTA_EXCEEDED"}

# "The input token count is 2500 but the model supports up to 2048", "The input token count (26210) exceeds the maximum number of
# tokens allowed (20000)". The last number is the limit: of one text, or of all texts of a call.
_TOKENS = re.compile(r"token count\b.{0,40}\b(?:supports up to|exceeds the maximum)\D{0,60}(\d+)?", re.IGNORECASE)
_LONG = re.compile(
    r"(?:input|text|content) (?:is )?too long|token limit exceeded|exceeds the (?:maximum )?(?:context|input)",
    re.IGNORECASE,
)
# "5 instance(s) is allowed per prediction", "at most 100 requests can be in one batch", "Request payload size exceeds the limit".
_LARGE = re.compile(
    r"instance\(s\) is allowed per prediction|requests can be in one batch|batch size|payload size exceeds|too many (?:instances|requests in)",
    re.IGNORECASE,
)
_INDEX = re.compile(r"(?:instances|requests|contents)\[(\d{1,6})\]")
_CALL_TOKENS = 20_000
"""The limit of all texts of a call, so that a limit of at least so many is not of one text."""


def google_error(
    status: int, name: str, said: str, reasons: Iterable[str], *, texts: int, retry_after: float | None = None
) -> ProviderError:
    """The error of an HTTP status, or what a gRPC status is in HTTP. `name` is the status in Google's words, '' where it told none;
    `reasons` those of its details; `texts` how many the call had; `retry_after` in seconds.
    """
    known = [reason for reason in reasons if reason in _KNOWN]
    fault, sentence = _fault(status, name, said, known, texts)
    index = _index(said, texts) if fault is ProviderFault.TOO_LONG else None
    told = f" (reason {known[0]})" if known else ""
    return ProviderError(fault, f"HTTP {status}: {sentence}{told}", status=status, retry_after=retry_after, index=index)


def _fault(status: int, name: str, said: str, reasons: list[str], texts: int) -> tuple[ProviderFault, str]:
    if status in (401, 403) or (status == 400 and not _CREDENTIAL.isdisjoint(reasons)):  # a wrong API key is a 400
        return ProviderFault.AUTHENTICATION, "the provider does not accept this endpoint's credential"
    if (
        name == "FAILED_PRECONDITION"
    ):  # "User location is not supported", "please enable billing": any text would meet it
        return ProviderFault.AUTHENTICATION, "the provider does not serve this endpoint's account as it is set up"
    if status == 429:
        return ProviderFault.RATE_LIMITED, "the provider limits the rate"
    if status in (408, 409, 499) or status >= 500:
        return ProviderFault.SERVER, "the provider failed"
    if status in (400, 413):
        size = _size(said, texts)
        if size is not None:
            return size
    if status == 413:
        return ProviderFault.TOO_LARGE, "the call is over the provider's limit"
    if 300 <= status < 400:
        return ProviderFault.NOT_SERVED, "the provider redirects elsewhere; set base_url to the place itself"
    if status == 404:
        return ProviderFault.NOT_SERVED, "the provider has no such model or address"
    return ProviderFault.REFUSED, "the provider refuses the request"


def _size(said: str, texts: int) -> tuple[ProviderFault, str] | None:
    tokens = _TOKENS.search(said)
    of_call = tokens is not None and tokens[1] is not None and int(tokens[1]) >= _CALL_TOKENS
    if of_call or _LARGE.search(said):
        if texts > 1:
            return ProviderFault.TOO_LARGE, "the call is over the provider's limit"
        return ProviderFault.TOO_LONG, "a text is over the provider's limit"
    if tokens is not None or _LONG.search(said):
        return ProviderFault.TOO_LONG, "a text is over the model's limit"
    return None


def _index(said: str, texts: int) -> int | None:
    if texts == 1:
        return 0
    found = _INDEX.search(said)
    return int(found[1]) if found is not None and int(found[1]) < texts else None


class _Detail(msgspec.Struct, rename={"retry_delay": "retryDelay"}):
    reason: str | None = None
    retry_delay: str | None = None


class _Status(msgspec.Struct):
    message: str = ""
    status: str = ""
    details: list[_Detail] = []


class _Body(msgspec.Struct):
    error: _Status


_decode = msgspec.json.Decoder(_Body).decode
_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


def json_error(reply: Reply, texts: int) -> ProviderError:
    """The error of an answer with a status other than 200, with a `google.rpc.Status` as JSON in its body or with any other page."""
    try:
        told = _decode(reply.body).error
    except UNREADABLE:
        told = _Status()
    delays = [_SECONDS.fullmatch(detail.retry_delay) for detail in told.details if detail.retry_delay is not None]
    wait = float(delays[0][1]) if delays and delays[0] is not None else retry_after(reply.headers)
    reasons = [detail.reason for detail in told.details if detail.reason is not None]
    return google_error(reply.status, told.status, told.message, reasons, texts=texts, retry_after=wait)
