"""`emberlog endpoints`: the places that serve models, as the settings and the log tell of them, and their circuits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import provider_health
from gateway.cli.common import ConfigOption, Failed, JsonOption, fields, show, tell, with_installation

if TYPE_CHECKING:
    from domain.catalogue import Endpoint
    from domain.plane import ControlPlane
    from gateway.endpoints.documents import CircuitDocument, EndpointDocument
    from gateway.manage import Installation

app = typer.Typer(help="Endpoints: what serves models, how circuits stand, what was attested.", no_args_is_help=True)
app.command("health")(provider_health.health)

NameArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's name.")]


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only those that this tenant has for itself.")] = None,
    model: Annotated[str | None, typer.Option(help="Only those that serve this model.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the endpoints that serve. What a gateway alone knows (its health, its load) is in GET /api/v1/endpoints."""

    async def work(installation: Installation) -> list[EndpointDocument]:
        if tenant is not None:
            await installation.require_tenant(tenant)
        async with installation.control() as control:
            return [
                _document(installation, control.plane, e)
                for e in sorted(_serving(installation, control.plane), key=lambda e: e.name)
                if (tenant is None or e.tenant == tenant) and (model is None or model in e.models)
            ]

    found = with_installation(config, work)
    rows = [
        [e.name, e.provider, ", ".join(m.model_id for m in e.models), e.weight, e.origin, e.owner, e.circuit.state]
        for e in found
    ]
    show(found, json, ["endpoint", "provider", "models", "weight", "origin", "owner", "circuit"], rows)


@app.command("show")
def show_(endpoint: NameArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show one endpoint that serves. What a gateway alone knows (its health, its load) is in GET /api/v1/endpoints/{endpoint}."""

    async def work(installation: Installation) -> EndpointDocument:
        async with installation.control() as control:
            return _document(installation, control.plane, _find(installation, control.plane, endpoint))

    found = with_installation(config, work)
    tell(found, json, *fields(_plain(found)))


@app.command("reset-breaker")
def reset_breaker(endpoint: NameArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Close the circuit of an endpoint in every gateway."""

    async def work(installation: Installation) -> tuple[CircuitDocument, bool]:
        import time

        from domain.endpoint_decisions import decide_reset_breaker
        from domain.endpoints import endpoint_stream
        from gateway.endpoints.documents import circuit_document

        async with installation.control() as control:
            found = _find(installation, control.plane, endpoint)
            written = await control.run(
                lambda plane: decide_reset_breaker(plane, found, installation.actor, now=time.time()),
                stream=endpoint_stream(found.name),
            )
            return circuit_document(control.plane, found, now=time.time()), written.changed

    circuit, changed = with_installation(config, work)
    tell(circuit, json, f"{'reset' if changed else 'is closed already'}: the circuit of {endpoint}")


def _serving(installation: Installation, plane: ControlPlane) -> tuple[Endpoint, ...]:
    from domain.endpoints import serving

    return serving(installation.settings.configured_endpoints(), plane.endpoints)


def _find(installation: Installation, plane: ControlPlane, name: str) -> Endpoint:
    for endpoint in _serving(installation, plane):
        if endpoint.name == name:
            return endpoint
    raise Failed(f"there is no endpoint {name[:64]!r} that serves: `emberlog endpoints list` shows those there are")


def _document(installation: Installation, plane: ControlPlane, endpoint: Endpoint) -> EndpointDocument:
    import time

    from gateway.endpoints.documents import endpoint_document

    configured = {e.name for e in installation.settings.configured_endpoints()}
    return endpoint_document(plane, endpoint, configured, now=time.time())


def _plain(found: EndpointDocument) -> dict[str, Any]:
    """What a person is shown: without what a gateway alone knows, and in words what would be objects."""
    import msgspec

    plain = dict(msgspec.to_builtins(found))
    del plain["health"], plain["lanes"], plain["models"]
    circuit = found.circuit
    until = "" if circuit.until is None else f" until {circuit.until}"
    plain["circuit"] = f"{circuit.state}{until}" + ("" if circuit.reason is None else f" ({circuit.reason})")
    for model in found.models:
        called = "" if model.provider_model is None else f"as {model.provider_model}; "
        spaces = "; ".join(" ".join([s.space, s.state, s.at, *s.problems]) for s in model.spaces)
        plain[model.model_id] = called + (spaces or "not attested yet")
    return plain
