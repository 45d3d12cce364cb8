"""`emberlog models discover`: read the providers' lists of models now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import ConfigOption, JsonOption, show, with_installation

if TYPE_CHECKING:
    from gateway.discovery.documents import SourceDocument
    from gateway.manage import Installation


def discover(
    provider: Annotated[str | None, typer.Option(help="Only this provider's; by default all that have lists.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Read the lists of models of the installation's endpoints: what is new becomes a draft, what two lists in a row lack is deprecated.

    Opens a gateway of its own for that, so that the endpoints' API keys must be in this command's environment; `emberlog schedules run
    discovery` has a running one do it. The exit code is 1 where a list could not be used.
    """

    async def work(installation: Installation) -> list[SourceDocument]:
        from gateway.discovery.documents import source_documents
        from gateway.gateway import Gateway

        gateway = await Gateway.open(installation.settings, installation.places, installation.master())
        try:
            ran = {r.source for r in await gateway.discovery.run(provider, actor=installation.actor)}
            return [d for d in source_documents(gateway.plane.discoveries) if d.source in ran]
        finally:
            await gateway.close()

    found = with_installation(config, work)
    rows = [[d.source, d.found, d.added, d.changed, d.deprecated, d.skipped, d.error] for d in found]
    show(found, json, ["source", "found", "added", "changed", "deprecated", "skipped", "error"], rows)
    if any(d.error is not None for d in found):
        raise typer.Exit(1)
