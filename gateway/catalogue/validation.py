"""The validation of a model in testing: our own request, as the tenant `_system`, through the same log, with a budget of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import asyncpg

from domain.catalogue import EMBEDDING, Catalogue, Model
from domain.errors import GatewayError
from domain.events import ModelValidated
from domain.model_decisions import check_testing, decide_validated, model_stream
from domain.ports.provider import ProviderFault
from gateway.catalogue.attestation import Answer, Finding, attest
from gateway.catalogue.own_requests import OURSELVES, VALIDATION, Generates, OwnRequests, answered, probe_message
from gateway.control import Control, Written

_FAULTS = frozenset({"provider_error", "invalid_request", "input_too_long"})


class Validator:
    """`own` keeps up what requests of ours need."""

    def __init__(
        self,
        control: Control,
        service: Generates,
        catalogue: Callable[[], Catalogue],
        pool: asyncpg.Pool[asyncpg.Record],
        own: OwnRequests,
    ) -> None:
        self._control = control
        self._service = service
        self._catalogue = catalogue
        self._pool = pool
        self._own = own

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
        await self._own.ready()
        model = self._catalogue().models[known.id]
        started = time.time_ns() // 1000
        try:
            found: Finding | None = await attest(
                self._pool, model, lambda texts, size: self._ask(model.id, texts, size), self._epoch
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

    def _epoch(self, space: str, _: str) -> int:
        return self._control.plane.endpoints.epochs.get((space, None), 0)

    async def _ask(self, model: str, texts: Sequence[str], dimensions: int | None) -> Answer:
        message = probe_message(VALIDATION, model, texts, dimensions, None)
        # Where it is to be sent it goes whatever is known of the endpoint: what attestation would find is what is to be found out here.
        pinned = next(iter(self._catalogue().candidates(model)), None)
        return await answered(
            lambda reply: self._service.generate(OURSELVES, VALIDATION, message, texts, reply, pinned=pinned)
        )


def _blame(error: GatewayError, model: Model) -> str | None:
    """What the model itself is to blame for, in words; None for what says nothing about it, which leaves it in testing."""
    if error.code in _FAULTS:
        return error.message[:500]
    attempts = (error.details or {}).get("attempts") or []
    reason = attempts[-1]["reason"] if error.code == "provider_unavailable" and attempts else None
    if reason == ProviderFault.NOT_SERVED:
        return "the endpoint knows no such model: mend the provider's id of it, or the endpoint's address"
    if reason == ProviderFault.BAD_ANSWER:
        return f"the endpoint does not answer with a vector of {model.dimensions} dimensions for each text, or not with those of another size that was asked for"
    return None
