"""An issuer with the keys that it has by now: read at the start, read again every few minutes and when a token names a key that is not known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from gateway.auth.fetch import FetchFailed, fetch
from gateway.auth.key_set import EMPTY, MAX_BYTES, KeySet, KeySetUnusable, parse_key_set, secret_key_set
from gateway.auth.settings import JwtIssuerSettings

REST_SECONDS = 30.0
"""Between the beginnings of two readings, whatever asks for them: nobody's tokens can make us press an issuer harder."""

_log = structlog.get_logger("emberlog.auth")
Read = Callable[[], Awaitable[bytes]]


class Issuer:
    """One issuer. `read` gets its key set's document; None for one whose secret is shared, which never changes while we run."""

    def __init__(
        self,
        settings: JwtIssuerSettings,
        keys: KeySet,
        read: Read | None,
        *,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.keys = keys
        self.name = settings.issuer
        self.allowed = settings.allowed
        self.tenants = settings.bound_to
        self.changed = changed
        self._read = read
        self._clock = clock
        self._began = float("-inf")
        self._reading: asyncio.Task[bool] | None = None

    async def look_again(self) -> bool:
        """Read the key set again, unless that was begun less than 30 seconds ago; a reading under way is waited for.

        False where there is nothing new to know: the reading failed, or it is too early for another.
        """
        if self._reading is None:
            if self._read is None or self._clock() - self._began < REST_SECONDS:
                return False
            self._began = self._clock()
            self._reading = asyncio.get_running_loop().create_task(self._refresh(self._read))
        # Whoever waits may be cancelled; the reading is everybody's.
        return await asyncio.shield(self._reading)

    async def run(self) -> None:
        """Keep the keys fresh until cancelled."""
        fresh = await self.look_again() if self.keys is EMPTY else True
        while self._read is not None:
            await asyncio.sleep(self.settings.refresh_seconds if fresh else REST_SECONDS)
            fresh = await self.look_again()

    async def close(self) -> None:
        """Give up a reading under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _refresh(self, read: Read) -> bool:
        try:
            keys = parse_key_set(self.name, await read())
        except (FetchFailed, KeySetUnusable, OSError) as error:
            _log.warning("jwks_not_read", issuer=self.name, reason=str(error), keys_kept=len(self.keys.signers))
            return False
        except Exception as error:  # whatever a server answers, the keys we have go on being used
            _log.error("jwks_not_read", issuer=self.name, exc_info=error, keys_kept=len(self.keys.signers))
            return False
        finally:
            self._reading = None
        if keys.signers != self.keys.signers:
            _log.info("jwks_changed", issuer=self.name, keys=len(keys.signers))
        self.keys = keys
        self.changed()
        return True


def open_issuer(settings: JwtIssuerSettings, environment: dict[str, str]) -> Issuer:
    """The issuer, with the keys of its file or its secret at hand; those of an address are yet to be read.

    Raises ValueError saying which setting has to be mended.
    """
    if settings.secret_env is not None:
        secret = environment.get(settings.secret_env)
        if secret is None:
            raise ValueError(
                f"jwt_issuers: {settings.issuer}: the variable {settings.secret_env} (secret_env) is not set"
            )
        return Issuer(settings, _usable(settings, lambda: secret_key_set(settings.issuer, secret)), None)
    if (file := settings.jwks_file) is not None:
        keys = _usable(settings, lambda: parse_key_set(settings.issuer, _content(file)))
        return Issuer(settings, keys, lambda: asyncio.to_thread(_content, file))
    assert settings.jwks_url is not None
    url = settings.jwks_url
    return Issuer(settings, EMPTY, lambda: fetch(url, MAX_BYTES))


def _usable(settings: JwtIssuerSettings, keys: Callable[[], KeySet]) -> KeySet:
    try:
        return keys()
    except (KeySetUnusable, OSError) as error:
        place = "secret_env" if settings.secret_env is not None else "jwks_file"
        raise ValueError(f"jwt_issuers: {settings.issuer}: {place}: {error}") from None


def _content(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)
