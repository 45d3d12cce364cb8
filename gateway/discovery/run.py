"""A run of discovery: the lists of all providers are asked for at once, and each is held against the catalogue, whatever became of the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

import structlog

from domain.catalogue import Endpoint
from domain.decision import Decision
from domain.discovery import (
    DISCOVERY,
    Read,
    absences,
    decide_entry,
    decide_gone,
    read,
    to_deprecate,
)
from domain.errors import GatewayError
from domain.events import SYSTEM_TENANT, DiscoveryRan, ModelRegistered
from domain.plane import ControlPlane
from domain.ports.lists_models import Listing, ListsModels
from domain.ports.provider import Provider, ProviderError
from gateway.control import Control
from gateway.discovery.source import by_source, serving
from gateway.maintenance.task import Task
from gateway.telemetry.discovery import DiscoveryMetrics

_log = structlog.get_logger("emberlog.discovery")
LIST_SECONDS = 30.0
"""How long a provider may take to give its list."""


class DiscoveryFailed(Exception):
    """No list of any provider could be used; the message says of each why."""


class Discovery:
    """Reads lists through the providers of `endpoints` and decides by `control`. `state` is what new models start in, as of now."""

    def __init__(
        self,
        control: Control,
        endpoints: Callable[[], Sequence[Endpoint]],
        provider_of: Callable[[Endpoint], Provider],
        state: Callable[[], str],
        metrics: DiscoveryMetrics,
        *,
        list_seconds: float = LIST_SECONDS,
    ) -> None:
        self._control = control
        self._endpoints = endpoints
        self._provider_of = provider_of
        self._state = state
        self._metrics = metrics
        self._list_seconds = list_seconds

    async def task(self) -> dict[str, int]:
        """A run over all providers, in numbers. Raises `DiscoveryFailed` where there are lists and none could be used."""
        ran = await self.run()
        failed = [r for r in ran if r.error is not None]
        if ran and len(failed) == len(ran):
            raise DiscoveryFailed("; ".join(f"{r.source}: {r.error}" for r in failed))
        return {
            "providers": len(ran),
            "failed": len(failed),
            "found": sum(r.found for r in ran),
            "added": sum(r.added for r in ran),
            "changed": sum(r.changed for r in ran),
            "deprecated": sum(r.deprecated for r in ran),
            "skipped": sum(r.skipped for r in ran),
        }

    async def run(self, provider: str | None = None, *, actor: str = DISCOVERY) -> list[DiscoveryRan]:
        """A run over all providers that have lists, or that one: what came of each source. Raises `GatewayError` where the log is away."""
        sources = by_source(e for e in self._endpoints() if provider in (None, e.provider))
        lists = await asyncio.gather(*(self._list(endpoints) for endpoints in sources.values()))
        ran = []
        for (source, endpoints), listed in zip(sources.items(), lists, strict=True):
            if listed is not None:
                ran.append(await self._held(source, endpoints[0].provider, listed, actor))
        return ran

    async def _list(self, endpoints: Sequence[Endpoint]) -> Read | None:
        """The lists of a source's endpoints as one; None where there is none. An endpoint that fails fails them all: what only its account
        is shown would be missing.
        """
        lists: list[Listing] = []
        for endpoint in endpoints:
            try:
                async with asyncio.timeout(self._list_seconds):
                    found = await self._ask(endpoint)
                if found is not None:
                    read([found])
                    lists.append(found)
            except TimeoutError:
                return Read([], 0, f"endpoint {endpoint.name!r}: no list within {self._list_seconds:g} s")
            except ProviderError as error:
                return Read([], 0, f"endpoint {endpoint.name!r}: {error.fault}: {error.detail}"[:500])
            except Exception as error:
                # A provider of somebody else's package: what it raises, or answers, may hold anything.
                _log.warning("list_of_models_failed", endpoint=endpoint.name, reason=type(error).__name__)
                return Read([], 0, f"endpoint {endpoint.name!r}: {type(error).__name__}")
        return read(lists) if lists else None

    async def _ask(self, endpoint: Endpoint) -> Listing | None:
        provider = self._provider_of(endpoint)
        return await provider.list_models(self._list_seconds) if isinstance(provider, ListsModels) else None

    async def _held(self, source: str, provider: str, listed: Read, actor: str) -> DiscoveryRan:
        """Hold a list against the catalogue."""
        now = time.time()
        at = int(now * 1_000_000)
        if listed.error is not None:
            ran = DiscoveryRan(source, provider, at, skipped=listed.skipped, error=listed.error, actor=actor)
        else:
            added = changed = deprecated = 0
            skipped = listed.skipped
            for entry in listed.entries:
                decide = partial(decide_entry, provider=provider, entry=entry, state=self._state(), actor=actor)
                try:
                    new = await self._decided(decide)
                except GatewayError as error:
                    if error.code == "unavailable":
                        raise
                    skipped += 1
                    _log.info("listed_model_left_out", source=source, model=entry.id[:80], reason=error.message[:300])
                else:
                    added, changed = added + (new is True), changed + (new is False)
            plane = self._control.plane
            seen = absences(plane.discoveries.sources.get(source), plane, provider, listed.entries, now=int(now))
            for model in to_deprecate(plane, source, seen, serving(self._endpoints())):
                gone = partial(decide_gone, model=model, source=source, now=now, actor=actor)
                deprecated += await self._decided(gone) is not None
            kept = seen.error is None
            ran = DiscoveryRan(
                source,
                provider,
                at,
                found=len(listed.entries),
                added=added,
                changed=changed,
                deprecated=deprecated,
                skipped=skipped,
                error=seen.error,
                listed=sorted(seen.listed) if kept else [],
                absent=seen.absent if kept else {},
                gone=sorted(seen.gone) if kept else [],
                actor=actor,
            )
        stream = f"discovery/{source}"
        await self._control.run(lambda _: [Decision(SYSTEM_TENANT, stream, ran)], stream=stream)
        self._metrics.ran(ran)
        if ran.error is not None:
            _log.warning("discovery_failed", source=source, reason=ran.error)
        return ran

    async def _decided(self, decide: Callable[[ControlPlane], list[Decision]]) -> bool | None:
        """Take a decision on a model: whether it is new in the catalogue, None where there was nothing to decide."""
        first = decide(self._control.plane)
        if not first:
            return None
        written = await self._control.run(decide, stream=first[0].stream)
        return isinstance(first[0].data, ModelRegistered) if written.changed else None


def discovery_task(discovery: Discovery, hours: Callable[[], int]) -> Task:
    """The task of the installation: every so many hours, which may change; 0: when it is asked for."""
    return Task(DISCOVERY, lambda: timedelta(hours=hours()) if hours() else None, discovery.task)
