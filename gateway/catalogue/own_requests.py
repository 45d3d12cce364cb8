"""Requests of our own: as the tenant `_system`, through the same service and log as any, with quotas of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, cast
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from domain.catalogue import Candidate
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import SYSTEM_TENANT, QuotaRemoved, QuotaSet
from domain.plane import ControlPlane
from domain.ports.provider import Text
from domain.quotas import QuotaKey
from domain.tenancy import Principal
from gateway.catalogue.attestation import Answer
from gateway.control import Control
from gateway.replies import Reply
from gateway.wire.messages import EmbeddingGenerate, EmbeddingResult, InputType
from gateway.wire.service import Ticket

OURSELVES = Principal(SYSTEM_TENANT, SYSTEM_TENANT, frozenset({"agent", "admin"}))
VALIDATION, ATTESTATION = "validation", "attestation"
"""The agents that our requests are of."""
TENANT_SHARE = 10
"""What attestation of each tenant's own endpoints may take is this part of what that of the installation's may: that costs the tenant."""
DEADLINE_MS = 60_000
_STREAM = f"tenant/{SYSTEM_TENANT}"
_SETTINGS = "settings"


class Generates(Protocol):
    """The request service, as far as this needs it."""

    def generate(
        self,
        principal: Principal,
        agent: str,
        message: EmbeddingGenerate,
        texts: Sequence[Text],
        reply: Reply,
        *,
        pinned: Candidate | None = None,
    ) -> Ticket:
        """See `EmbeddingService.generate`. Where it is `pinned`, that endpoint alone is called, attested or not, whoever's it is."""
        ...


class OwnRequests:
    """Keeps up what requests of ours need: the key of the tenant `_system` (`keep_key`), and its quotas.

    Those are hard ones of a month, as the settings say; others that they said before are taken away.
    """

    def __init__(
        self, control: Control, keep_key: Callable[[], Awaitable[None]], budget_nano_usd: int, attestation_tokens: int
    ) -> None:
        self._control = control
        self._keep_key = keep_key
        # Attestation is bound by tokens, so that endpoints whose price nobody knows can be attested; that bounds what it costs where it is known.
        self._quotas = {
            QuotaKey("agent", VALIDATION, "nano_usd", "month"): budget_nano_usd,
            _attestation_quota(None): attestation_tokens,
        }
        self._tenant_tokens = attestation_tokens // TENANT_SHARE

    async def ready(self, owner: str | None = None) -> None:
        """Return once requests of ours can be sent, those to endpoints of this tenant's included. Raises `GatewayError` (`unavailable`)."""
        await self._keep_key()
        if self._missing(self._control.plane, owner):
            await self._control.run(lambda plane: self._missing(plane, owner), stream=_STREAM)

    def _missing(self, plane: ControlPlane, owner: str | None) -> list[Decision]:
        known = plane.quotas.of(SYSTEM_TENANT)
        wanted = dict(self._quotas)
        tenants = {key for key in known if key.scope == "agent" and key.subject.startswith(f"{ATTESTATION}:")}
        if owner is not None:
            tenants.add(_attestation_quota(owner))
        wanted.update(dict.fromkeys(tenants, self._tenant_tokens))
        found: list[QuotaSet | QuotaRemoved] = [
            QuotaSet(
                scope=key.scope,
                subject=key.subject or None,
                unit=key.unit,
                window=key.window,
                limit=limit,
                actor=_SETTINGS,
            )
            for key, limit in wanted.items()
            if (quota := known.get(key)) is None or quota.limit != limit or not quota.hard
        ]
        found += [
            QuotaRemoved(
                scope=key.scope, subject=key.subject or None, unit=key.unit, window=key.window, actor=_SETTINGS
            )
            for key, quota in known.items()
            if quota.actor == _SETTINGS and key not in wanted
        ]
        return [Decision(SYSTEM_TENANT, _STREAM, data) for data in found]


def attestation_agent(owner: str | None) -> str:
    """The agent that attests the endpoints of this tenant, or of the installation (None): nobody uses up what others' attestation may take."""
    return ATTESTATION if owner is None else f"{ATTESTATION}:{owner}"


def _attestation_quota(owner: str | None) -> QuotaKey:
    return QuotaKey("agent", attestation_agent(owner), "tokens", "month")


def probe_message(
    agent: str,
    model: str,
    texts: Sequence[str],
    size: int | None,
    input_type: str | None,
    deadline_ms: int = DEADLINE_MS,
) -> EmbeddingGenerate:
    """The request for these texts' vectors: fresh from the provider, and from no other model."""
    return EmbeddingGenerate(
        id=f"{agent}-{uuid4().hex}",
        input=list(texts),
        model=model,
        dimensions=size,
        input_type=cast("InputType | None", input_type),
        failover="none",
        cache="off",
        deadline_ms=deadline_ms,
    )


async def answered(send: Callable[[Reply], Ticket]) -> Answer:
    """Send a request by `send` and wait for its answer; one that nobody waits for any more is cancelled. Raises `GatewayError`."""
    reply = _Waiting()
    ticket = send(reply)
    try:
        result, rows = await reply.answer
    except asyncio.CancelledError:
        ticket.cancel()
        raise
    return Answer(rows, result.endpoint or "", result.space, round(result.timings.total_ms))


def pinned_ask(
    service: Generates,
) -> Callable[[Candidate, Sequence[str], int | None, str | None], Awaitable[Answer]]:
    """Asks one endpoint, through the request service: see `gateway.endpoints.attestations.PinnedAsk`."""

    async def ask(candidate: Candidate, texts: Sequence[str], size: int | None, input_type: str | None) -> Answer:
        # One call's time and a little: who waits for an endpoint that hangs had better go elsewhere.
        deadline_ms = min(DEADLINE_MS, int(candidate.endpoint.timeout * 1000) + 1_000)
        agent = attestation_agent(candidate.endpoint.tenant)
        message = probe_message(agent, candidate.model.id, texts, size, input_type, deadline_ms)
        return await answered(lambda reply: service.generate(OURSELVES, agent, message, texts, reply, pinned=candidate))

    return ask


class _Waiting:
    """A reply that somebody awaits."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[EmbeddingResult, NDArray[np.float32]]] = (
            asyncio.get_running_loop().create_future()
        )

    def chunk(self, offset: int, rows: NDArray[np.float32]) -> None:
        """See `Reply.chunk`: no stream was asked for."""

    def result(self, result: EmbeddingResult, rows: NDArray[np.float32] | None) -> None:
        """See `Reply.result`."""
        if not self.answer.done():
            assert rows is not None
            self.answer.set_result((result, rows.copy()))

    def error(self, error: GatewayError) -> None:
        """See `Reply.error`."""
        if not self.answer.done():
            self.answer.set_exception(error)
