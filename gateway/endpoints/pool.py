"""The endpoints of this process: those of the settings, open from the start, and those that are deployed, opened when they are needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import structlog

from adapters.providers.registry import EndpointError, load_provider, open_provider, with_defaults
from domain.catalogue import Endpoint
from domain.endpoints import Endpoints, serving
from domain.events import SYSTEM_TENANT, CredentialRemoved, CredentialSet, DeploymentChanged, TenantShredded
from domain.ports.provider import Provider, ProviderError, ProviderFault
from gateway.credentials import CredentialUnusable, Secrets
from gateway.endpoints.place import Place

_log = structlog.get_logger("emberlog.endpoints")
POLL_SECONDS = 0.05
RELEASE_SECONDS = 5.0
POOLED = (DeploymentChanged, CredentialSet, CredentialRemoved, TenantShredded)
"""The events after whose fold `EndpointPool.sync` is to be called."""


class EndpointPool:
    """All methods are called on the loop. `providers` are those of the configured endpoints, by name.

    `busy` says whether texts wait for an endpoint of this name in this process, or are under way; `drain_seconds` is how long they
    may take once it is undeployed.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        configured: Iterable[Endpoint],
        *,
        environ: Mapping[str, str],
        store: Path,
        secrets: Secrets,
        busy: Callable[[str], bool] = lambda _: False,
        drain_seconds: Callable[[], float] = lambda: 30.0,
    ) -> None:
        self.configured = tuple(configured)
        self.providers: dict[str, Provider] = {}
        self._endpoints = endpoints
        self._environ = environ
        self._store = store
        self._secrets = secrets
        self._busy = busy
        self._drain_seconds = drain_seconds
        self._places: dict[str, Place] = {}
        self._leaving: dict[Place, asyncio.Task[None]] = {}
        self._loading: dict[str, Endpoint] = {}

    # -- what the catalogue and the dispatcher ask ----------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Grows when `endpoints` changes."""
        return self._endpoints.version

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those that serve: the configured ones, then those that are deployed."""
        return serving(self.configured, self._endpoints)

    def provider(self, endpoint: Endpoint) -> Provider:
        """The provider of an endpoint, to be opened by its first call where it is a deployed one."""
        found = self.providers.get(endpoint.name)
        return found if found is not None else self._place(endpoint)

    # -- opening and closing --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the configured ones. Raises `EndpointError`, with those before it open."""
        for endpoint in self.configured:
            self.providers[endpoint.name] = open_provider(endpoint, self._environ, self._store)

    async def warm_up(self) -> None:
        """Get providers that take time for it ready before the first request; one that cannot says so when it is asked."""
        of: dict[str | None, list[Endpoint]] = {}
        for endpoint in self.endpoints():
            of.setdefault(endpoint.tenant, []).append(endpoint)
        # Each owner's one after the other: those of a tenant that hang keep nobody else's cold.
        await asyncio.gather(*map(self._warm_up, of.values()))

    async def _warm_up(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            try:
                await self.provider(endpoint).warm_up()
            except ProviderError as error:
                _log.warning("provider_not_ready", endpoint=endpoint.name, reason=error.detail)
            except Exception as error:
                _log.warning("provider_not_ready", endpoint=endpoint.name, reason=type(error).__name__)

    async def close(self) -> None:
        """Close all of them; calls under way at deployed ones end first. Idempotent."""
        places, tasks = [*self._places.values(), *self._leaving], list(self._leaving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._places.clear()
        self._leaving.clear()
        ends = await asyncio.gather(*(p.close() for p in (*places, *self.providers.values())), return_exceptions=True)
        for error in ends:
            if isinstance(error, Exception):
                _log.warning("provider_not_closed", reason=type(error).__name__)

    # -- what deployments do --------------------------------------------------------------------------------------------

    def take_up(self, endpoint: Endpoint) -> Provider:
        """The provider of an endpoint that is being loaded, which nobody is sent to yet."""
        self._loading[endpoint.name] = endpoint
        return self._place(endpoint)

    def registered(self, endpoint: Endpoint) -> None:
        """The endpoint that was loaded serves from now on, or others have decided otherwise."""
        if self._loading.get(endpoint.name) is endpoint:  # not another deployment of the same
            del self._loading[endpoint.name]
        self.sync()

    async def release(self, endpoint: Endpoint) -> None:
        """The endpoint is not registered after all: close what was opened for it, which takes a while where it hangs."""
        place = self._places.get(endpoint.name)
        if self._loading.get(endpoint.name) is endpoint:
            del self._loading[endpoint.name]
            if place is not None and place.endpoint == endpoint:
                del self._places[endpoint.name]
                self._leaving[place] = task = asyncio.get_running_loop().create_task(self._close(place))
                await asyncio.wait({task}, timeout=RELEASE_SECONDS)

    async def resolve(self, endpoint: Endpoint) -> None:
        """Find out whether it could be opened, and let go again. Raises `ProviderError`."""
        await (await self._open(endpoint)).close()

    def sync(self) -> None:
        """What is deployed may have changed: let go of what is not any more, and of old credentials."""
        for place in list(self._places.values()):
            place.sync()
            if not self._wanted(place.endpoint):
                del self._places[place.endpoint.name]
                self._leaving[place] = asyncio.get_running_loop().create_task(self._leave(place))

    async def drained(self, endpoint: Endpoint) -> None:
        """Wait until this process has let go of an endpoint that was undeployed."""
        self.sync()
        await asyncio.gather(*(task for place, task in self._leaving.items() if place.endpoint == endpoint))

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _wanted(self, endpoint: Endpoint) -> bool:
        name = endpoint.name
        return self._loading.get(name) == endpoint or self._endpoints.ready.get(name) == endpoint

    def _place(self, endpoint: Endpoint) -> Provider:
        place = self._places.get(endpoint.name)
        if place is not None and place.endpoint == endpoint:
            return place
        made = Place(endpoint, self._open, lambda: self._revision(endpoint))
        if self._wanted(endpoint):
            self.sync()  # another of this name, if there is one, is not wanted then
            self._places[endpoint.name] = made
            return made
        for leaving in self._leaving:
            if leaving.endpoint == endpoint:
                return leaving
        made.shut()
        return made

    def _revision(self, endpoint: Endpoint) -> int:
        if endpoint.credential is None:
            return 0
        known = self._endpoints.credentials.get((endpoint.tenant or SYSTEM_TENANT, endpoint.credential))
        return -1 if known is None else known.revision

    async def _open(self, endpoint: Endpoint) -> Provider:
        secret: str | None = None
        try:
            if endpoint.credential is not None:
                secret = await self._secret(endpoint, endpoint.credential)
            await asyncio.to_thread(
                load_provider, endpoint.provider
            )  # else the first one stops every request for half a second
            return open_provider(with_defaults(endpoint), self._environ, self._store, secret)
        except OSError:
            raise ProviderError(
                ProviderFault.CONNECTION, "its credential cannot be read: the database is out of reach"
            ) from None
        except (EndpointError, CredentialUnusable) as error:
            told = str(error)
            if secret is None or secret not in told:
                raise ProviderError(ProviderFault.AUTHENTICATION, told) from None
        except Exception as error:
            _log.warning("endpoint_not_opened", endpoint=endpoint.name, reason=type(error).__name__)
        # What a provider's package says of a credential may hold it: nothing of that is repeated.
        raise ProviderError(
            ProviderFault.AUTHENTICATION,
            f"endpoint {endpoint.name!r} cannot be opened: provider {endpoint.provider!r} does not take its credential or its options",
        )

    async def _secret(self, endpoint: Endpoint, credential: str) -> str:
        revision = self._revision(endpoint)
        if revision < 0:
            raise CredentialUnusable(f"endpoint {endpoint.name!r}: there is no credential {credential!r}; set it")
        return await self._secrets.secret(endpoint.tenant or SYSTEM_TENANT, credential, revision)

    async def _leave(self, place: Place) -> None:
        """Close a place when nothing is under way there any more, or the time for that is over."""
        try:
            async with asyncio.timeout(self._drain_seconds()):
                while place.calls or self._busy(place.endpoint.name):  # noqa: ASYNC110 (the lanes tell nobody when they are empty)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            _log.warning("endpoint_not_drained", endpoint=place.endpoint.name, calls=place.calls)
        await self._close(place)

    async def _close(self, place: Place) -> None:
        try:
            await place.close()
        finally:
            self._leaving.pop(place, None)
