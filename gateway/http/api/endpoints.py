"""`/api/v1/endpoints` and `/api/v1/breakers`: the places that serve models, their health and their circuits."""

from __future__ import annotations

import time

import msgspec

from domain.endpoint_decisions import decide_reset_breaker
from domain.endpoints import endpoint_stream
from gateway.endpoints.documents import CircuitDocument, EndpointDocument
from gateway.http.api.route import ApiRoute, Call, Pagination, Parameter


class EndpointsAnswer(msgspec.Struct, frozen=True):
    """A page of endpoints, by name."""

    endpoints: list[EndpointDocument]
    pagination: Pagination


class BreakersAnswer(msgspec.Struct, frozen=True):
    """A page of circuits, by the names of their endpoints."""

    breakers: list[CircuitDocument]
    pagination: Pagination


async def listing(call: Call) -> EndpointsAnswer:
    """A page of the endpoints that serve."""
    desk, model = call.service.endpoint_desk, call.query.text("model")
    found = [e for e in desk.of(call.principal) if model is None or model in e.models]
    page, pagination = call.page(found)
    return EndpointsAnswer([desk.document(endpoint) for endpoint in page], pagination)


async def show(call: Call) -> EndpointDocument:
    """One endpoint."""
    desk = call.service.endpoint_desk
    return desk.document(desk.find(call.principal, call.path["endpoint"]))


async def breakers(call: Call) -> BreakersAnswer:
    """A page of circuits."""
    desk = call.service.endpoint_desk
    page, pagination = call.page(desk.of(call.principal))
    return BreakersAnswer([desk.circuit(endpoint) for endpoint in page], pagination)


async def reset(call: Call) -> CircuitDocument:
    """Close a circuit, here and in every other gateway; one that is closed stays so."""
    desk = call.service.endpoint_desk
    endpoint = desk.find(call.principal, call.path["endpoint"])
    await call.decide(
        endpoint_stream(endpoint.name),
        lambda plane: decide_reset_breaker(
            plane, endpoint, call.actor, now=time.time(), state=desk.breakers.of(endpoint).state
        ),
    )
    return desk.circuit(endpoint)


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/endpoints",
        name="listEndpoints",
        summary="The endpoints that serve, with their health and circuits; a tenant's key sees the tenant's own",
        tag="endpoints",
        handler=listing,
        answer=EndpointsAnswer,
        scopes=("admin",),
        tenanted=False,
        query=(Parameter("model", "Endpoints that serve this model."),),
        paged=True,
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/endpoints/{endpoint}",
        name="getEndpoint",
        summary="An endpoint that serves",
        tag="endpoints",
        handler=show,
        answer=EndpointDocument,
        scopes=("admin",),
        tenanted=False,
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/breakers",
        name="listBreakers",
        summary="The circuits of the endpoints that serve, as they stand in the gateway that is asked",
        tag="endpoints",
        handler=breakers,
        answer=BreakersAnswer,
        scopes=("admin",),
        tenanted=False,
        paged=True,
    ),
    ApiRoute(
        method="POST",
        path="/api/v1/endpoints/{endpoint}/breaker/reset",
        name="resetBreaker",
        summary="Close the circuit of an endpoint in every gateway",
        tag="endpoints",
        handler=reset,
        answer=CircuitDocument,
        scopes=("admin",),
        tenanted=False,
    ),
)
