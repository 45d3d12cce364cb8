"""The keys of an issuer: read from a JSON Web Key Set (RFC 7517), each bound to the one algorithm of its type.

A key of a type, size or use that cannot be meant for our tokens is left out; a set without a single usable key is refused, so that a
document that was broken on its way never takes the keys of a running gateway away.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from gateway.auth.strict_json import strict_object

MAX_BYTES = 256 * 1024
MAX_KEYS = 64
MIN_SECRET_BYTES = 32
_RSA_BITS = range(2048, 8193)
_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y")}
_ALGORITHM = {"RSA": "RS256", "EC": "ES256"}
_SALT = os.urandom(32)


class KeySetUnusable(Exception):
    """A key set cannot be used; the message says why, for the server's log."""


class VerifyKey:
    """A key and the only algorithm it may be used with. `kid` is None where the issuer gave it no name.

    `signer` identifies the key and its issuer for as long as the process lives; it does not tell the key.
    """

    __slots__ = ("_jwk", "algorithm", "kid", "signer")

    def __init__(self, issuer: str, kid: str | None, jwk: PyJWK, material: bytes) -> None:
        self.kid = kid
        self.algorithm = jwk.algorithm_name
        self.signer = blake2b(issuer.encode() + b"\0" + material, digest_size=16, key=_SALT).hexdigest()
        self._jwk = jwk

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's. The comparison of a MAC takes the same time wherever it differs."""
        return self._jwk.Algorithm.verify(signed, self._jwk.key, signature)


class KeySet:
    """An issuer's keys as of one reading."""

    def __init__(self, keys: list[VerifyKey]) -> None:
        self._keys = keys
        self.signers = frozenset(key.signer for key in keys)

    def candidates(self, kid: str | None, algorithm: str) -> list[VerifyKey]:
        """The keys that a token with this header may have been signed with: where both sides name the key, that one alone."""
        return [
            key
            for key in self._keys
            if key.algorithm == algorithm and (kid is None or key.kid is None or key.kid == kid)
        ]


EMPTY = KeySet([])


def secret_key_set(issuer: str, secret: str) -> KeySet:
    """The one key of an issuer that shares a secret with us. Raises `KeySetUnusable` for one shorter than 32 bytes."""
    material = secret.encode()
    if len(material) < MIN_SECRET_BYTES:
        raise KeySetUnusable(
            f"the secret has {len(material)} bytes: HS256 needs {MIN_SECRET_BYTES} random ones at least"
        )
    encoded = urlsafe_b64encode(material).decode()
    return KeySet([VerifyKey(issuer, None, PyJWK({"kty": "oct", "k": encoded}, "HS256"), material)])


def parse_key_set(issuer: str, document: bytes) -> KeySet:
    """The usable keys of a JWKS document. Raises `KeySetUnusable`."""
    if len(document) > MAX_BYTES:
        raise KeySetUnusable(f"the key set has more than {MAX_BYTES} bytes")
    try:
        members = strict_object(document).get("keys")
    except ValueError as error:
        raise KeySetUnusable(f"the key set is no JSON object with each member once: {error}") from None
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise KeySetUnusable(f"the key set has no array `keys` of at most {MAX_KEYS}")
    keys = [key for member in members if (key := _key(issuer, member)) is not None]
    if not keys:
        raise KeySetUnusable(
            "the key set has no key that can be used: expected RSA of 2048 to 8192 bits or EC on P-256, for signatures"
        )
    return KeySet(keys)


def _key(issuer: str, member: object) -> VerifyKey | None:
    """A key of the set, or None where it is not for us."""
    if not isinstance(member, dict):
        return None
    kty, kid, operations = member.get("kty"), member.get("kid"), member.get("key_ops", ["verify"])
    if not isinstance(kty, str) or kty not in _ALGORITHM or not isinstance(kid, str | None):
        return None
    if member.get("use", "sig") != "sig" or member.get("alg", _ALGORITHM[kty]) != _ALGORITHM[kty]:
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    # A private key that was published by mistake is not even looked at: its public half is the key.
    public: dict[str, Any] = {"kty": kty, **{name: member.get(name) for name in _PUBLIC_MEMBERS[kty]}}
    if not all(isinstance(value, str) and value.isascii() for value in public.values()):
        return None
    if kty == "EC" and public["crv"] != "P-256":
        return None
    try:
        jwk = PyJWK(public, _ALGORITHM[kty])
    except (PyJWTError, ValueError, TypeError):
        return None
    if kty == "RSA" and jwk.key.key_size not in _RSA_BITS:
        return None
    return VerifyKey(issuer, kid, jwk, "\n".join(public.values()).encode())
