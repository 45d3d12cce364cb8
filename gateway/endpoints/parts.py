"""The endpoints of one gateway as a whole: the pool, the dispatcher that calls them, circuits and health, attestation, routing, deployments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from adapters.breaker import CircuitPolicy
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.instances import live_instances
from domain.catalogue import Candidate, Endpoint, Model
from domain.endpoints import ENDED, PREPARING
from domain.errors import GatewayError
from domain.events import DeploymentChanged, EventData
from domain.ports.event_log import Appended, NewEvent
from gateway.catalogue.attestation import Answer
from gateway.catalogue.live import LiveCatalogue
from gateway.catalogue.own_requests import OwnRequests, pinned_ask
from gateway.control import Control
from gateway.credentials import CredentialSecrets
from gateway.dispatch.context import CallOutcome
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.limits import DispatchLimits
from gateway.endpoints.attest_due import DueAttestations
from gateway.endpoints.attestations import Attestations
from gateway.endpoints.deployments import Deployments
from gateway.endpoints.desk import EndpointDesk
from gateway.endpoints.pool import POOLED, EndpointPool
from gateway.endpoints.router import Router
from gateway.service.service import RequestService
from gateway.settings import Settings
from gateway.telemetry.metrics import Gauges


class EndpointPorts(msgspec.Struct, frozen=True):
    """What endpoints need of their gateway. `settings` gives those in force; `service` and `instance` are asked when they are needed, since
    requests and endpoints need each other; `append` returns once the log has the events, `append_surely` when it has this one, however
    long that takes; `reach` once a position is folded.
    """

    log: PostgresEventLog
    control: Control
    secrets: CredentialSecrets
    catalogue: LiveCatalogue
    own: OwnRequests
    configured: Sequence[Endpoint]
    environ: dict[str, str]
    store: Path
    settings: Callable[[], Settings]
    service: Callable[[], RequestService]
    append: Callable[[Sequence[NewEvent]], Awaitable[list[Appended]]]
    append_surely: Callable[[NewEvent], Awaitable[object]]
    reach: Callable[[int], Awaitable[None]]
    on_call: Callable[[CallOutcome], None]


class EndpointParts:
    """Made by `open`. `dispatcher`, `router` and `attestations` are for the request service, `desk` and `deployments` for the API."""

    def __init__(self, ports: EndpointPorts) -> None:
        settings, plane = ports.settings(), ports.control.plane
        self._ports = ports
        self._stack = AsyncExitStack()
        self.pool = EndpointPool(
            plane.endpoints,
            ports.configured,
            environ=ports.environ,
            store=ports.store,
            secrets=ports.secrets,
            busy=lambda name: any(g.endpoint == name and (g.queued_texts or g.calls) for g in self.dispatcher.gauges()),
            drain_seconds=lambda: ports.settings().drain_seconds,
        )
        self._stack.push_async_callback(self.pool.close)
        self.desk = EndpointDesk(
            plane,
            endpoints=self.pool.endpoints,
            configured=[endpoint.name for endpoint in self.pool.configured],
            provider_of=self.pool.provider,
            append=ports.append_surely,
            instance=lambda: ports.service().instance,
            lanes=lambda: self.dispatcher.gauges(),
            policy=CircuitPolicy(
                settings.breaker_failures,
                settings.breaker_open_seconds,
                settings.breaker_trial_calls,
                settings.breaker_successes,
            ),
            check_seconds=settings.health_check_seconds,
        )
        self.dispatcher = Dispatcher(
            self.pool.provider,
            limits=DispatchLimits(max_queued_texts=settings.max_queued_texts),
            on_call=self._call_ended,
            breakers=self.desk.breakers.of,
        )
        self.desk.breakers.on_change(self.dispatcher.poke_endpoint)
        self.attestations = Attestations(
            plane=plane,
            catalogue=ports.catalogue.current,
            pool=ports.log.pool,
            ask=self._ask_pinned,
            ready=ports.own.ready,
            append=ports.append,
            reach=ports.reach,
            enabled=settings.attest_endpoints,
        )
        self._stack.push_async_callback(self.attestations.close)
        self.router = Router(
            breaker_of=self.desk.breakers.of,
            health_of=self.desk.health.of,
            attested=self.attestations.state,
            load=self.dispatcher.load,
            paused=self.dispatcher.paused,
        )
        self.deployments = Deployments(
            ports.control,
            self.pool,
            instance=lambda: ports.service().instance,
            live=self._live_instances,
            attest=self._attest_deployed,
            max_calls=lambda: ports.settings().max_provider_calls,
        )
        self._stack.push_async_callback(self.deployments.close)

    def open(self) -> None:
        """Open the configured endpoints. Raises `EndpointError`; `close` closes what is open."""
        self.pool.open()

    def runs(self) -> Iterable[Coroutine[Any, Any, None]]:
        """What goes on until cancelled."""
        return (*self.desk.runs(), self.deployments.run(), self.pool.warm_up())

    def observe(self, data: EventData) -> None:
        """An event of the log is about to be folded."""
        self.desk.observe(data)
        if isinstance(data, DeploymentChanged) and data.state in (PREPARING, *ENDED):
            self.dispatcher.forget(data.endpoint)
        if isinstance(data, POOLED):
            asyncio.get_running_loop().call_soon(self.pool.sync)  # once it is folded

    def attest_due(self) -> Callable[[], Awaitable[dict[str, int]]] | None:
        """A task of the installation's maintenance; None where endpoints are not attested."""
        settings = self._ports.settings()
        if not settings.attest_endpoints:
            return None
        plane, current = self._ports.control.plane, self._ports.catalogue.current
        return DueAttestations(plane.endpoints, self.attestations, current, settings.attest_every_hours).run

    def unavailable(self, tenant: str, model: Model) -> GatewayError | None:
        """Why no endpoint of the model may be sent to for the tenant now."""
        candidates = self._ports.catalogue.current().candidates(model.id, tenant)
        return self.router.refusal(model.id, candidates, model.space(model.dimensions, None))

    def watch(self, gauges: Gauges) -> None:
        """Add the gauges."""
        self.desk.watch(gauges)

    async def close(self) -> None:
        """Close what calls; the dispatcher is closed before, with the requests. Idempotent."""
        await self._stack.aclose()

    def _call_ended(self, outcome: CallOutcome) -> None:
        self._ports.on_call(outcome)
        self.desk.health.on_call(outcome)

    async def _ask_pinned(
        self, candidate: Candidate, texts: Sequence[str], size: int | None, input_type: str | None
    ) -> Answer:
        return await pinned_ask(self._ports.service())(candidate, texts, size, input_type)

    async def _attest_deployed(self, endpoint: Endpoint, model: str) -> bool:
        """Hold an endpoint that nobody is sent to yet against the model's space; False: nothing is attested. Raises `ProviderError`, `GatewayError`."""
        candidate = self._ports.catalogue.aside(endpoint, model)
        await self.attestations.ensure(candidate, candidate.model.dimensions, None, again=True)
        return self.attestations.enabled

    async def _live_instances(self) -> set[str]:
        return {str(instance) for instance in await live_instances(self._ports.log.pool)}
