"""Keyed fingerprints: BLAKE2b with the tenant's key, so that the log and the caches tell nothing to whoever lacks it."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from domain.ports.provider import Text

DIGEST_SIZE = 16
TAG_SIZE = 8


@lru_cache(maxsize=10_000)
def tenant_tag(tenant: str) -> bytes:
    """8 bytes in front of whatever is cached for a tenant, by which all of it is found again. They keep nothing secret."""
    return blake2b(tenant.encode(), digest_size=TAG_SIZE, person=b"tenant tag").digest()


def text_fingerprint(key: bytes, space: str, input_type: str | None, text: Text) -> bytes:
    """16 bytes that stand for one text's vector: of the tenant that owns `key` (32 bytes), in this space, as this input type.

    Queries and documents share a space, but where a provider tells them apart the same text has two vectors in it.
    """
    body = text.encode() if isinstance(text, str) else b"\xff" + b"".join(t.to_bytes(4, "big") for t in text)
    return blake2b(
        f"{space}\0{input_type or ''}\0".encode() + body, digest_size=DIGEST_SIZE, key=key, person=b"text"
    ).digest()


def body_fingerprint(key: bytes, options: bytes, texts: Sequence[Text]) -> bytes:
    """16 bytes that stand for a request's body: its options (canonical bytes) and its texts, in order."""
    digest = blake2b(options, digest_size=DIGEST_SIZE, key=key, person=b"body")
    for text in texts:
        body = text.encode() if isinstance(text, str) else b"\xff" + b"".join(t.to_bytes(4, "big") for t in text)
        digest.update(len(body).to_bytes(4, "big"))
        digest.update(body)
    return digest.digest()


def printable(fingerprint: bytes) -> str:
    """Base64url without padding: 22 characters."""
    return urlsafe_b64encode(fingerprint).rstrip(b"=").decode()
