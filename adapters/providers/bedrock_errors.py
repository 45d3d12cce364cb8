"""Bedrock's errors, and those of botocore and the connection under it, in our taxonomy.

A message of AWS may quote the request (an ARN with an account, a model, a length), so none is passed on: it is only searched for what kind
of error it is. What leaves here is the status, the error's code where it is a known one, and sentences of our own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    HTTPClientError,
    IncompleteReadError,
    InvalidEndpointConfigurationError,
    ReadTimeoutError,
)
from botocore.exceptions import (
    ConnectionError as SdkConnectionError,
)
from botocore.parsers import ResponseParserError
from urllib3 import exceptions as http

from adapters.webhooks.retry_after import retry_after
from domain.ports.provider import ProviderError, ProviderFault

OPERATIONS = frozenset({"InvokeModel", "ListAsyncInvokes"})
"""What we ask of Bedrock."""

# Whom the request comes from is not known or not believed: credentials that are new may do better.
_STALE = frozenset({
    "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "InvalidSignatureException", "RequestExpired",
    "SignatureDoesNotMatch", "UnrecognizedClientException",
})  # fmt: skip
_REFUSED_CALLER = _STALE | frozenset({
    "AccessDenied", "AccessDeniedException", "AuthFailure", "IncompleteSignature", "IncompleteSignatureException",
    "MissingAuthenticationToken", "MissingAuthenticationTokenException", "NotAuthorized", "OptInRequired",
})  # fmt: skip
_RATE = frozenset({
    "ProvisionedThroughputExceededException", "RequestLimitExceeded", "ServiceQuotaExceededException", "Throttling",
    "ThrottlingException", "TooManyRequestsException",
})  # fmt: skip
_FAILED = frozenset({
    "InternalFailure", "InternalServerError", "InternalServerException", "ModelErrorException", "ModelNotReadyException",
    "ServiceUnavailable", "ServiceUnavailableException",
})  # fmt: skip
_KNOWN = _REFUSED_CALLER | _RATE | _FAILED | frozenset({
    "ModelTimeoutException", "RequestEntityTooLargeException", "ResourceNotFoundException", "UnknownOperationException",
    "ValidationException",
})  # fmt: skip

# Titan: "Too many input tokens. Max input tokens: 8192, request input token count: N". Cohere: "Input is too long for requested model.",
# and behind it its own "too many tokens: ...". Bedrock's schema: "#/texts/3: expected maxLength: 2048, actual: N", for Titan without
# a place.
_TOO_LONG = re.compile(r"too many (input )?tokens|input is too long|expected maxLength", re.IGNORECASE)
_TOO_LARGE = re.compile(
    r"expected max(imum)? ?item(s| count)|(body|payload|request)( size)? (is )?too large", re.IGNORECASE
)
_INDEX = re.compile(r"#/texts/(\d{1,6}): expected maxLength")
_ON_DEMAND = re.compile(r"on-demand throughput isn.t supported", re.IGNORECASE)
_NOT_ALLOWED = re.compile(r"not authorized to perform", re.IGNORECASE)


def error_of(error: Exception, texts: int, timeout: float) -> ProviderError:
    """The error that a call with so many `texts` met, as botocore or what lies under it raised it."""
    if isinstance(error, ClientError):
        return _answered(error, texts)
    if isinstance(error, (http.TimeoutError, ReadTimeoutError, ConnectTimeoutError, TimeoutError)) and not isinstance(
        error, _UNREACHED
    ):
        return timed_out(timeout)
    if isinstance(error, InvalidEndpointConfigurationError):
        return ProviderError(
            ProviderFault.AUTHENTICATION, "a Bedrock API key is only sent over https, and base_url is not"
        )
    if isinstance(error, ResponseParserError):
        return ProviderError(ProviderFault.BAD_ANSWER, "the SDK can make nothing of the answer")
    if isinstance(error, http.SSLError):
        return ProviderError(
            ProviderFault.CONNECTION, "no TLS connection: is the server's certificate one that AWS_CA_BUNDLE trusts?"
        )
    if isinstance(error, (http.HTTPError, HTTPClientError, SdkConnectionError, IncompleteReadError, OSError)):
        return ProviderError(
            ProviderFault.CONNECTION,
            f"no connection, or it broke before the answer was whole ({type(error).__name__})",
        )
    if isinstance(error, BotoCoreError):
        return ProviderError(
            ProviderFault.AUTHENTICATION,
            f"the SDK finds no AWS credentials that it can use ({type(error).__name__}); "
            "set its usual variables, a profile or a role, or give the endpoint a credential",
        )
    return ProviderError(ProviderFault.SERVER, f"the SDK failed ({type(error).__name__})")


# urllib3 counts a refused connection among its timeouts.
_UNREACHED = http.NewConnectionError


def timed_out(timeout: float) -> ProviderError:
    """No answer in time."""
    return ProviderError(ProviderFault.TIMEOUT, f"no answer within {timeout:g} s")


def stale(error: Exception) -> bool:
    """Whether new credentials, where there are any, may do better."""
    return isinstance(error, ClientError) and _code(error) in _STALE


def recognised(error: Exception) -> bool:
    """Whether an answer that is an error nevertheless shows that AWS knows the caller and is well."""
    if not isinstance(error, ClientError):
        return False
    status = _status(error)
    if status in (401, 403):
        return _NOT_ALLOWED.search(_message(error)) is not None
    return status is not None and 400 <= status < 500 and status != 429 and _code(error) not in _REFUSED_CALLER


def _answered(error: ClientError, texts: int) -> ProviderError:
    code, status = _code(error), _status(error)
    fault, sentence = _fault(error, code, status or 0)
    index: int | None = None
    if fault is ProviderFault.TOO_LONG:
        found = _INDEX.search(_message(error))
        index = int(found[1]) if found else 0 if texts == 1 else None
    headers: Mapping[str, str] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return ProviderError(
        fault,
        f"HTTP {status}: {sentence}{f' (code {code})' if code in _KNOWN else ''}",
        status=status,
        retry_after=retry_after(headers.get("retry-after"), time.time()),
        index=index,
    )


def _fault(error: ClientError, code: str, status: int) -> tuple[ProviderFault, str]:
    if error.operation_name not in OPERATIONS and code not in _RATE and status < 500:
        # The SDK asks for the credentials of a role or of a single sign-on on its way.
        return ProviderFault.AUTHENTICATION, "AWS gives no credentials for the role or session of this endpoint"
    if code in _REFUSED_CALLER or status in (401, 403):
        return ProviderFault.AUTHENTICATION, "AWS does not accept this endpoint's credential, or not for this model"
    if code == "ModelNotReadyException":  # a 429, but nothing was asked too often
        return ProviderFault.SERVER, "the model is not ready"
    if code in _RATE or status == 429:
        return ProviderFault.RATE_LIMITED, "AWS limits the rate, or the account's quota is used up"
    if code == "ModelTimeoutException":
        return ProviderFault.TIMEOUT, "the model took too long"
    if code == "ModelErrorException" and _refused_by_model(error.response):
        return ProviderFault.REFUSED, "the model refuses the request"
    if code in _FAILED or status in (408, 409) or status >= 500:
        return ProviderFault.SERVER, "AWS or the model failed"
    said = _message(error)
    if status in (400, 413, 422):
        if _TOO_LARGE.search(said):
            return ProviderFault.TOO_LARGE, "the call is over Bedrock's limit"
        if _TOO_LONG.search(said):
            return ProviderFault.TOO_LONG, "a text is over the model's limit"
        if _ON_DEMAND.search(said):
            return (
                ProviderFault.NOT_SERVED,
                "the model is only to be had by an inference profile here; name one on the endpoint",
            )
    if status == 413:
        return ProviderFault.TOO_LARGE, "the call is over Bedrock's limit"
    if 300 <= status < 400:
        return ProviderFault.NOT_SERVED, "the server redirects elsewhere; set base_url to the place itself"
    if status == 404:
        return ProviderFault.NOT_SERVED, "there is no such model in this region"
    return ProviderFault.REFUSED, "Bedrock refuses the request"


def _refused_by_model(response: Mapping[str, Any]) -> bool:
    original = response.get("originalStatusCode")
    return isinstance(original, int) and 400 <= original < 500 and original not in (408, 409, 424, 429)


def _code(error: ClientError) -> str:
    code = error.response.get("Error", {}).get("Code")
    return code if isinstance(code, str) else ""


def _message(error: ClientError) -> str:
    said = error.response.get("Error", {}).get("Message")
    return said if isinstance(said, str) else ""


def _status(error: ClientError) -> int | None:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None
