"""Putting endpoints to work: prepare, allocate, load, register; and taking them out again. Every step is an event.

The process that is asked does the work. Where it dies in the middle, another one says so (`reap`), so that what was claimed is free again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from traceback import format_tb
from typing import Any
from uuid import uuid4

import structlog

from adapters.postgres.pool import UNREACHABLE
from domain.catalogue import Endpoint
from domain.decision import Decision
from domain.deployment_decisions import (
    STAGES,
    check_share,
    decide_deploy,
    decide_step,
    decide_undeploy,
    endpoint_name,
    may_step,
)
from domain.endpoints import (
    ALLOCATING,
    DRAINING,
    FAILED,
    LOADING,
    READY,
    STOPPED,
    UNFINISHED,
    Deployment,
    endpoint_stream,
)
from domain.errors import GatewayError
from domain.events import EndpointSpec
from domain.plane import ControlPlane
from domain.ports.event_log import LogUnavailable
from domain.ports.provider import Provider, ProviderError, ProviderFault
from gateway.control import Control, Written
from gateway.endpoints.memory import LOCAL_MODEL_BYTES, available_memory
from gateway.endpoints.pool import EndpointPool

_log = structlog.get_logger("emberlog.deployments")
LOAD_SECONDS = 120.0
"""How long loading may take: opening the provider, getting it ready, a sign of life, the attestation."""
CHECK_SECONDS = 10.0
RETRY_SECONDS = 1.0
REAP_SECONDS = 2.0
POLL_SECONDS = 0.05
REAPER = "reconciler"

Take = Callable[[str, Callable[[ControlPlane], list[Decision]]], Awaitable[Written]]
"""Takes a decision on a stream: `Control.run`, or `Call.decide` of a route."""


class Deployments:
    """Those of one installation, as one process works at them.

    `instance` is this process's as of now, `live` all that may still write. `attest` embeds at an endpoint which nobody is sent to yet
    (False: nothing is attested) and raises `ProviderError` or `GatewayError` unless its vectors are those of the model; `max_calls` bounds the provider calls of
    all endpoints at once.
    """

    def __init__(
        self,
        control: Control,
        pool: EndpointPool,
        *,
        instance: Callable[[], str],
        live: Callable[[], Awaitable[Collection[str]]],
        attest: Callable[[Endpoint, str], Awaitable[bool]],
        max_calls: Callable[[], int],
        memory: Callable[[], int | None] = available_memory,
    ) -> None:
        self._control = control
        self._plane = control.plane
        self._pool = pool
        self._instance = instance
        self._live = live
        self._attest = attest
        self._max_calls = max_calls
        self._memory = memory
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # -- what is asked ----------------------------------------------------------------------------------------------------

    async def deploy(
        self, take: Take, name: str, model: str, spec: EndpointSpec, *, owner: str | None, operator: bool, actor: str
    ) -> tuple[Deployment, bool]:
        """Begin to put an endpoint to work, and go on with it; tells whether it is a new one. Raises what `decide_deploy` does."""
        endpoint = endpoint_name(name, owner)
        identity = uuid4().hex
        configured = {e.name for e in self._pool.configured}
        written = await take(
            endpoint_stream(endpoint),
            lambda plane: decide_deploy(
                plane,
                name,
                identity,
                model,
                spec,
                owner=owner,
                operator=operator,
                configured=configured,
                instance=self._instance(),
                at=_now(),
                actor=actor,
            ),
        )
        found = self._plane.endpoints.deployments.get(endpoint)
        if found is None:
            raise GatewayError("not_found", "the tenant was shredded meanwhile", details={"field": "tenant"})
        if written.changed and found.id == identity:
            self._start(found, self._put_to_work(found, actor))
        return found, written.changed

    async def undeploy(self, take: Take, deployment: Deployment, *, actor: str) -> Deployment:
        """Take an endpoint out of service, and see to it that it drains. Nothing is done where that was asked before."""
        written = await take(
            endpoint_stream(deployment.endpoint),
            lambda plane: decide_undeploy(plane, deployment, instance=self._instance(), at=_now(), actor=actor),
        )
        found = self._current(deployment)
        if written.changed and found.state == DRAINING:
            self._start(found, self._drain(found, actor))
        elif found.state == STOPPED and (task := self._tasks.get(found.id)) is not None:
            task.cancel()  # it was called off
        return found

    async def settled(self, deployment: Deployment, seconds: float) -> Deployment:
        """The deployment as it stands when nobody is at work on it any more, or after that time."""
        try:
            async with asyncio.timeout(seconds):
                # Whichever process is at work, the fold tells.
                while self._current(deployment).state in UNFINISHED | {DRAINING}:  # noqa: ASYNC110
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            pass
        return self._current(deployment)

    # -- what runs beside -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look after what other processes left, until cancelled."""
        while True:
            await asyncio.sleep(REAP_SECONDS)
            try:
                await self.reap()
            except (GatewayError, LogUnavailable, *UNREACHABLE) as error:
                _log.warning("deployments_not_reaped", reason=str(error))

    async def reap(self) -> int:
        """End the deployments that an instance was at work on which is no more; returns how many."""
        left = [d for d in self._plane.endpoints.deployments.values() if d.state in UNFINISHED | {DRAINING}]
        if not left:
            return 0
        live = await self._live()
        reaped = 0
        for deployment in left:
            if deployment.instance in live:
                continue
            if deployment.state == DRAINING:
                done = await self._step(deployment, STOPPED, REAPER)
            else:
                stage = STAGES[deployment.state]
                reason = "the gateway that was at work on it has ended: deploy it again"
                done = await self._step(deployment, FAILED, REAPER, stage=stage, code="unavailable", reason=reason)
            if done:
                _log.warning("deployment_reaped", endpoint=deployment.endpoint, state=deployment.state)
                reaped += 1
        return reaped

    async def close(self) -> None:
        """Leave what is under way: it is reaped once this instance has ended. Idempotent."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- the stages -------------------------------------------------------------------------------------------------------

    async def _put_to_work(self, deployment: Deployment, actor: str) -> None:
        endpoint, stage = deployment.served(), "prepare"
        try:
            await self._pool.resolve(endpoint)
            if not await self._step(deployment, ALLOCATING, actor):
                return  # others have ended it: nothing was taken yet
            stage = "allocate"
            self._allocate(deployment)
            if not await self._step(deployment, LOADING, actor):
                return
            stage = "load"
            await self._load(endpoint, deployment.model)
            stage = "register"
            await self._step(deployment, READY, actor)
            self._pool.registered(endpoint)
        except asyncio.CancelledError:
            await self._pool.release(endpoint)
            raise
        except Exception as error:
            code, reason = _told(error, stage)
            if code == "internal":  # what it says may hold a credential: where it was raised must do
                _log.error(
                    "deployment_broken", endpoint=endpoint.name, stage=stage, where=format_tb(error.__traceback__)
                )
            await self._pool.release(endpoint)  # what it took is given back before anybody is told
            await self._step(deployment, FAILED, actor, stage=stage, code=code, reason=reason)
            _log.warning("deployment_failed", endpoint=endpoint.name, stage=stage, reason=reason)

    def _allocate(self, deployment: Deployment) -> None:
        configured = sum(e.max_concurrency for e in self._pool.configured)
        check_share(self._plane, deployment, configured, self._max_calls())
        if deployment.spec.provider == "local":
            left = self._memory()
            if left is not None and left < LOCAL_MODEL_BYTES:
                raise GatewayError(
                    "resource_constraint",
                    f"the local model takes {LOCAL_MODEL_BYTES} bytes of memory, and {left} are left here",
                    details={"field": "provider", "left": left},
                )

    async def _load(self, endpoint: Endpoint, model: str) -> None:
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                provider = self._pool.take_up(endpoint)
                await provider.warm_up()
                refused = await _sign_of_life(provider)
                try:
                    embeds = await self._attest(endpoint, model)
                except (ProviderError, GatewayError):
                    if refused is not None:
                        raise refused from None
                    raise
                if refused is not None and not embeds:
                    raise refused
        except TimeoutError:
            raise ProviderError(ProviderFault.TIMEOUT, f"it was not ready to serve within {LOAD_SECONDS:g} s") from None

    async def _drain(self, deployment: Deployment, actor: str) -> None:
        await self._pool.drained(deployment.served())
        await self._step(deployment, STOPPED, actor)

    async def _step(self, deployment: Deployment, state: str, actor: str, **fields: str | None) -> bool:
        """Write a step, as soon as the log is there; False where others have ended the deployment meanwhile."""
        while True:
            try:
                await self._control.run(
                    lambda plane: decide_step(
                        plane, deployment, state, at=_now(), actor=actor, instance=self._instance(), **fields
                    ),
                    stream=endpoint_stream(deployment.endpoint),
                )
                return True
            except GatewayError as error:
                if error.code == "version_conflict" and not may_step(self._plane, deployment, state):
                    return False
                if error.code not in ("unavailable", "version_conflict"):
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _current(self, deployment: Deployment) -> Deployment:
        found = self._plane.endpoints.deployments.get(deployment.endpoint)
        return deployment if found is None or found.id != deployment.id else found

    def _start(self, deployment: Deployment, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[deployment.id] = task
        task.add_done_callback(lambda done: self._ended(deployment, done))

    def _ended(self, deployment: Deployment, task: asyncio.Task[None]) -> None:
        if self._tasks.get(deployment.id) is task:
            del self._tasks[deployment.id]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("deployment_broken", endpoint=deployment.endpoint, exc_info=error)


async def _sign_of_life(provider: Provider) -> ProviderError | None:
    """Check it; returns what it said where it refused our credential: some keys may embed and nothing else. Raises `ProviderError`."""
    try:
        await provider.check(CHECK_SECONDS)
    except ProviderError as error:
        if error.fault is not ProviderFault.AUTHENTICATION:
            raise
        return error
    return None


def _told(error: Exception, stage: str) -> tuple[str, str]:
    """The code and the words for what kept an endpoint from serving. What is not known to be harmless is not repeated."""
    if isinstance(error, ProviderError):
        code = "provider_unavailable" if error.fault.retryable else "provider_error"
        return code, str(error) if stage != "prepare" else error.detail  # nobody was called yet: no fault to name
    if isinstance(error, GatewayError):
        return error.code, error.message
    return "internal", f"a fault of the gateway's ({type(error).__name__}): its log says more"


def _now() -> int:
    return time.time_ns() // 1000
