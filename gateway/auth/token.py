"""A JSON Web Token taken apart, and what it has to say to be believed. Nothing here knows tenants.

Header and claims are parsed once, strictly, and what was parsed is what is verified: no second parser can be made to see another token.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from binascii import Error as NotBase64
from typing import Any

import msgspec

from gateway.auth.key_set import KeySet, VerifyKey
from gateway.auth.strict_json import strict_object

MAX_TOKEN = 8192
"""Characters of a token."""
_SHAPE = re.compile(r"([A-Za-z0-9_-]{1,2048})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
_LATEST = 2**53


class TokenRefused(Exception):
    """A token is not to be taken. The message says why, for the server's log: never a part of the token, for nobody vouches for it."""


class SignerUnknown(TokenRefused):
    """It names a key that its issuer's set does not have; a newer set may."""


class Token(msgspec.Struct, frozen=True):
    """A token taken apart; nothing of it is verified yet. `kid` is only ever compared with the names of the issuer's own keys."""

    algorithm: str
    kid: str | None
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def parse_token(text: str) -> Token:
    """Take a token apart. Raises `TokenRefused`."""
    if len(text) > MAX_TOKEN:
        raise TokenRefused("longer than 8192 characters")
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise TokenRefused("not three parts of base64url")
    try:
        header, claims, signature = (urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in shape.groups())
        named = strict_object(header)
        claimed = strict_object(claims)
    except (NotBase64, ValueError):
        raise TokenRefused("a part is no base64url of a JSON object with each member once") from None
    algorithm, kid = named.get("alg"), named.get("kid")
    if not isinstance(algorithm, str) or not isinstance(kid, str | None):
        raise TokenRefused("the header names no algorithm, or a key by something that is no string")
    if "crit" in named or "b64" in named:
        raise TokenRefused("the header demands an extension")
    signed, _, _ = text.rpartition(".")
    return Token(algorithm, kid, claimed, signed.encode(), signature)


def verify_signature(token: Token, keys: KeySet, allowed: frozenset[str]) -> VerifyKey:
    """The key that signed it. Raises `TokenRefused`, `SignerUnknown`."""
    if token.algorithm not in allowed:
        raise TokenRefused("signed with an algorithm that the issuer is not allowed")
    candidates = keys.candidates(token.kid, token.algorithm)
    if not candidates:
        raise SignerUnknown("signed with a key that the issuer's set does not have")
    for key in candidates:
        if key.verify(token.signed, token.signature):
            return key
    raise TokenRefused("the signature is not the issuer's")


def expiry(claims: dict[str, Any], *, audience: str, leeway: int, max_lifetime: int | None, now: float) -> int:
    """When it stops being valid, leeway included, in seconds since the epoch. Raises `TokenRefused` where it is not valid at `now`."""
    expires, before, issued = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise TokenRefused("it never expires: no `exp`")
    if expires + leeway <= now:
        raise TokenRefused("expired")
    if before is not None and before > now + leeway:
        raise TokenRefused("not valid yet: `nbf`")
    if issued is not None and issued > now + leeway:
        raise TokenRefused("issued in the future: `iat`")
    if max_lifetime is not None and expires - (now if issued is None else issued) > max_lifetime:
        raise TokenRefused("it lives longer than max_lifetime_seconds")
    audiences = claims.get("aud")
    if not (audiences == audience or (isinstance(audiences, list) and audience in audiences)):
        raise TokenRefused("for another audience")
    return expires + leeway


def _time(claims: dict[str, Any], name: str) -> int | None:
    """A claim in whole seconds since the epoch, rounded down; None where it is absent. Raises `TokenRefused`."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST:
        raise TokenRefused(f"`{name}` is no time")
    return int(value)
