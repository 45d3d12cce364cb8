"""The access token of a Vertex endpoint: found, kept fresh and put into each call's metadata. Loaded with `vertex_link` alone.

gRPC could do this in a plugin of its own, but then a token that cannot be had looks like a server that cannot be reached.
"""

from __future__ import annotations

import asyncio
from functools import partial

import google.auth
import google.auth.exceptions
from google.auth.credentials import Credentials, TokenState
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from adapters.providers.vertex_account import ServiceAccount
from domain.ports.provider import ProviderError, ProviderFault

_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_TOKEN_TIMEOUT_SECONDS = 20.0

Metadata = tuple[tuple[str, str], ...]


def find_credentials(account: ServiceAccount | None) -> tuple[Credentials, str | None]:
    """The credentials and their project. Blocks: the machine's own are looked for in files and at the metadata server.

    A service account signs its tokens itself, so that its key reaches nobody and no token server is needed. Raises `ProviderError`.
    """
    error: ProviderError
    try:
        if account is None:
            found: tuple[Credentials, str | None] = google.auth.default(scopes=_SCOPES)
            return found
        info = {
            "client_email": account.client_email,
            "private_key": account.private_key,
            "private_key_id": account.private_key_id,
            "token_uri": "https://oauth2.googleapis.com/token",
        }
        credentials = service_account.Credentials.from_service_account_info(info, scopes=_SCOPES)
        return credentials.with_always_use_jwt_access(True), account.project
    except google.auth.exceptions.DefaultCredentialsError:
        error = ProviderError(
            ProviderFault.AUTHENTICATION,
            "there are no application default credentials on this machine; set GOOGLE_APPLICATION_CREDENTIALS, or the endpoint's "
            "api_key_env to a variable that holds the JSON of a service account's key",
        )
    except (google.auth.exceptions.GoogleAuthError, ValueError, OSError):
        error = ProviderError(ProviderFault.AUTHENTICATION, "the credentials cannot be read: is the private key whole?")
    raise error


class Token:
    """One token, renewed by a thread: ahead of its end while calls go on with the old one, else before the call."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._request = partial(Request(), timeout=_TOKEN_TIMEOUT_SECONDS)
        self._metadata: Metadata = ()
        self._renewing: asyncio.Task[ProviderError | None] | None = None

    async def metadata(self) -> Metadata:
        """What authorises a call now. Raises `ProviderError`."""
        state = self._credentials.token_state
        if state is TokenState.FRESH and self._metadata:
            return self._metadata
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="vertex token")
        if state is TokenState.INVALID or not self._metadata:
            error = await asyncio.shield(self._renewing)
            if error is not None:
                raise ProviderError(error.fault, error.detail)
        return self._metadata

    def close(self) -> None:
        """Renew no more."""
        if self._renewing is not None:
            self._renewing.cancel()

    async def _renew(self) -> ProviderError | None:
        try:
            await asyncio.to_thread(self._credentials.refresh, self._request)
            headers: dict[str, str] = {}
            self._credentials.apply(headers)
            self._metadata = tuple((name.lower(), value) for name, value in headers.items())
            return None
        except google.auth.exceptions.TransportError:
            return ProviderError(ProviderFault.CONNECTION, "the server that gives out access tokens cannot be reached")
        except google.auth.exceptions.GoogleAuthError as caught:
            if caught.retryable:
                return ProviderError(ProviderFault.SERVER, "the server that gives out access tokens failed")
            return ProviderError(
                ProviderFault.AUTHENTICATION, "no access token is given for this endpoint's credential"
            )
        finally:
            self._renewing = None
