"""Documents of keys: what is taken from them, and that none does more than be refused."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.key_set import KeySetUnusable, parse_key_set, secret_key_set
from tests.support.tokens import ISSUER, ec_key, jwk, jwks, rsa_key


def test_a_set_may_hold_keys_that_are_not_for_us() -> None:
    strangers: list[Any] = [
        None, "x", {}, {"kty": "OKP"}, {"kty": ["RSA"]}, {"kty": "RSA"}, {"kty": "RSA", "n": 1, "e": 2}, {"kty": "EC", "crv": "P-256", "x": "!", "y": ""},
        jwk(rsa_key(), "enc", use="enc"), jwk(rsa_key(), "512", alg="RS512"), jwk(rsa_key(), "ops", key_ops=["encrypt"]),
        jwk(ec_key(), "kid", kid2=1) | {"kid": 7}, jwk(ec_key(), "curve") | {"crv": "P-384"}, jwk(ec_key(), "off") | {"y": jwk(ec_key())["x"]},
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
    ]  # fmt: skip
    keys = parse_key_set(ISSUER, jwks(*strangers, jwk(ec_key(), "good")))
    assert [key.kid for key in keys.candidates(None, "ES256")] == ["good"]
    assert keys.candidates(None, "RS256") == keys.candidates(None, "HS256") == []
    private = parse_key_set(ISSUER, jwks({**jwk(rsa_key()), "d": "AQAB"}))
    assert private.signers == parse_key_set(ISSUER, jwks(jwk(rsa_key()))).signers, "a private member is not looked at"


def test_a_key_of_absurd_size_costs_no_time() -> None:
    started = time.monotonic()
    for size in (8208, 60_000):
        with pytest.raises(KeySetUnusable):
            parse_key_set(ISSUER, jwks({"kty": "RSA", "n": "_" * (size // 6), "e": "AQAB"}))
    with pytest.raises(KeySetUnusable):
        parse_key_set(ISSUER, jwks({**jwk(rsa_key()), "e": "_" * 40_000}))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "document",
    [b"", b"null", b"[]", b"{}", b'{"keys": {}}', b'{"keys": null}', b"\xff\xfe{}", b'{"keys": [], "keys": []}', jwks(*[{}] * 65), b" " * 262_145],
)  # fmt: skip
def test_what_is_no_set_of_keys_is_refused(document: bytes) -> None:
    with pytest.raises(KeySetUnusable):
        parse_key_set(ISSUER, document)


def test_signers_are_told_apart_by_issuer_and_by_key() -> None:
    document = jwks(jwk(rsa_key(), "one"), jwk(ec_key(), "two"))
    ours, theirs = parse_key_set(ISSUER, document), parse_key_set("https://other.example", document)
    assert len(ours.signers | theirs.signers | secret_key_set(ISSUER, "s" * 32).signers) == 5
    assert ours.signers == parse_key_set(ISSUER, document).signers


MEMBERS = st.sampled_from(["kty", "kid", "use", "alg", "key_ops", "n", "e", "crv", "x", "y", "d"])
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=6)
    | st.text("AQ_-=", max_size=400)
    | st.sampled_from(["RSA", "EC", "oct", "sig", "RS256", "ES256", "P-256", "AQAB", "verify"])
    | st.lists(st.sampled_from(["verify", "sign", None]), max_size=2)
)


@given(
    st.lists(st.dictionaries(MEMBERS, VALUES, max_size=8), max_size=4),
    st.sampled_from(["n", "e", "x", "y", "crv", "kty"]),
    VALUES,
)
def test_no_set_of_keys_does_more_than_be_refused(strangers: list[dict[str, Any]], member: str, value: Any) -> None:
    bent = [{**good, member: value} for good in (jwk(rsa_key()), jwk(ec_key()))]
    found = parse_key_set(ISSUER, jwks(*strangers, *bent, jwk(ec_key("sound"), "sound")))
    assert [key for key in found.candidates("sound", "ES256") if key.kid == "sound"]


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps({"keys": [text]}).encode()))
def test_no_document_does_more_than_be_refused(document: bytes) -> None:
    with pytest.raises(KeySetUnusable):
        parse_key_set(ISSUER, document)
