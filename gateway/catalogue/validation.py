"""The validation of a model in testing: our own request, as the tenant `_system`, through the same log, with a budget of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol
from uuid import uuid4

import asyncpg
import numpy as np
from numpy.typing import NDArray

from domain.catalogue import EMBEDDING, Catalogue, Model
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import SYSTEM_TENANT, ModelValidated, QuotaSet
from domain.model_decisions import check_testing, decide_validated, model_stream
from domain.plane import ControlPlane
from domain.ports.provider import ProviderFault, Text
from domain.quotas import QuotaKey
from domain.tenancy import Principal
from gateway.catalogue.attestation import Answer, Finding, attest
from gateway.control import Control, Written
from gateway.replies import Reply
from gateway.wire.messages import EmbeddingGenerate, EmbeddingResult
from gateway.wire.service import Ticket

OURSELVES = Principal(SYSTEM_TENANT, SYSTEM_TENANT, frozenset({"agent", "admin"}))
AGENT = "validation"
DEADLINE_MS = 60_000
_STREAM = f"tenant/{SYSTEM_TENANT}"
_BUDGET = QuotaKey("tenant", "", "nano_usd", "month")
_FAULTS = frozenset({"provider_error", "invalid_request", "input_too_long"})


class Generates(Protocol):
    """The request service, as far as this needs it."""

    def generate(
        self, principal: Principal, agent: str, message: EmbeddingGenerate, texts: Sequence[Text], reply: Reply
    ) -> Ticket:
        """See `EmbeddingService.generate`."""
        ...


class Validator:
    """`keep_key` makes sure that the tenant `_system` has a key of its own, and that it is at hand."""

    def __init__(
        self,
        control: Control,
        service: Generates,
        catalogue: Callable[[], Catalogue],
        pool: asyncpg.Pool[asyncpg.Record],
        keep_key: Callable[[], Awaitable[None]],
        budget_nano_usd: int,
    ) -> None:
        self._control = control
        self._service = service
        self._catalogue = catalogue
        self._pool = pool
        self._keep_key = keep_key
        self._budget = budget_nano_usd

    async def validate(self, name: str, actor: str) -> Written:
        """Validate, and decide on what was found.

        Raises `model_not_found`, `resource_constraint` where the model is not in testing, `type_unsupported`, and whatever keeps the probes
        from being embedded without being the model's fault (no endpoint serves it, its price is unknown, the provider is away).
        """
        known = check_testing(self._control.plane, name)
        if known.spec.type != EMBEDDING:
            raise GatewayError(
                "type_unsupported",
                f"model {known.id!r} is of the type {known.spec.type!r}: only {EMBEDDING!r} models are dispatched, and validated",
                details={"field": "type"},
            )
        await self._keep_key()
        await self._control.run(self._budgeted, stream=_STREAM)
        model = self._catalogue().models[known.id]
        started = time.time_ns() // 1000
        try:
            found: Finding | None = await attest(
                self._pool, model, lambda texts, size: self._ask(model.id, texts, size)
            )
            problems = found.problems if found is not None else []
        except GatewayError as error:
            blame = _blame(error, model)
            if blame is None:
                raise
            found, problems = None, [blame]
        candidates = self._catalogue().candidates(model.id)
        data = ModelValidated(
            model=model.id,
            endpoint=found.endpoint if found else candidates[0].endpoint.name if candidates else "",
            passed=not problems,
            at=started,
            space=found.space if found else None,
            dimensions=found.dimensions if found else None,
            norm_min=found.norm_min if found else None,
            norm_max=found.norm_max if found else None,
            latency_ms=found.latency_ms if found else None,
            digest=found.digest if found else None,
            problems=problems,
            actor=actor,
        )
        return await self._control.run(lambda plane: decide_validated(plane, data), stream=model_stream(model.id))

    def _budgeted(self, plane: ControlPlane) -> list[Decision]:
        """What our own requests may cost a month, as the settings say."""
        known = plane.quotas.of(SYSTEM_TENANT).get(_BUDGET)
        if known is not None and known.limit == self._budget and known.hard:
            return []
        data = QuotaSet(scope="tenant", unit="nano_usd", window="month", limit=self._budget, actor="settings")
        return [Decision(SYSTEM_TENANT, _STREAM, data)]

    async def _ask(self, model: str, texts: Sequence[str], dimensions: int | None) -> Answer:
        message = EmbeddingGenerate(
            id=f"validation-{uuid4().hex}",
            input=list(texts),
            model=model,
            dimensions=dimensions,
            failover="none",
            cache="off",
            deadline_ms=DEADLINE_MS,
        )
        reply = _Waiting()
        ticket = self._service.generate(OURSELVES, AGENT, message, texts, reply)
        try:
            result, rows = await reply.answer
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        return Answer(rows, result.endpoint or "", result.space, round(result.timings.total_ms))


def _blame(error: GatewayError, model: Model) -> str | None:
    """What the model itself is to blame for, in words; None for what says nothing about it, which leaves it in testing."""
    if error.code in _FAULTS:
        return error.message[:500]
    attempts = (error.details or {}).get("attempts") or []
    if error.code == "provider_unavailable" and attempts and attempts[-1]["reason"] == ProviderFault.BAD_ANSWER:
        return f"the endpoint does not answer with a vector of {model.dimensions} dimensions for each text, or not with those of another size that was asked for"
    return None


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
