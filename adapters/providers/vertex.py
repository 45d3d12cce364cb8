"""The `vertex` provider: Google's embedding models on Vertex AI, through the GAPIC client of `google-cloud-aiplatform`.

Importing that client takes a second and 100 MB: a thread loads it when a Vertex endpoint is first used, not before. All that needs it
is in `vertex_link` and what that imports.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from adapters.providers.vertex_account import ServiceAccount
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

    from adapters.providers.vertex_link import Link

T = TypeVar("T")

_REGION = re.compile(r"[a-z][a-z0-9-]{0,39}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,99}")
_ADDRESS = re.compile(r"(https?)://((?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?)/?")


class VertexProvider:
    """One configured endpoint: at most `endpoint.max_concurrency` calls at once, over one HTTP/2 connection.

    `secret` is the JSON of a service account's key; None means the application default credentials of the machine. Options:
    `region` (needed), `project` (else the credential's own). `base_url` stands in for the region's address: `https://host`, or
    `http://host:port` for a server without TLS.

    Raises `ValueError` for settings that cannot work.
    """

    def __init__(self, endpoint: Endpoint, secret: str | None) -> None:
        if importlib.util.find_spec("google.cloud.aiplatform_v1") is None:
            raise ModuleNotFoundError("google-cloud-aiplatform is not installed", name="google.cloud.aiplatform_v1")
        self._account = None if secret is None else ServiceAccount.read(secret)
        self._region = _option(endpoint, "region", _REGION, "a region such as us-central1, or global")
        self._project = self._account.project if self._account is not None else None
        if "project" in endpoint.options:
            self._project = _option(endpoint, "project", _PROJECT, "the id of a project")
        elif self._project is not None and not _PROJECT.fullmatch(self._project):
            raise ValueError(f"endpoint {endpoint.name!r}: the credential's project_id is not the id of a project")
        self._target, self._tls = _address(endpoint, self._region)
        self._max_concurrency = endpoint.max_concurrency
        self._link: Link | None = None
        self._linking: asyncio.Task[Link | ProviderError] | None = None
        self._closed = False

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once. Raises `ProviderError` and nothing else (cancellation passes)."""
        return await self._within(call.timeout, lambda link: link.predict(call))

    async def warm_up(self) -> None:
        """Load the client, find the credentials and get a first token. Raises `ProviderError`."""
        link = await self._linked()
        await link.warm_up()

    async def check(self, timeout: float) -> None:
        """Ask the API about the region: that costs nothing and needs a valid token."""
        await self._within(timeout, lambda link: link.check(timeout))

    async def close(self) -> None:
        """Close the connection; calls in flight fail. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._linking is not None:
            self._linking.cancel()
        if self._link is not None:
            await self._link.close()

    async def _within(self, timeout: float, work: Callable[[Link], Awaitable[T]]) -> T:
        # The error is raised outside the except blocks: what they caught holds the request, and with it the texts.
        error: ProviderError
        try:
            async with asyncio.timeout(timeout):
                return await work(await self._linked())
        except TimeoutError:
            error = ProviderError(ProviderFault.TIMEOUT, f"no answer within {timeout:g} s")
        except asyncio.CancelledError:
            # gRPC cancels what is in flight on a channel that closes, which is no cancellation of the caller's.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            error = ProviderError(ProviderFault.CONNECTION, "this provider was closed during the call")
        raise error

    async def _linked(self) -> Link:
        if self._closed:
            raise ProviderError(ProviderFault.CONNECTION, "this provider was closed")
        if self._link is not None:
            return self._link
        if self._linking is None:
            self._linking = asyncio.create_task(self._make_link(), name="vertex link")
        made = await asyncio.shield(self._linking)  # the deadline of one caller does not end what the others wait for
        if isinstance(made, ProviderError):
            raise ProviderError(made.fault, made.detail)
        return made

    async def _make_link(self) -> Link | ProviderError:
        try:
            link_class, credentials, project = await asyncio.to_thread(_load, self._account)
        except ProviderError as error:
            return error
        finally:
            self._linking = None
        project = self._project or project
        if project is None:
            return ProviderError(
                ProviderFault.AUTHENTICATION, "the credentials name no project: set the endpoint's option project"
            )
        location = f"projects/{project}/locations/{self._region}"
        self._link = link_class(self._target, self._tls, location, credentials, self._max_concurrency)
        return self._link


def _load(account: ServiceAccount | None) -> tuple[type[Link], Credentials, str | None]:
    """What takes long: the imports and the search for credentials."""
    from adapters.providers.vertex_link import Link
    from adapters.providers.vertex_token import find_credentials

    return (Link, *find_credentials(account))


def _option(endpoint: Endpoint, name: str, shape: re.Pattern[str], expected: str) -> str:
    value = endpoint.options.get(name, "")
    if not shape.fullmatch(value):
        raise ValueError(f"endpoint {endpoint.name!r}: option {name} is {value[:40]!r}; expected {expected}")
    return value


def _address(endpoint: Endpoint, region: str) -> tuple[str, bool]:
    """Host and port, and whether TLS is spoken there."""
    if endpoint.base_url is None:
        return ("" if region == "global" else f"{region}-") + "aiplatform.googleapis.com:443", True
    found = _ADDRESS.fullmatch(endpoint.base_url)
    if found is None:
        raise ValueError(
            f"endpoint {endpoint.name!r}: base_url is {endpoint.base_url[:80]!r}; expected https://host or http://host:port, without a path"
        )
    scheme, host = found.groups()
    ported = re.search(r":\d+$", host) is not None
    return host if ported else f"{host}:{443 if scheme == 'https' else 80}", scheme == "https"
