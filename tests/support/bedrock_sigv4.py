"""AWS's signature, version 4, from the receiver's side and written from its specification: nothing here comes from botocore.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, unquote

SKEW_SECONDS = 300

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,]+)/(?P<day>\d{8})/(?P<region>[^/,]+)/(?P<service>[^/,]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


class SignatureRefused(Exception):
    """`code` and message as AWS tells them, with status 403."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Account(NamedTuple):
    """An access key that the receiver knows. `token` is the session token of a temporary one."""

    key: str
    secret: str
    token: str | None = None


class Signed(NamedTuple):
    """A request as it came in: names of headers in lower case, `target` the path with its query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


def verify(request: Signed, account: Account, region: str, service: str, now: float) -> None:
    """Raises `SignatureRefused` for a request that this account did not sign for this region and service within the last minutes."""
    headers = request.headers
    given = headers.get("authorization")
    if given is None:
        raise SignatureRefused("MissingAuthenticationTokenException", "Missing Authentication Token")
    parts = _AUTHORIZATION.fullmatch(given)
    if parts is None:
        raise SignatureRefused("IncompleteSignatureException", f"Authorization header is not as expected: {given}")
    if parts["key"] != account.key or headers.get("x-amz-security-token") != account.token:
        raise SignatureRefused("UnrecognizedClientException", "The security token included in the request is invalid.")
    stamp = headers.get("x-amz-date", "")
    try:
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise SignatureRefused("IncompleteSignatureException", "Date must be in ISO-8601 'basic format'.") from None
    if abs(at - now) > SKEW_SECONDS:
        raise SignatureRefused("InvalidSignatureException", f"Signature expired: {stamp} is now too far away")
    if (parts["region"], parts["service"]) != (region, service) or parts["day"] != stamp[:8]:
        raise SignatureRefused(
            "InvalidSignatureException", f"Credential should be scoped to a valid region and service, not {given}"
        )
    names = parts["headers"].split(";")
    needed = {"host", *(name for name in headers if name.startswith("x-amz-"))}
    if names != sorted(names) or not needed <= set(names) or not set(names) <= headers.keys():
        raise SignatureRefused("InvalidSignatureException", "'Host' or an 'x-amz-' header must be a 'SignedHeader'.")
    if not hmac.compare_digest(signature(request, account.secret, names, region, service, stamp), parts["signature"]):
        raise SignatureRefused(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method.",
        )


def signature(request: Signed, secret: str, names: list[str], region: str, service: str, stamp: str) -> str:
    """The signature of a request, in hexadecimal, with the headers of these names signed."""
    canonical = "\n".join(
        [
            request.method,
            _path(request.target.partition("?")[0]),
            _query(request.target.partition("?")[2]),
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, to_sign.encode(), "sha256").hexdigest()


def _path(path: str) -> str:
    """Every service but S3 encodes what stands in the request line once more."""
    return "/".join(quote(segment, safe="-_.~") for segment in path.split("/")) or "/"


def _query(query: str) -> str:
    pairs = [part.partition("=") for part in query.split("&") if part]
    encoded = sorted((quote(unquote(n), safe="-_.~"), quote(unquote(v), safe="-_.~")) for n, _, v in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)
