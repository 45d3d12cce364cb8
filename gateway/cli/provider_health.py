"""`emberlog endpoints health`: what requests met at each endpoint, by the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import ConfigOption, JsonOption, show, with_installation
from gateway.cli.views import WaitOption, caught_up

if TYPE_CHECKING:
    from gateway.manage import Installation
    from projections.provider_health.query import ProviderHealth


def health(
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model: its id, or an alias of it.")] = None,
    wait: WaitOption = 60.0,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show answers, failures by reason, failovers, circuit, health and attestations of endpoints, up to the log's head as of the call."""

    async def work(installation: Installation) -> list[ProviderHealth]:
        from projections.provider_health import PROVIDER_HEALTH
        from projections.provider_health.query import read_provider_health

        async with installation.control() as control:
            found = None if model is None else control.plane.models.resolve(model)
        await caught_up(installation, [PROVIDER_HEALTH], wait)
        return await read_provider_health(
            installation.log.pool, endpoint=endpoint, model=found.id if found is not None else model
        )

    found = with_installation(config, work)
    rows = [
        [
            h.endpoint,
            h.model,
            h.answered,
            round(h.latency_ms / h.answered) if h.answered else "",
            ", ".join(f"{reason} {count}" for reason, count in h.failed.items()),
            h.failovers,
            "" if h.circuit is None else h.circuit.state,
            _state(h),
            ", ".join(
                f"{a.space.removeprefix(h.model)} {'attested' if a.passed else 'quarantined'}" for a in h.attestations
            ),
        ]
        for h in found
    ]
    columns = ["endpoint", "model", "answered", "mean ms", "failed", "failovers", "circuit", "health", "spaces"]
    show(found, json, columns, rows)


def _state(found: ProviderHealth) -> str:
    """Its health; of one whose deployment does not serve, what that came to: its health is of the past."""
    if found.deployment not in (None, "ready"):
        return str(found.deployment)
    return "" if found.health is None else found.health.state
