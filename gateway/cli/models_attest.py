"""`emberlog models attest`: hold a model's endpoints against the reference vectors of their spaces, now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import ConfigOption, JsonOption, show, with_installation

if TYPE_CHECKING:
    from gateway.endpoints.attest_model import AttestationsAnswer
    from gateway.manage import Installation


def attest(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's id, or an alias of it.")],
    endpoint: Annotated[
        str | None, typer.Option(help="Only this endpoint; by default every one that serves the model.")
    ] = None,
    new_references: Annotated[
        bool,
        typer.Option(
            help="Take new reference vectors from the endpoint, or the first: what it answers now is what its spaces are from now on."
        ),
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Embed probe texts at the endpoints of a model and look whether the vectors are of their spaces. One that drifted serves no more.

    Opens a gateway of its own for that, so that the endpoints' API keys must be in this command's environment. The exit code is 1 where
    an endpoint drifted or did not answer.
    """

    async def work(installation: Installation) -> AttestationsAnswer:
        from gateway.gateway import Gateway

        gateway = await Gateway.open(installation.settings, installation.places, installation.master())
        try:
            return await gateway.attest_model(
                model, installation.actor, endpoint=endpoint, new_references=new_references
            )
        finally:
            await gateway.close()

    found = with_installation(config, work).attestations
    rows = [
        [
            d.endpoint,
            d.space,
            "not answered" if d.passed is None else "attested" if d.passed else "drifted",
            "" if d.cosine_min is None else f"{d.cosine_min:.6f}",
            d.failure.message if d.failure is not None else "; ".join(d.problems),
        ]
        for d in found
    ]
    show(found, json, ["endpoint", "space", "found", "lowest cosine", "why"], rows)
    if new_references and any(d.passed for d in found):
        typer.echo(
            "These vectors are the references of their spaces now. Other endpoints of the model are held against them by their next request; "
            "one that fails is left. Vectors kept from before may not be comparable.",
            err=True,
        )
    if not all(d.passed for d in found):
        raise typer.Exit(1)
