"""Request headers: lookups and credentials. Names are lower-case bytes, as ASGI gives them."""

from __future__ import annotations

from collections.abc import Iterable

from domain.errors import GatewayError

RawHeaders = Iterable[tuple[bytes, bytes]]
_LONGEST_TOKEN = 8192


def header(headers: RawHeaders, name: bytes) -> str | None:
    """The first value of a header, decoded as Latin-1, or None."""
    for key, value in headers:
        if key.lower() == name:
            return value.decode("latin-1").strip()
    return None


def token_of(headers: RawHeaders) -> str | None:
    """The token of `Authorization: Bearer` or `X-API-Key`; None when neither was sent. Raises `unauthorized` for another scheme."""
    authorization, key = header(headers, b"authorization"), header(headers, b"x-api-key")
    if authorization is None:
        token = key
    else:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise GatewayError(
                "unauthorized",
                "the Authorization header has another scheme than Bearer: send 'Authorization: Bearer <key>'",
            )
        token = token.strip()
    if token is not None and not 0 < len(token) <= _LONGEST_TOKEN:
        raise GatewayError(
            "unauthorized",
            "the credential is empty or too long: send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'",
        )
    return token
