"""`emberlog log verify`: walk the whole log and name the first thing that was changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, Failed, JsonOption, tell, with_installation
from gateway.cli.progress import progress

if TYPE_CHECKING:
    from domain.verification import Verdict
    from gateway.manage import Installation


def verify(
    start: Annotated[
        int, typer.Option("--from", min=1, help="Look at the events from this position on; at the seals always.")
    ] = 1,
    seal: Annotated[
        str | None, typer.Option(help="The hash of a seal (64 hex digits) that was noted elsewhere and must occur.")
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Check every event against its content hash and its seal, and the chain of seals; archived events too.

    Names the first event or seal at fault. Exit code 0 means intact, 1 that something was changed.
    """
    try:
        noted = None if seal is None else bytes.fromhex(seal)
    except ValueError:
        noted = b""
    if noted is not None and len(noted) != 32:
        raise typer.BadParameter("expected the 64 hex digits that `emberlog log head` shows", param_hint="--seal")

    async def work(installation: Installation) -> Verdict:
        from adapters.postgres.verify import verify

        head = await installation.log.head()
        if start > max(head, 1):
            raise Failed(f"position {start} is past the log's newest event, at {head}")
        with progress("verifying", quiet=json) as advance:
            return await verify(
                installation.log.pool, installation.log, start=start, noted=noted,
                progress=lambda position, upto: advance(position - start + 1, upto - start + 1),
            )  # fmt: skip

    verdict = with_installation(config, work)
    finding, newest = verdict.finding, verdict.newest_seal
    found: dict[str, Any] = {
        "intact": verdict.intact,
        "finding": finding,
        "from": start,
        "head": verdict.head,
        "events": verdict.events,
        "seals": verdict.seals,
        "unsealed": verdict.unsealed,
        "newest_seal": newest and newest.document(),
    }
    if finding is not None:
        tell(found, json, f"NOT INTACT: {finding.message}")
        raise typer.Exit(1)
    counted = f"intact: {verdict.events} events up to position {verdict.head}, {verdict.seals} seals, {verdict.unsealed} events not sealed yet"
    tell(found, json, counted, *([f"newest seal: {newest.number} {newest.hash.hex()}"] if newest else []))
