"""`POST /api/v1/models/{model}/attest`: hold a model's endpoints against the reference vectors of their spaces, now."""

from __future__ import annotations

import msgspec

from gateway.endpoints.attest_model import AttestationsAnswer
from gateway.http.api.route import ApiRoute, Call


class AttestationOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which endpoint, absent: all that serve the model. With `new_references` it, or the first, gives its spaces new reference vectors."""

    endpoint: str | None = None
    new_references: bool = False


async def attest(call: Call) -> AttestationsAnswer:
    """What was found, by endpoint and space. Probes that are not answered are told, and change nothing."""
    order: AttestationOrder = call.body
    return await call.service.attest_model(
        call.path["model"], call.actor, endpoint=order.endpoint, new_references=order.new_references
    )


ROUTES = (
    ApiRoute(
        method="POST",
        path="/api/v1/models/{model}/attest",
        name="attestModel",
        summary="Embed probe texts at the model's endpoints and hold the vectors against those of their spaces: what differs serves no more",
        tag="models",
        handler=attest,
        body=AttestationOrder,
        answer=AttestationsAnswer,
        tenanted=False,
        versioned=False,
    ),
)
