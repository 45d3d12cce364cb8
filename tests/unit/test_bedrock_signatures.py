"""The simulated Bedrock refuses what was not signed as AWS wants it: the control without which its tests would show nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import pytest

from tests.support.bedrock_sigv4 import Account, SignatureRefused, Signed, signature, verify

# The account and the example of AWS's own test suite for this signature (get-vanilla).
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ACCOUNT = Account("AKIDEXAMPLE", AWS_SECRET, "session")
STAMP = "20150830T123600Z"
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
NAMES = ["content-type", "host", "x-amz-date", "x-amz-security-token"]


def signed(**changes: str) -> Signed:
    headers = {
        "host": "bedrock-runtime.eu-west-1.amazonaws.com",
        "content-type": "application/json",
        "x-amz-date": STAMP,
        "x-amz-security-token": "session",
    } | changes
    request = Signed("POST", "/model/cohere.embed-v4%3A0/invoke?b=2&a=1", headers, b'{"inputText":"a"}')
    made = signature(request, AWS_SECRET, NAMES, "eu-west-1", "bedrock", STAMP)
    given = (
        f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-west-1/bedrock/aws4_request, "
        f"SignedHeaders={';'.join(NAMES)}, Signature={made}"
    )
    return request._replace(headers=headers | {"authorization": given})


def with_header(name: str, value: str | None) -> Callable[[Signed], Signed]:
    def change(request: Signed) -> Signed:
        headers: Mapping[str, str] = {n: v for n, v in request.headers.items() if n != name}
        return request._replace(headers=headers if value is None else {**headers, name: value})

    return change


def in_authorization(old: str, new: str) -> Callable[[Signed], Signed]:
    def change(request: Signed) -> Signed:
        given = request.headers["authorization"]
        assert old in given
        return with_header("authorization", given.replace(old, new))(request)

    return change


def test_the_signature_is_that_of_awss_own_example() -> None:
    request = Signed("GET", "/", {"host": "example.amazonaws.com", "x-amz-date": STAMP}, b"")
    made = signature(request, AWS_SECRET, ["host", "x-amz-date"], "us-east-1", "service", STAMP)
    assert made == "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"


def test_a_request_that_was_signed_is_taken() -> None:
    verify(signed(), ACCOUNT, "eu-west-1", "bedrock", NOW)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda r: r._replace(method="GET"), "InvalidSignatureException"),
        (lambda r: r._replace(target=r.target.replace("v4", "v3")), "InvalidSignatureException"),
        (lambda r: r._replace(target=r.target.replace("%3A", ":")), "InvalidSignatureException"),
        (lambda r: r._replace(target=r.target.replace("a=1", "a=2")), "InvalidSignatureException"),
        (lambda r: r._replace(body=r.body + b" "), "InvalidSignatureException"),
        (with_header("host", "elsewhere.example"), "InvalidSignatureException"),
        (with_header("content-type", "text/plain"), "InvalidSignatureException"),
        (with_header("content-type", None), "InvalidSignatureException"),
        (with_header("x-amz-target", "not signed"), "InvalidSignatureException"),
        (with_header("x-amz-date", "20150830T123601Z"), "InvalidSignatureException"),
        (with_header("x-amz-date", "yesterday"), "IncompleteSignatureException"),
        (with_header("x-amz-security-token", "another"), "UnrecognizedClientException"),
        (with_header("x-amz-security-token", None), "UnrecognizedClientException"),
        (with_header("authorization", None), "MissingAuthenticationTokenException"),
        (with_header("authorization", "AWS4-HMAC-SHA256 nothing"), "IncompleteSignatureException"),
        (in_authorization("AKIDEXAMPLE", "AKIDANOTHER"), "UnrecognizedClientException"),
        (in_authorization("20150830/", "20150829/"), "InvalidSignatureException"),
        (in_authorization("eu-west-1", "us-east-1"), "InvalidSignatureException"),
        (in_authorization("/bedrock/", "/s3/"), "InvalidSignatureException"),
        (in_authorization("host;", ""), "InvalidSignatureException"),
        (in_authorization("content-type;host", "host;content-type"), "InvalidSignatureException"),
        (lambda r: in_authorization(r.headers["authorization"][-1], "x")(r), "IncompleteSignatureException"),
    ],
)
def test_whatever_is_tampered_with_the_request_is_refused(change: Callable[[Signed], Signed], code: str) -> None:
    with pytest.raises(SignatureRefused) as caught:
        verify(change(signed()), ACCOUNT, "eu-west-1", "bedrock", NOW)
    assert caught.value.code == code


def test_every_digit_of_the_signature_counts() -> None:
    request = signed()
    given = request.headers["authorization"]
    for place in range(-64, 0):
        other = "0" if given[place] != "0" else "1"
        spoilt = given[:place] + other + (given[place + 1 :] if place != -1 else "")
        with pytest.raises(SignatureRefused):
            verify(with_header("authorization", spoilt)(request), ACCOUNT, "eu-west-1", "bedrock", NOW)


def test_another_secret_or_another_hour_is_refused() -> None:
    for account, now in ((ACCOUNT._replace(secret="another"), NOW), (ACCOUNT, NOW + 301), (ACCOUNT, NOW - 301)):
        with pytest.raises(SignatureRefused) as caught:
            verify(signed(), account, "eu-west-1", "bedrock", now)
        assert caught.value.code == "InvalidSignatureException"
    verify(signed(), ACCOUNT, "eu-west-1", "bedrock", NOW + 299)


def test_blanks_in_a_header_do_not_count() -> None:
    request = signed(**{"content-type": "application/json;  charset=utf-8"})
    verify(
        with_header("content-type", " application/json; charset=utf-8 ")(request), ACCOUNT, "eu-west-1", "bedrock", NOW
    )
