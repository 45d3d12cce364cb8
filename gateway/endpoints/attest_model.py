"""Attesting a model's endpoints because somebody orders it: for the management API and the command alike."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec

from domain.catalogue import Candidate, Catalogue, Model
from domain.endpoints import Endpoints
from domain.errors import GatewayError
from domain.events import EndpointAttested
from domain.space import size_and_type
from gateway.endpoints.attestations import Attestations, fault_of

AT_ONCE = 16
"""Endpoints that are asked at once: any of them may hang."""


class Failure(msgspec.Struct, frozen=True):
    """Why an endpoint's probes were not answered: that says nothing about its vectors."""

    reason: str
    code: str
    message: str


class AttestationDocument(msgspec.Struct, frozen=True):
    """An endpoint and a space, as they were found. `passed` is null where the probes were not answered; `failure` says why.

    `cosine_min` is the lowest cosine of a probe with its reference, null where they were not compared. `references` is the digest of
    the references, `epoch` how often they had been renewed; those of an `owner` bind that tenant's endpoints alone.
    """

    endpoint: str
    model: str
    space: str
    passed: bool | None
    at: str | None = None
    cosine_min: float | None = None
    problems: list[str] = []
    latency_ms: int | None = None
    references: str | None = None
    epoch: int | None = None
    owner: str | None = None
    failure: Failure | None = None


class AttestationsAnswer(msgspec.Struct, frozen=True):
    """What was found of each endpoint, for the space of the model's own size and for those that it was attested for before."""

    attestations: list[AttestationDocument]


async def attest_model(
    attestations: Attestations,
    endpoints: Endpoints,
    catalogue: Catalogue,
    name: str,
    *,
    actor: str,
    endpoint: str | None = None,
    new_references: bool = False,
) -> AttestationsAnswer:
    """Attest the model's endpoints, or that one, whatever their state.

    With `new_references` that endpoint, or the first of the installation's, gives each space new reference vectors: every endpoint of the
    space is unattested by it, and those that were asked for are held against the new ones. Raises `model_not_found`, `not_found`,
    `no_model_available` and `resource_constraint`.
    """
    model = catalogue.resolve(name)
    if model is None:
        raise GatewayError(
            "model_not_found",
            f"the catalogue has no model {name[:128]!r}: `emberlog models list` and GET /api/v1/models show what it has",
            details={"field": "model_id"},
        )
    known = catalogue.all_candidates(model.id)
    chosen = [c for c in known if endpoint in (None, c.endpoint.name)]
    if not chosen:
        raise _none(model, endpoint, known)
    if new_references and endpoint is None:
        giver = next((c for c in chosen if c.endpoint.tenant is None), None)
        if giver is None:
            raise GatewayError(
                "resource_constraint",
                f"only endpoints of tenants serve {model.id}: name the one that shall give new references, for its tenant",
                details={"field": "endpoint"},
            )
        chosen = [giver, *(c for c in chosen if c is not giver)]
    room = asyncio.Semaphore(AT_ONCE)

    async def attested(candidate: Candidate, renew: bool = False) -> list[AttestationDocument]:
        wanted = spaces(endpoints, model, chosen if renew else [candidate])
        async with room:
            return [await _attested(attestations, candidate, space, renew, actor) for space in wanted]

    found = [await attested(chosen[0], new_references)]  # it gives what the others are held against
    found += await asyncio.gather(*map(attested, chosen[1:]))
    return AttestationsAnswer([document for documents in found for document in documents])


def spaces(endpoints: Endpoints, model: Model, of: list[Candidate]) -> list[str]:
    """The model's space of its own size, and the others that one of these was attested for."""
    names = {c.endpoint.name for c in of}
    own = model.space(model.dimensions, None)
    others = {
        space
        for endpoint, space in endpoints.attested
        if endpoint in names and model.space(*size_and_type(space)) == space
    }
    return [own, *sorted(others - {own})]


async def _attested(
    attestations: Attestations, candidate: Candidate, space: str, renew: bool, actor: str
) -> AttestationDocument:
    try:
        data = await attestations.attest(candidate, *size_and_type(space), renew=renew, actor=actor)
    except GatewayError as error:
        if error.code == "resource_constraint":
            raise
        failure = Failure(fault_of(error).fault.value, error.code, error.message)
        return AttestationDocument(candidate.endpoint.name, candidate.model.id, space, None, failure=failure)
    return document(data)


def document(data: EndpointAttested) -> AttestationDocument:
    """An attestation as people are shown it."""
    return AttestationDocument(
        endpoint=data.endpoint,
        model=data.model,
        space=data.space,
        passed=data.passed,
        at=datetime.fromtimestamp(data.at / 1e6, UTC).isoformat().replace("+00:00", "Z"),
        cosine_min=None if data.cosine_min is None else data.cosine_min / 1e6,
        problems=data.problems,
        latency_ms=data.latency_ms,
        references=data.references,
        epoch=data.epoch,
        owner=data.owner,
    )


def _none(model: Model, endpoint: str | None, known: list[Candidate]) -> GatewayError:
    if endpoint is None:
        return GatewayError("no_model_available", f"no endpoint serves {model.id}: deploy one first")
    names = ", ".join(sorted(c.endpoint.name for c in known)) or "none does"
    return GatewayError(
        "not_found",
        f"endpoint {endpoint[:64]!r} does not serve {model.id}; those that do: {names}",
        details={"field": "endpoint"},
    )
