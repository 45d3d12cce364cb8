"""Keys at rest: one installation key (a file) wraps one random key per tenant; a tenant's key seals its metadata and keys its fingerprints.

Destroying a tenant's key shreds whatever it sealed. Sealing is AES-256-GCM with a random 96-bit nonce in front (NIST SP 800-38D).
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_NONCE_BYTES = 12


class SecretKeyError(Exception):
    """The installation's secret key cannot be used; the message says which file and what to do."""


def seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    """Encrypt and authenticate `plain`, bound to `context`: nonce, ciphertext and tag in one."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """The reverse of `seal`. Raises `SecretKeyError` when key, context or bytes are not the ones sealed."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
    except InvalidTag:
        raise SecretKeyError(
            "the sealed value does not open with this key: it belongs to another key, or was changed"
        ) from None


class MasterKey:
    """The installation's key. It never leaves this object; `repr` masks it."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "MasterKey(***)"

    @classmethod
    def load(cls, path: Path, *, create: bool) -> MasterKey:
        """Read the key file (32 bytes in base64). With `create`, make it (mode 0600) when it is missing; else `SecretKeyError`."""
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                pass
            else:
                with os.fdopen(handle, "wb") as file:
                    file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
        try:
            raw = base64.b64decode(path.read_bytes().strip(), validate=True)
        except FileNotFoundError:
            raise SecretKeyError(
                f"the secret key file {path} does not exist: set EMBERLOG_SECRET_KEY_FILE to it, or make one with "
                f"`umask 077; head -c 32 /dev/urandom | base64 > {path}` and keep a copy, for without it the tenants' keys are lost"
            ) from None
        except (OSError, binascii.Error) as error:
            raise SecretKeyError(
                f"the secret key file {path} cannot be read: {type(error).__name__}; expected 32 bytes in base64"
            ) from None
        if len(raw) != KEY_BYTES:
            raise SecretKeyError(f"the secret key file {path} holds {len(raw)} bytes; expected {KEY_BYTES} in base64")
        return cls(raw)

    def wrap(self, tenant: str, tenant_key: bytes) -> bytes:
        """A tenant's key, sealed for storage."""
        return seal(self._key, tenant_key, b"tenant-key:" + tenant.encode())

    def unwrap(self, tenant: str, wrapped: bytes) -> bytes:
        """A tenant's key from storage. Raises `SecretKeyError` when this is not the installation key that wrapped it."""
        try:
            return unseal(self._key, wrapped, b"tenant-key:" + tenant.encode())
        except SecretKeyError:
            raise SecretKeyError(
                f"the key of tenant {tenant!r} was wrapped with another secret key than this one: set EMBERLOG_SECRET_KEY_FILE "
                "to the file that this installation was made with"
            ) from None


def new_tenant_key() -> bytes:
    """32 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


def seal_metadata(tenant_key: bytes, metadata: bytes) -> str:
    """Free metadata as it may stand in an event: sealed with the tenant's key, base64."""
    return base64.b64encode(seal(tenant_key, metadata, b"metadata")).decode()


def open_metadata(tenant_key: bytes, sealed: str) -> bytes:
    """The reverse of `seal_metadata`. Raises `SecretKeyError`."""
    return unseal(tenant_key, base64.b64decode(sealed), b"metadata")
