"""Whether endpoints may serve their spaces: asked in passing by the router, found out by embedding probe texts at the endpoint itself.

What was found is an event, so that every process knows of it; several that find it out at once write the same several times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import asyncpg
import structlog

from adapters.postgres.pool import UNREACHABLE
from domain.attestations import AttestationState, attestation_state
from domain.catalogue import Candidate, Catalogue, Endpoint
from domain.endpoints import endpoint_stream
from domain.errors import GatewayError
from domain.events import SYSTEM_TENANT, EndpointAttested
from domain.plane import ControlPlane
from domain.ports.event_log import Appended, LogUnavailable, NewEvent
from domain.ports.provider import ProviderError, ProviderFault
from domain.space import size_and_type
from gateway.catalogue.attestation import Answer, attest_endpoint
from gateway.decisions import check_appended, decision_event
from gateway.service.refusals import log_error

__all__ = ["AttestationState", "Attestations", "PinnedAsk"]

Attested, Unattested, Quarantined = (
    AttestationState.ATTESTED,
    AttestationState.UNATTESTED,
    AttestationState.QUARANTINED,
)
_log = structlog.get_logger("emberlog.attestation")
_Key = tuple[str, str, str, bool]
_WORDS = {
    ProviderFault.NOT_SERVED: "there is no such model, deployment or address; look at `base_url` and at the provider's id of the model"
}
"""What is said of probes that failed where the fault alone does not tell what to mend."""
_KEEP_SPACES = 4096
"""Above this many spaces, what each is attested by is worked out anew: sizes can be chosen freely within a range, and names of endpoints."""


class PinnedAsk(Protocol):
    """Embeds texts at one endpoint and nowhere else, as a request of ours."""

    async def __call__(
        self, candidate: Candidate, texts: Sequence[str], size: int | None, input_type: str | None
    ) -> Answer:
        """Raises `GatewayError`, with `details.attempts` where calls failed."""
        ...


class Attestations:
    """One in each process. `ready` returns once requests of ours can be sent to endpoints of an owner's (`OwnRequests.ready`), `append` writes events and `reach` waits
    until this process has folded up to a position; `catalogue` gives the catalogue as of now.

    With `enabled` false every endpoint counts as attested, and nothing is asked unless somebody orders it (`attest`).
    """

    def __init__(
        self,
        *,
        plane: ControlPlane,
        catalogue: Callable[[], Catalogue],
        pool: asyncpg.Pool[asyncpg.Record],
        ask: PinnedAsk,
        ready: Callable[[str | None], Awaitable[None]],
        append: Callable[[Sequence[NewEvent]], Awaitable[list[Appended]]],
        reach: Callable[[int], Awaitable[None]],
        enabled: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.enabled = enabled
        self._endpoints = plane.endpoints
        self._catalogue = catalogue
        self._pool = pool
        self._ask = ask
        self._ready = ready
        self._append = append
        self._reach = reach
        self._clock = clock
        self._running: dict[_Key, asyncio.Task[EndpointAttested]] = {}
        self._sought: tuple[Catalogue | None, dict[str, str]] = (None, {})
        self._configurations: dict[str, tuple[Endpoint, str]] = {}

    def state(self, endpoint: Endpoint, space: str) -> AttestationState:
        """Where the endpoint stands with the space, as of now."""
        if not self.enabled:
            return Attested
        return attestation_state(self._endpoints, endpoint.name, self._configuration(endpoint), self.attested_by(space))

    def attested_by(self, space: str) -> str:
        """The space whose attestation stands for this one: itself, or that of the model's own size where a request chose another from a range.

        Else a tenant that tries every size would use up what attestation may cost.
        """
        catalogue = self._catalogue()
        seen, found = self._sought
        if seen is not catalogue or len(found) > _KEEP_SPACES:
            found = {}
            self._sought = catalogue, found
        known = found.get(space)
        if known is None:
            model = catalogue.models.get(space.rpartition("@")[0])
            size, input_type = size_and_type(space)
            listed = model is None or size == model.dimensions or size in model.dimensions_allowed
            known = found[space] = space if model is None or listed else model.space(model.dimensions, input_type)
        return known

    async def ensure(self, candidate: Candidate, size: int, input_type: str | None, *, again: bool = False) -> None:
        """Return once the endpoint is attested for the space of this size and input type; however many wait, it is asked once.

        One that is quarantined is asked only with `again`, which is for endpoints that somebody is putting to work.
        Raises `ProviderError`: with the fault of the probe's call where that failed, `unattested` where it could not be made, and
        `drifted` where the vectors are not those of the space, now or when it was found so.
        """
        space = self.attested_by(candidate.model.space(size, input_type))
        state = self.state(candidate.endpoint, space)
        if state is Attested:
            return
        if state is Quarantined and not again:
            raise drifted(candidate)
        try:
            found = await self.attest(candidate, size_and_type(space)[0], input_type)
        except GatewayError as error:
            raise fault_of(error) from None
        if not found.passed:
            raise drifted(candidate)

    async def attest(
        self, candidate: Candidate, size: int, input_type: str | None, *, renew: bool = False, actor: str | None = None
    ) -> EndpointAttested:
        """Ask the endpoint, whatever its state; returns what was found and logged. With `renew` it gives the space new references.

        Raises `GatewayError` where the probes were not answered, or what was found could not be logged.
        """
        endpoint, space = candidate.endpoint, candidate.model.space(size, input_type)
        key = endpoint.name, self._configuration(endpoint), space, renew
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(
                self._attest(candidate, size, space, input_type, renew, actor)
            )
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        try:
            return await asyncio.shield(task)
        except (LogUnavailable, *UNREACHABLE):
            raise log_error(LogUnavailable()) from None

    async def close(self) -> None:
        """End what is under way: who waits for it gets a cancellation. Idempotent."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _attest(
        self, candidate: Candidate, size: int, space: str, input_type: str | None, renew: bool, actor: str | None
    ) -> EndpointAttested:
        endpoint, at = candidate.endpoint, int(self._clock() * 1_000_000)
        await self._ready(endpoint.tenant)
        kind = input_type if space.endswith(f"/{input_type}") else "document"
        finding = await attest_endpoint(
            self._pool,
            candidate,
            size,
            space,
            lambda texts, wanted: self._ask(candidate, texts, wanted, kind),
            self._epoch,
            renew=renew,
        )
        data = EndpointAttested(
            endpoint=endpoint.name,
            model=candidate.model.id,
            space=space,
            passed=not finding.problems,
            at=at,
            configuration=self._configuration(endpoint),
            cosine_min=finding.cosine_min,
            references=finding.digest,
            latency_ms=finding.latency_ms,
            problems=finding.problems,
            actor=actor,
            epoch=finding.against.epoch,
            owner=finding.against.owner or None,
        )
        stream = endpoint_stream(endpoint.name)
        [appended] = await self._append([decision_event(endpoint.tenant or SYSTEM_TENANT, stream, data)])
        position = check_appended(appended, stream).position
        if not data.passed:
            _log.error("endpoint_drifted", endpoint=endpoint.name, space=space, problems=data.problems)
        if position is not None:
            await self._reach(position)
        return data

    def _ended(self, key: _Key, task: asyncio.Task[EndpointAttested]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may be left who does

    def _epoch(self, space: str, owner: str) -> int:
        return self._endpoints.epochs.get((space, owner or None), 0)

    def _configuration(self, endpoint: Endpoint) -> str:
        known = self._configurations.get(endpoint.name)
        if known is None or known[0] is not endpoint:
            if len(self._configurations) > _KEEP_SPACES:
                self._configurations.clear()
            known = self._configurations[endpoint.name] = endpoint, endpoint.configuration
        return known[1]


def drifted(candidate: Candidate) -> ProviderError:
    """What a request is told of an endpoint whose vectors are not those of the space."""
    return ProviderError(
        ProviderFault.DRIFTED, f"the vectors of {candidate.endpoint.name} are not those of {candidate.model.id}"
    )


def fault_of(error: GatewayError) -> ProviderError:
    """The failed attempt that probes which were not answered are. What the endpoint finds wrong with them is no fault of a request's texts."""
    attempts = (error.details or {}).get("attempts") or []
    reason = attempts[-1]["reason"] if attempts else None
    if error.code == "deadline_exceeded":
        fault = ProviderFault.TIMEOUT
    elif reason in tuple(ProviderFault) and ProviderFault(reason).elsewhere:
        fault = ProviderFault(reason)
    else:
        fault = ProviderFault.UNATTESTED
    retry_after = None if error.retry_after_ms is None else error.retry_after_ms / 1000
    status = attempts[-1].get("status") if attempts else None
    return ProviderError(
        fault, f"its probes were not answered: {_WORDS.get(fault, error.code)}", status=status, retry_after=retry_after
    )
