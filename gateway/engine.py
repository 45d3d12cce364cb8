"""The parts of a gateway, opened and closed as a whole: log and lease, dispatcher and service, followers and views, and what runs beside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, Self
from uuid import UUID

import structlog

from adapters.appender import Appender, AppenderClosed, QueueFull
from adapters.catalogue import shipped
from adapters.memory.vector_cache import LruVectorCache
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.instances import open_of_fenced
from adapters.postgres.wakeups import Wakeups
from adapters.providers.local.files import default_store
from adapters.redis.vector_cache import RedisVectorCache
from adapters.tokenizers.registry import tokenizer
from domain.catalogue import Endpoint
from domain.events import (
    SYSTEM_TENANT,
    EventData,
    ProjectionHalted,
    ProjectionParked,
    SettingChanged,
    TenantCreated,
    TenantShredded,
)
from domain.facts import system_fact
from domain.plane import ControlPlane
from domain.ports.event_log import Appended, AppendStatus, InstanceFenced, LogUnavailable, NewEvent, StoredEvent
from domain.ports.tokenizer import Tokenizer
from gateway.alerts.desk import AlertDesk
from gateway.auth.authenticator import Authenticator
from gateway.auth.issuer import open_issuer
from gateway.catalogue.live import LiveCatalogue
from gateway.catalogue.own_requests import OwnRequests
from gateway.catalogue.retirement import end_graces
from gateway.catalogue.seeding import seed
from gateway.catalogue.validation import Validator
from gateway.collections.desk import CollectionDesk
from gateway.collections.parts import CollectionParts
from gateway.collections.searching import Searcher
from gateway.control import Control
from gateway.credential_admin import CredentialAdmin
from gateway.credentials import CredentialSecrets
from gateway.decisions import keep_tenant_key
from gateway.discovery.run import Discovery, discovery_task
from gateway.endpoints.deployments import Deployments
from gateway.endpoints.desk import EndpointDesk
from gateway.endpoints.parts import EndpointParts, EndpointPorts
from gateway.instance import Lease, Reconciler, describe
from gateway.limits.gate import RateGate
from gateway.limits.logins import FailedLogins
from gateway.limits.stores import TwoStores, open_limiter
from gateway.live_settings import overlaid
from gateway.maintenance.scheduler import Scheduler
from gateway.maintenance.schedules import Schedules
from gateway.maintenance.sealing import keep_sealed
from gateway.maintenance.tasks import gateway_tasks
from gateway.outbound import Outbound, OutboundPorts
from gateway.places import Places
from gateway.purge import Purge
from gateway.quota.live import LeasedQuotas
from gateway.quota.parts import QuotaParts
from gateway.reads.reads import Reads
from gateway.schema import SchemaWatch
from gateway.secrets import MasterKey
from gateway.service import refusals
from gateway.service.replay import abandoned_event
from gateway.service.selector import Selector
from gateway.service.service import RequestService
from gateway.settings import Settings
from gateway.shred_ledger import LEDGER_NAME
from gateway.tail import PlaneTail
from gateway.telemetry.discovery import DiscoveryMetrics
from gateway.telemetry.logs import set_level
from gateway.telemetry.metrics import Gauges, ProviderMetrics, RequestMetrics
from gateway.telemetry.tracing import RequestTracing, open_tracing
from gateway.telemetry.watch import watch_limits, watch_maintenance, watch_parts
from gateway.tenant_keys import TenantKeys
from gateway.version import server_version
from gateway.webhooks.manage import WebhookAdmin
from gateway.wire.messages import Limits
from projections.runner import Runner

_log = structlog.get_logger("emberlog.gateway")
RECONCILE_BATCH = 1_000
"""Attempts that one round of the reconciler gives up."""
DECISION_SECONDS = 10.0
"""How long a statement of an agent waits for the log."""


class Engine:
    """What a gateway stands on, and what runs beside its requests. `Gateway` answers by it."""

    reads: Reads
    alerts: AlertDesk
    webhooks: WebhookAdmin
    endpoint_desk: EndpointDesk
    credentials: CredentialAdmin
    deployments: Deployments
    schedules: Schedules
    collections: CollectionDesk
    searches: Searcher
    discovery: Discovery
    failed_logins: FailedLogins

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self.limits = Limits()
        self.plane = ControlPlane()
        self.directory = self.plane.directory
        self.control = Control(self.plane, _Backing(self))
        self.metrics = RequestMetrics()
        self.provider_metrics = ProviderMetrics()
        self.discovery_metrics = DiscoveryMetrics()
        self.gauges = Gauges()
        self._tokenizers: dict[str, Tokenizer] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._fenced_instance: UUID | None = None
        self._log: PostgresEventLog
        self._appender: Appender
        self.endpoints: EndpointParts
        self._live: LiveCatalogue
        self._service: RequestService
        self._tail: PlaneTail
        self._validator: Validator
        self._wakeups: Wakeups
        self._runner: Runner
        self._scheduler: Scheduler
        self._places: Places
        self._keys: TenantKeys
        self._tokens: Authenticator
        self._purge: Purge
        self._schema: SchemaWatch
        self._quota: QuotaParts
        self._collections: CollectionParts
        self._outbound: Outbound
        self._credential_secrets: CredentialSecrets
        self._master: MasterKey
        self._settings: Settings
        self._base_settings: Settings
        self._lru: LruVectorCache
        self._shared: RedisVectorCache | None = None
        self._settings_callbacks: list[Callable[[Settings], None]] = []

    # -- opening and closing ----------------------------------------------------------------------------------------

    @classmethod
    async def open(cls, settings: Settings, places: Places, master: MasterKey) -> Self:
        """Connect, catch up with the log, take a lease and start what runs beside. Raises what the parts raise, all closed again."""
        gateway = cls()
        gateway._base_settings = gateway._settings = settings
        gateway.failed_logins = FailedLogins(settings.failed_logins_per_minute)
        gateway._places, gateway._master = places, master
        try:
            await gateway._open()
        except BaseException:
            await gateway.close()
            raise
        return gateway

    async def _open(self) -> None:
        settings, places = self._settings, self._places
        self._log = await PostgresEventLog.connect(
            places.app_dsn, pool_size=settings.database_pool_size, archive_dir=settings.archive_folder
        )
        self._stack.push_async_callback(self._log.close)
        if await self._log.pool.fetchval("SHOW fsync") != "on":
            _log.warning(
                "fsync_is_off", consequence="a power cut may lose committed events: switch fsync on in Postgres"
            )
        self._schema = SchemaWatch(self._log.pool)
        self._tail = PlaneTail(self._log, self.plane, self._observe)
        self._tokens = Authenticator(
            [open_issuer(issuer, settings.environment()) for issuer in settings.jwt_issuers], self.directory
        )
        self._stack.push_async_callback(self._tokens.close)
        self._keys = TenantKeys(self._log.pool, self._master, self.directory.shredded)
        if settings.archive_folder is not None:
            await self._keys.obey(settings.archive_folder / LEDGER_NAME)
        await self._keys.load()
        await self._tail.catch_up()
        endpoints = settings.configured_endpoints()
        self._live = LiveCatalogue(self.plane, endpoints)
        self._credential_secrets = CredentialSecrets(self._log.pool, self._master, self._keys.opened)
        self.credentials = CredentialAdmin(self.plane, self._credential_secrets)
        lru, shared = LruVectorCache(settings.cache_bytes, settings.cache_ttl_seconds, time.monotonic), None
        if places.redis_url is not None:
            shared = RedisVectorCache(places.redis_url, settings.cache_ttl_seconds)
            self._stack.push_async_callback(shared.close)
        self._lru, self._shared = lru, shared
        self._purge = Purge(lru, shared, self._forget_in_database)
        rates = self._open_rates()
        instance = await self._log.register_instance(describe(), settings.instance_lease_seconds)
        self._appender = self._new_appender(instance)
        if await seed(self.plane, shipped(), partial(self._log.append, instance)):
            await self._tail.catch_up()
        self._live.check()
        self.endpoints = EndpointParts(self._endpoint_ports(endpoints))
        self._stack.push_async_callback(self.endpoints.close)
        self.endpoints.open()
        self.endpoint_desk, self.deployments = self.endpoints.desk, self.endpoints.deployments
        self._collections = await CollectionParts.open(places, self.plane)
        self._stack.push_async_callback(self._collections.close)
        self.collections = self._collections.desk
        self.searches = Searcher(
            self.plane, self._collections.tables, lambda *asked, **how: self._service.generate(*asked, **how)
        )
        self._quota = await QuotaParts.open(places.app_dsn, self.plane, str(instance))
        self._stack.callback(self._quota.close)
        self._service = RequestService(
            log=self._log,
            appender=self._appender,
            dispatcher=self.endpoints.dispatcher,
            catalogue=self._live.current,
            prices=self.plane.prices,
            plane=self.plane,
            tenant_keys=self._keys.opened,
            tokenizer_of=self._tokenizer,
            lru=lru,
            shared_cache=shared,
            metrics=self.metrics,
            tracing=self._open_tracing(),
            instance=str(instance),
            selector=Selector(
                self.plane,
                self._live.current,
                live=LeasedQuotas(self.plane, self._quota.keeper, self._quota.gate),
                latency_ms=self.provider_metrics.latency_ms,
                unavailable=self.endpoints.unavailable,
            ),
            router=self.endpoints.router,
            attests=self.endpoints.attestations,
            storing=self._collections.storing,
            limits=self.limits,
            gates=[rates, self._quota.gate],
            dry_gates=[self._quota.gate],
        )
        self._validator = Validator(
            self.control,
            self._service,
            self._live.current,
            self._log.pool,
            self._own_requests(),
        )
        self._wakeups = Wakeups(places.app_dsn)
        self._wakeups.on_wake(self._tail.wake)
        self._runner = Runner(places.app_dsn, read=self._log.read, on_trouble=self._view_troubled)
        self._wakeups.on_wake(self._runner.wake)
        await self._wakeups.start()
        self._stack.push_async_callback(self._wakeups.close)
        await self._runner.start()
        self._stack.push_async_callback(self._runner.stop)
        self.reads = await Reads.open(self._log, places.app_dsn, self._runner, self.directory)
        self._stack.push_async_callback(self.reads.close)
        self._outbound = await Outbound.open(settings, self._outbound_ports())
        self._stack.push_async_callback(self._outbound.close)
        self._wakeups.on_wake(self._outbound.wake)
        self.alerts, self.webhooks = self._outbound.alerts, self._outbound.webhooks
        self._start(self._tail.run())
        self._start(Reconciler(self._log, self._abandon_open, settings.instance_lease_seconds).run())
        self.schedules = Schedules(self._log.pool)
        self.discovery = Discovery(
            self.control,
            self.endpoints.pool.endpoints,
            self.endpoints.pool.provider,
            lambda: self._settings.discovery_state,
            self.discovery_metrics,
        )
        self._scheduler = Scheduler(
            self._log.pool,
            [
                *gateway_tasks(
                    self._log,
                    settings,
                    places,
                    self._abandon_open,
                    lambda: end_graces(self.control),
                    self.endpoints.attest_due(),
                ),
                discovery_task(self.discovery, lambda: self._settings.discovery_hours),
            ],
            lambda event: self._appender.append(event),
            lambda: UUID(self._service.instance),
        )
        self._start(self._scheduler.run())
        for work in (*self._quota.runs(), *self.endpoints.runs(), *self._collections.runs()):
            self._start(work)
        self._start(keep_sealed(self._log.pool))
        self._start(self._tokens.run())
        self._hold(instance)
        self._apply_settings()
        watch_parts(
            self.gauges,
            self._service,
            lambda: self._appender,
            self.endpoints.dispatcher,
            self._log,
            self._runner,
            shared,
        )
        watch_maintenance(self.gauges, self._scheduler)
        self._quota.watch(self.gauges)
        self.endpoints.watch(self.gauges)
        for work in self._outbound.work():
            self._start(work)
        self._outbound.watch_gauges(self.gauges)

    def _new_appender(self, instance: UUID) -> Appender:
        return Appender(self._log, instance, on_fenced=partial(self._fenced, instance), on_batch=self._appended)

    def _endpoint_ports(self, configured: Sequence[Endpoint]) -> EndpointPorts:
        settings = self._settings
        return EndpointPorts(
            log=self._log,
            control=self.control,
            secrets=self._credential_secrets,
            catalogue=self._live,
            own=self._own_requests(),
            configured=configured,
            environ=settings.environment(),
            store=settings.model_store or default_store(),
            settings=lambda: self._settings,
            service=lambda: self._service,
            append=self.append_decisions,
            append_surely=self._append_surely,
            reach=self._reach,
            on_call=self.provider_metrics.call_ended,
        )

    def _open_tracing(self) -> RequestTracing | None:
        tracing = open_tracing(server_version())
        if tracing is not None:
            self._stack.push_async_callback(asyncio.to_thread, tracing.close)
        return tracing

    def _open_rates(self) -> RateGate:
        limiter = open_limiter(self._places.app_dsn, self._places.redis_url)
        self._stack.push_async_callback(limiter.close)
        if isinstance(limiter, TwoStores):
            watch_limits(self.gauges, limiter)
        gate = RateGate(self.plane.rate_limits, limiter)
        self._stack.push_async_callback(gate.close)
        return gate

    def _outbound_ports(self) -> OutboundPorts:
        return OutboundPorts(
            dsn=self._places.app_dsn,
            log=self._log,
            control=self.control,
            runner=self._runner,
            master=self._master,
            tenant_keys=self._keys.opened,
            append=self.append_decisions,
            reach=self.plane_reaches,
            drift=lambda: self._quota.upkeep.drift,
            endpoints=self.endpoint_desk.conditions,
        )

    async def _forget_in_database(self, tenant: str) -> None:
        await self._outbound.forget(tenant)
        await self._credential_secrets.forget(tenant)
        await self._collections.forget(tenant)

    def _hold(self, instance: UUID) -> None:
        self._start(
            Lease(self._log, instance, self._settings.instance_lease_seconds, partial(self._fenced, instance)).run()
        )

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("background_work_failed", exc_info=error)

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return self._service.in_flight

    def refuse_new(self) -> None:
        """From now on new requests are told `draining`."""
        self._service.draining = True

    async def drain(self) -> None:
        """Refuse new requests and wait for those in flight, at most the drain time."""
        await self._service.drain(self._settings.drain_seconds)

    async def close(self) -> None:
        """Stop everything. What is in flight stays open in the log, for a resend or the reconciler."""
        for task in self._tasks.copy():
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self, "_service"):
            await self._service.close()
            await self.endpoints.dispatcher.close()
            await self._appender.close()
            await self._quota.give_back()
            with suppress(LogUnavailable):
                await self._log.fence_instance(UUID(self._service.instance))
        await self._stack.aclose()

    # -- the log's side -----------------------------------------------------------------------------------------------

    async def _observe(self, event: StoredEvent, data: EventData) -> None:
        if isinstance(data, TenantCreated) and data.tenant not in self._keys.opened:
            await self._keys.load_running()
        elif isinstance(data, TenantShredded):
            self._keys.forget(data.tenant)
            if hasattr(self, "_service"):
                self._service.shred(data.tenant)
                self._start(self._purge.keep_trying(data.tenant))
        elif isinstance(data, SettingChanged) and hasattr(self, "_service"):
            asyncio.get_running_loop().call_soon(self._apply_settings)  # once it is folded
        if hasattr(self, "endpoints"):
            self.endpoints.observe(data)

    def _appended(self, appended: Sequence[Appended]) -> None:
        self._wakeups.poke()

    def _fenced(self, instance: UUID) -> None:
        """Our lease is gone: whoever took it may have given up our requests. Start anew as another instance.

        Both the appender and the keeper of the lease find out; what the later of them says may be old news.
        """
        if self._fenced_instance != instance:
            self._fenced_instance = instance
            self._start(self._start_anew())

    async def _start_anew(self) -> None:
        self._service.fenced()
        await self._appender.close()
        while True:
            try:
                instance = await self._log.register_instance(describe(), self._settings.instance_lease_seconds)
                break
            except LogUnavailable:
                await asyncio.sleep(1)
        self._appender = self._new_appender(instance)
        self._service.rebind(self._appender, str(instance))
        self._quota.keeper.rebind(str(instance))
        self._hold(instance)
        _log.warning("instance_started_anew", instance=str(instance))

    def _view_troubled(self, trouble: EventData) -> None:
        """A view cannot fold an event: that is an event itself, logged once whichever process finds it."""
        if isinstance(trouble, ProjectionHalted | ProjectionParked):
            identity = f"{trouble.projection}/{trouble.generation}/{trouble.failed_position}"
            self._start(self._append_surely(system_fact(trouble, identity, time.time_ns() // 1000)))

    async def _append_surely(self, event: NewEvent) -> None:
        """Append what nobody waits for and nobody says again: until the log has it, or this gateway ends."""
        while True:
            try:
                await self._appender.append(event)
                return
            except (QueueFull, InstanceFenced, AppenderClosed):
                await asyncio.sleep(1)

    async def _abandon_open(self) -> int:
        """Write the outcome of what fenced instances left open; returns how many this process wrote."""
        left = await open_of_fenced(self._log.pool, RECONCILE_BATCH)
        written = await asyncio.gather(
            *(self._appender.append(abandoned_event(tenant, requested)) for tenant, requested in left)
        )
        return sum(appended.status is AppendStatus.APPENDED for appended in written)

    def on_settings(self, callback: Callable[[Settings], None]) -> None:
        """Call `callback` with the settings in force, now and whenever they change."""
        self._settings_callbacks.append(callback)
        callback(self._settings)

    def _apply_settings(self) -> None:
        settings = overlaid(self._base_settings, self.plane.settings.values)
        if settings == self._settings:
            return
        self._settings = settings
        self._lru.resize(settings.cache_bytes, settings.cache_ttl_seconds)
        if self._shared is not None:
            self._shared.ttl_seconds = settings.cache_ttl_seconds
        self.endpoints.dispatcher.bound_queue(settings.max_queued_texts)
        set_level(settings.log_level)
        for callback in self._settings_callbacks:
            callback(settings)

    # -- decisions ---------------------------------------------------------------------------------------------------

    async def plane_reaches(self, position: int, timeout: float) -> None:
        """See `EmbeddingService.plane_reaches`."""
        await self._tail.wait_for(position, timeout)

    async def append_decisions(self, events: Sequence[NewEvent]) -> list[Appended]:
        """Append, in order. Raises `unavailable`."""
        if not self._appender.healthy:
            raise refusals.log_error(LogUnavailable())
        try:
            async with asyncio.timeout(DECISION_SECONDS):
                return await asyncio.gather(*(self._appender.append(event) for event in events))
        except (LogUnavailable, InstanceFenced, AppenderClosed, QueueFull, TimeoutError) as error:
            raise refusals.log_error(error) from None

    async def catch_up(self) -> None:
        """Fold every decision that is in the log by now. Raises `LogUnavailable`."""
        await self._tail.catch_up()

    async def _reach(self, position: int) -> None:
        if self.plane.position < position:
            await self.catch_up()

    def _own_requests(self) -> OwnRequests:
        settings = self._settings
        return OwnRequests(
            self.control, self._keep_own_key, settings.system_budget_nano_usd, settings.attestation_tokens_per_month
        )

    async def _keep_own_key(self) -> None:
        """The key of the tenant that our own requests are of, here and in the database."""
        if SYSTEM_TENANT not in self._keys.opened:
            await keep_tenant_key(self._log, self._master, SYSTEM_TENANT)
            await self._keys.load_running()

    def _tokenizer(self, model_id: str) -> Tokenizer | None:
        model = self._live.current().models.get(model_id)
        if model is None or model.tokenizer is None:
            return None
        found = self._tokenizers.get(model.tokenizer)
        if found is None:
            found = tokenizer(model.tokenizer, self._settings.model_store or default_store())
            if found is not None:
                self._tokenizers[model.tokenizer] = found
        return found


class _Backing:
    """Where the gateway's decisions go: see `gateway.control.Backing`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def append(self, events: Sequence[NewEvent]) -> list[Appended]:
        """Through the appender, as whatever else this gateway writes."""
        return await self._engine.append_decisions(events)

    async def reach(self, position: int) -> None:
        """Fold on until there."""
        if self._engine.plane.position < position:
            await self.catch_up()

    async def catch_up(self) -> None:
        """Fold what is there."""
        try:
            await self._engine.catch_up()
        except LogUnavailable as error:
            raise refusals.log_error(error) from None
