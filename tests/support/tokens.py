"""An issuer of tokens for tests: keys, key sets, tokens right and wrong."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER = "https://id.example"
AUDIENCE = "emberlog"
SECRET = "a secret of more than thirty-two bytes"


@cache
def rsa_key(name: str = "rsa") -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key(name: str = "ec") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str | None = None, **members: Any) -> dict[str, Any]:
    public = (
        RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        if isinstance(key, rsa.RSAPrivateKey)
        else ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    )
    public.pop("key_ops", None)
    return {**public, **({} if kid is None else {"kid": kid}), **members}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(now: float | None = None, **others: Any) -> dict[str, Any]:
    """Claims that are right, with `others` instead; one that is `...` is left out."""
    at = int(time.time() if now is None else now)
    said = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "robot", "iat": at, "exp": at + 600, "tenant": "acme", "scope": "agent", **others
    }  # fmt: skip
    return {name: value for name, value in said.items() if value is not ...}


def signed(
    said: dict[str, Any], key: Any = None, *, kid: str | None = "one", algorithm: str = "RS256", **header: Any
) -> str:
    """A token of these claims; by default of the RSA key under the name `one`."""
    headers = {**({} if kid is None else {"kid": kid}), **header}
    return jwt.encode(said, rsa_key() if key is None else key, algorithm, headers)


def part(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(data).decode().rstrip("=")


def signed_raw(header: bytes, said: bytes) -> str:
    """A token of exactly these bytes, signed with the RSA key."""
    text = f"{part(header)}.{part(said)}"
    return (
        f"{text}.{part(jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(text.encode(), rsa_key()))}"
    )
