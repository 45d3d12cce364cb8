"""A deployed endpoint's provider in this process: opened by its first call, and opened anew when its credential has changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from domain.catalogue import Endpoint
from domain.ports.lists_models import Listing, ListsModels
from domain.ports.provider import EmbedAnswer, EmbedCall, Provider, ProviderError, ProviderFault

RETRY_SECONDS = 15.0
"""How long a provider that could not be opened is not tried again, unless its credential changes."""

_log = structlog.get_logger("emberlog.endpoints")

Open = Callable[[Endpoint], Awaitable[Provider]]
"""Opens the provider of an endpoint. Raises `ProviderError` and nothing else."""


class _Held:
    """An open provider, of one revision of its credential, and how many calls it is at work on."""

    def __init__(self, provider: Provider, revision: int) -> None:
        self.provider = provider
        self.revision = revision
        self.calls = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def __enter__(self) -> Provider:
        self.calls += 1
        self.idle.clear()
        return self.provider

    def __exit__(self, *_: object) -> None:
        self.calls -= 1
        if not self.calls:
            self.idle.set()


class Place:
    """A `Provider` that stands for one deployed endpoint. One that cannot be opened answers every call with why.

    `revision` is that of its credential as of now, 0 where it has none.
    """

    def __init__(self, endpoint: Endpoint, open_: Open, revision: Callable[[], int]) -> None:
        self.endpoint = endpoint
        self._open = open_
        self._revision = revision
        self._held: _Held | None = None
        self._opening = asyncio.Lock()
        self._refused: tuple[int, float, ProviderError] | None = None
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def calls(self) -> int:
        """Calls under way at the provider as it is open now."""
        return self._held.calls if self._held is not None else 0

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """See `Provider.embed`."""
        with await self._ready() as provider:
            return await provider.embed(call)

    async def warm_up(self) -> None:
        """Open it, and get it ready."""
        with await self._ready() as provider:
            await provider.warm_up()

    async def check(self, timeout: float) -> None:
        """See `Provider.check`."""
        with await self._ready() as provider:
            await provider.check(timeout)

    async def list_models(self, timeout: float) -> Listing | None:
        """The provider's list of models; None where it has none. Raises `ProviderError`."""
        with await self._ready() as provider:
            return await provider.list_models(timeout) if isinstance(provider, ListsModels) else None

    def sync(self) -> None:
        """Let go of what was opened with a credential that has changed since; calls under way end first."""
        if self._held is not None and self._held.revision != self._revision():
            self._retire()

    def shut(self) -> None:
        """Take no more calls."""
        self._closed = True

    async def close(self) -> None:
        """Take no more calls; close once those under way have ended, which each does within the endpoint's timeout. Idempotent."""
        self.shut()
        async with self._opening:
            self._retire()
        await asyncio.gather(*self._closing)

    async def _ready(self) -> _Held:
        held = self._held
        if held is not None and held.revision == self._revision() and not self._closed:
            return held
        async with self._opening:
            return await self._opened()

    async def _opened(self) -> _Held:
        if self._closed:
            raise ProviderError(ProviderFault.CONNECTION, f"endpoint {self.endpoint.name!r} was undeployed")
        revision = self._revision()
        if self._held is not None and self._held.revision == revision:
            return self._held
        self._retire()  # what it was opened with is not its credential any more
        if self._refused is not None:
            of, until, error = self._refused
            if of == revision and time.monotonic() < until:
                raise ProviderError(error.fault, error.detail)
        try:
            provider = await self._open(self.endpoint)
        except ProviderError as error:
            self._refused = (revision, time.monotonic() + RETRY_SECONDS, error)
            _log.warning("endpoint_not_opened", endpoint=self.endpoint.name, reason=error.detail)
            raise
        self._refused = None
        self._held = _Held(provider, revision)
        return self._held

    def _retire(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            task = asyncio.get_running_loop().create_task(self._end(held))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _end(self, held: _Held) -> None:
        await held.idle.wait()
        try:
            await held.provider.close()
        except Exception as error:
            _log.warning("provider_not_closed", endpoint=self.endpoint.name, reason=type(error).__name__)
