"""What an HTTP answer that is not 200 stands for in our taxonomy, where a provider says so by status, code and message.

A provider's message may quote the input or the key, so none is passed on: it is only searched for what kind of error it is. What leaves
here is the status, a code that is known and sentences of our own: it stands in the log for ever.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from adapters.providers.http import Reply
from adapters.providers.sizes import UNREADABLE
from domain.ports.provider import ProviderError, ProviderFault


class Wording(msgspec.Struct, frozen=True):
    """How one provider says what a status alone does not.

    `too_large` and `too_long` are searched for in the message, in that order; `codes` are error codes that say it; `index` finds the place of the
    text in its first group; `statuses` are those that this provider gives a meaning of its own, with our sentence.
    """

    too_large: re.Pattern[str]
    too_long: re.Pattern[str]
    codes: Mapping[str, ProviderFault] = {}
    index: re.Pattern[str] | None = None
    statuses: Mapping[int, tuple[ProviderFault, str]] = {}


def status_error(reply: Reply, wording: Wording) -> ProviderError:
    """The error that an answer with a status other than 200 stands for."""
    status = reply.status
    said, code = _said(reply.body)
    fault, sentence = _fault(status, said, code, wording)
    index: int | None = None
    if fault is ProviderFault.TOO_LONG and wording.index is not None and (found := wording.index.search(said)):
        index = int(found[1])
    named = f" (code {code})" if code in wording.codes else ""
    return ProviderError(
        fault, f"HTTP {status}: {sentence}{named}", status=status, retry_after=retry_after(reply.headers), index=index
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


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


_TOO_LARGE = "the call is over the provider's limit"
_TOO_LONG = "a text is over the model's limit"


def _fault(status: int, said: str, code: str, wording: Wording) -> tuple[ProviderFault, str]:
    if status in wording.statuses:
        return wording.statuses[status]
    if status in (401, 403):
        return ProviderFault.AUTHENTICATION, "the provider does not accept this endpoint's credential"
    if status == 402:
        return ProviderFault.AUTHENTICATION, "the provider's account cannot pay: look at its billing page"
    if status == 429:
        return ProviderFault.RATE_LIMITED, "the provider limits the rate"
    if status in (408, 409) or status >= 500:
        return ProviderFault.SERVER, "the provider failed"
    if status in (400, 413, 422):
        told = wording.codes.get(code)
        if told is ProviderFault.TOO_LARGE or (told is None and wording.too_large.search(said)):
            return ProviderFault.TOO_LARGE, _TOO_LARGE
        if told is ProviderFault.TOO_LONG or (told is None and wording.too_long.search(said)):
            return ProviderFault.TOO_LONG, _TOO_LONG
    if status == 413:
        return ProviderFault.TOO_LARGE, _TOO_LARGE
    if status < 400:
        return ProviderFault.NOT_SERVED, "the provider redirects elsewhere; set base_url to the place itself"
    if status == 404:
        return ProviderFault.NOT_SERVED, "the provider has no such model or address"
    return ProviderFault.REFUSED, "the provider refuses the request"


class _Detail(msgspec.Struct):
    message: str = ""
    msg: str = ""
    code: str | int | None = None
    detail: list[_Detail] = []


class _Body(msgspec.Struct):
    """The forms of these providers: Cohere's `message`; Mistral's `message` and `code`, or FastAPI's `detail`; Voyage's `detail` and
    `error_code`; Jina's `detail`, a text or an object with `message` and `code`.
    """

    message: str | _Detail | None = None
    detail: str | _Detail | list[_Detail] | None = None
    code: str | int | None = None
    error_code: str | None = None


_decode = msgspec.json.Decoder(_Body).decode


def _said(body: bytes) -> tuple[str, str]:
    """The message and the code of an error body; both empty for a body in no form of the providers'."""
    try:
        told = _decode(body)
    except UNREADABLE:
        return "", ""
    texts: list[str] = []
    code = told.error_code or told.code
    for part in (told.message, told.detail):
        if isinstance(part, str):
            texts.append(part)
        elif part is not None:
            for item in [part, *part.detail] if isinstance(part, _Detail) else part:
                texts += [item.message, item.msg]
                code = code or item.code
    return " ".join(texts), str(code or "")
