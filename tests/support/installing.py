"""An installation on a database of its own, as the management commands open it, in this process."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from gateway.manage import Installation, open_installation
from gateway.settings import Settings
from tests.support.databases import with_user


def settings_of(owner_dsn: str, folder: Path, *, redis_url: str = "none") -> Settings:
    """Its key file and its archive folder are in `folder`; the key is made when it is missing. Endpoints are not attested: the providers of these
    tests need give no vectors that would pass for any.
    """
    key = folder / "secret.key"
    if not key.exists():
        key.write_bytes(base64.b64encode(b"the first key of these tests....") + b"\n")
        key.chmod(0o600)
    return Settings(
        database_url=SecretStr(with_user(owner_dsn, "emberlog_gateway")),
        database_owner_url=SecretStr(owner_dsn),
        redis_url=SecretStr(redis_url),
        secret_key_file=key,
        archive_dir=folder / "archive",
        attest_endpoints=False,
    )


@asynccontextmanager
async def installed(owner_dsn: str, folder: Path, *, redis_url: str = "none") -> AsyncIterator[Installation]:
    """The installation, open."""
    async with open_installation(settings_of(owner_dsn, folder, redis_url=redis_url)) as installation:
        yield installation
