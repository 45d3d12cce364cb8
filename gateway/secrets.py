"""Keys at rest: the installation's key (a file) wraps one random key per tenant; a tenant's key seals its metadata and keys its fingerprints.

Destroying a tenant's key shreds whatever it sealed. Sealing is AES-256-GCM with a random 96-bit nonce in front (NIST SP 800-38D).
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adapters.embedded.files import write_atomically

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
    """The installation's keys: the first one wraps, each of them unwraps. They never leave this object; `repr` masks them.

    `path` is the file that they were read from.
    """

    def __init__(self, key: bytes, *older: bytes, path: Path | None = None) -> None:
        self._keys = (key, *older)
        self._path = path

    def __repr__(self) -> str:
        return "MasterKey(***)"

    @property
    def count(self) -> int:
        """How many keys there are."""
        return len(self._keys)

    @property
    def id(self) -> str:
        """Tells the first key from others, and nothing about it: 16 hexadecimal digits."""
        return blake2b(self._keys[0], digest_size=8, person=b"master key id").hexdigest()

    @classmethod
    def load(cls, path: Path, *, create: bool) -> MasterKey:
        """Read the key file: a line each of 32 bytes in base64. With `create`, make it (mode 0600) when it is missing.

        Raises `SecretKeyError`.
        """
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                pass
            else:
                with os.fdopen(handle, "wb") as file:
                    file.write(_line(secrets.token_bytes(KEY_BYTES)))
                    file.flush()
                    os.fsync(file.fileno())
        try:
            keys = [base64.b64decode(line.strip(), validate=True) for line in path.read_bytes().strip().split(b"\n")]
        except FileNotFoundError:
            raise SecretKeyError(
                f"the secret key file {path} does not exist: set EMBERLOG_SECRET_KEY_FILE to it, or make one with "
                f"`umask 077; head -c 32 /dev/urandom | base64 > {path}` and keep a copy, for without it the tenants' keys are lost"
            ) from None
        except (OSError, binascii.Error) as error:
            raise SecretKeyError(
                f"the secret key file {path} cannot be read: {type(error).__name__}; expected 32 bytes in base64, or a line of that for each key"
            ) from None
        for key in keys:
            if len(key) != KEY_BYTES:
                raise SecretKeyError(
                    f"the secret key file {path} holds a key of {len(key)} bytes; expected {KEY_BYTES} in base64, or a line of that for each key"
                )
        return cls(*keys, path=path)

    def reread(self) -> MasterKey:
        """The keys as they stand in the file by now. Raises `SecretKeyError`."""
        return self if self._path is None else MasterKey.load(self._path, create=False)

    def with_new_first(self) -> MasterKey:
        """With a new key in front, written to the file. Raises `SecretKeyError`."""
        return self._rewritten((secrets.token_bytes(KEY_BYTES), *self._keys))

    def without_older(self) -> MasterKey:
        """The first key alone, written to the file. Raises `SecretKeyError`."""
        return self._rewritten(self._keys[:1])

    def wrap(self, tenant: str, tenant_key: bytes) -> bytes:
        """A tenant's key, sealed with the first key for storage."""
        return seal(self._keys[0], tenant_key, _context(tenant))

    def unwrap(self, tenant: str, wrapped: bytes) -> bytes:
        """A tenant's key from storage. Raises `SecretKeyError` when none of these keys wrapped it."""
        for key in self._keys:
            with suppress(SecretKeyError):
                return unseal(key, wrapped, _context(tenant))
        raise SecretKeyError(
            f"the key of tenant {tenant!r} was wrapped with another secret key than those given: set EMBERLOG_SECRET_KEY_FILE "
            "to the file of this installation, with the keys it had before if it was rotated since"
        )

    def rewrap(self, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
        """By tenant those of `wrapped` that an older key wrapped, now wrapped with the first. Raises `SecretKeyError`."""
        first = MasterKey(self._keys[0])
        anew = {}
        for tenant, sealed in wrapped.items():
            try:
                first.unwrap(tenant, sealed)
            except SecretKeyError:
                anew[tenant] = self.wrap(tenant, self.unwrap(tenant, sealed))
        return anew

    def _rewritten(self, keys: tuple[bytes, ...]) -> MasterKey:
        assert self._path is not None, "these keys are of no file"
        try:
            path = self._path.resolve()  # a link stays a link
            owner = path.stat()
            write_atomically(path, b"".join(map(_line, keys)))
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(path, owner.st_uid, owner.st_gid)
        except OSError as error:
            raise SecretKeyError(
                f"the secret key file {self._path} cannot be rewritten ({error.strerror}): do it where its content comes from, a key a line, "
                "the first one wraps"
            ) from None
        return MasterKey(*keys, path=self._path)


def _line(key: bytes) -> bytes:
    return base64.b64encode(key) + b"\n"


def _context(tenant: str) -> bytes:
    return b"tenant-key:" + tenant.encode()


def new_tenant_key() -> bytes:
    """32 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


def seal_metadata(tenant_key: bytes, metadata: bytes) -> str:
    """Free metadata as it may stand in an event: sealed with the tenant's key, base64."""
    return base64.b64encode(seal(tenant_key, metadata, b"metadata")).decode()


def open_metadata(tenant_key: bytes, sealed: str) -> bytes:
    """The reverse of `seal_metadata`. Raises `SecretKeyError`."""
    return unseal(tenant_key, base64.b64decode(sealed), b"metadata")
