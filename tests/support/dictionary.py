"""A dictionary attack on fingerprints by somebody who has the database and the source, and tries whatever may be the key."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence

from domain.fingerprint import DIGEST_SIZE, body_fingerprint, text_fingerprint

_BYTEA = re.compile(r"\\x([0-9a-f]+)")
_WORD = re.compile(r"[A-Za-z0-9_.-]{3,64}")


def keys_in(content: Mapping[str, str], names: Iterable[str] = ()) -> set[bytes]:
    """Whatever in the database (and among `names`) may serve as a key: words, ids, digests, wrapped keys; and the usual bad ones."""
    found = {b"", bytes(16), bytes(32), bytes(64), b"\xff" * 32, *(name.encode() for name in names)}
    for text in content.values():
        found |= {bytes.fromhex(value)[:64] for value in _BYTEA.findall(text) if len(value) % 2 == 0}
        for word in set(_WORD.findall(text)):
            found.add(word.encode())
            bare = word.replace("-", "")
            if len(bare) in (32, 64) and re.fullmatch(r"[0-9a-f]+", bare):
                found.add(bytes.fromhex(bare))
    padded = {key.ljust(32, b"\0") for key in found if 0 < len(key) < 32}
    return found | padded | {hashlib.sha256(key).digest() for key in found}


def attack(
    fingerprints: set[bytes],
    dictionary: Sequence[str],
    options: Sequence[bytes],
    spaces: Sequence[str],
    keys: set[bytes],
) -> set[str]:
    """The texts of `dictionary` that some key and some way of hashing turn into one of `fingerprints` (16 bytes each).

    `options` are the options of the bodies, `spaces` the spaces, which the attacker reads in the log.
    """
    return {
        text for text in dictionary for key in keys if not fingerprints.isdisjoint(_digests(key, text, options, spaces))
    }


def unprinted(fingerprint: str) -> bytes:
    """The bytes of a fingerprint as events show it."""
    return urlsafe_b64decode(fingerprint + "==")


def _digests(key: bytes, text: str, options: Sequence[bytes], spaces: Sequence[str]) -> Iterator[bytes]:
    body = text.encode()
    for choice in options:
        yield body_fingerprint(key, choice, [text])
    for space in spaces:
        yield text_fingerprint(key, space, None, text)
    yield hashlib.blake2b(body, digest_size=DIGEST_SIZE, key=key).digest()
    yield hashlib.blake2b(body, key=key).digest()[:DIGEST_SIZE]
    yield hashlib.sha256(key + body).digest()[:DIGEST_SIZE]
    yield hmac.digest(key, body, "sha256")[:DIGEST_SIZE]
