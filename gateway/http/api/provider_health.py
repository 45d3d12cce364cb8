"""`/api/v1/provider-health`: what requests met at each endpoint, its circuit, its health and its attestations."""

from __future__ import annotations

import msgspec

from domain.errors import invalid_request
from gateway.http.api.route import ApiRoute, Call, Parameter
from projections.provider_health.query import ProviderHealth, read_provider_health

MAX_ROWS = 10_000


class ProviderHealthAnswer(msgspec.Struct, frozen=True):
    """Endpoints and their models, by name; as the log tells of them, over all gateways."""

    endpoints: list[ProviderHealth]


async def show(call: Call) -> ProviderHealthAnswer:
    """All of them, or those that are asked for."""
    model = call.query.text("model")
    if model is not None and (found := call.service.models().resolve(model)) is not None:
        model = found.id
    async with call.service.reads.view(call.principal) as views:
        rows = await read_provider_health(views, endpoint=call.query.text("endpoint"), model=model, limit=MAX_ROWS + 1)
    if len(rows) > MAX_ROWS:
        raise invalid_request(f"that is more than {MAX_ROWS} rows: ask for one endpoint or one model", "endpoint")
    return ProviderHealthAnswer(rows)


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/provider-health",
        name="getProviderHealth",
        summary="What requests met at each endpoint: answers, failures by reason, failovers, circuit, health, attestations",
        tag="endpoints",
        handler=show,
        answer=ProviderHealthAnswer,
        tenanted=False,
        view="provider_health",
        query=(
            Parameter("endpoint", "Of this endpoint alone."),
            Parameter("model", "Of this model alone: its id, or an alias of it."),
        ),
        errors=(504,),
    ),
)
