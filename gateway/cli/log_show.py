"""`emberlog log show`: one event with everything that is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, Failed, JsonOption, fields, tell, with_installation
from gateway.cli.events import document

if TYPE_CHECKING:
    from domain.ports.event_log import StoredEvent
    from gateway.manage import Installation


def show_event(
    event: Annotated[str, typer.Argument(help="The event's position, or its id.")],
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """One event: its data, whether it agrees with its content hash, the seal over it, and its metadata opened.

    By position it is found at once; by id the log is searched, which takes seconds where it is long. Exit code 1 if it was changed.
    """
    from uuid import UUID

    wanted: int | UUID
    try:
        wanted = int(event) if event.isdecimal() and len(event) < 19 else UUID(event)
    except ValueError:
        raise typer.BadParameter(
            f"{event[:40]!r} is neither a position (1, 2, ...) nor the id of an event (a UUID)", param_hint="EVENT"
        ) from None

    async def work(installation: Installation) -> dict[str, Any]:
        from adapters.postgres.seals import seal_over
        from adapters.postgres.tenant_keys import shredded_tenants
        from domain.content_hash import content_hash

        found = await _find(installation, wanted)
        seal = await seal_over(installation.log.pool, found.position)
        return document(found, await shredded_tenants(installation.log.pool)) | {
            "metadata": await _metadata(installation, found),
            "content_hash": found.content_hash.hex(),
            "content_hash_valid": content_hash(found) == found.content_hash,
            "seal": seal and seal.document(),
        }

    found = with_installation(config, work)
    tell(found, json, *fields(found))
    if not found["content_hash_valid"]:
        typer.echo("emberlog: the event does not agree with its content hash: it was changed", err=True)
        raise typer.Exit(1)


async def _find(installation: Installation, wanted: Any) -> StoredEvent:
    from adapters.postgres.search import position_of

    log = installation.log
    position = wanted if isinstance(wanted, int) else await position_of(installation.places.app_dsn, log, wanted)
    if position is None:
        raise Failed(f"the log has no event with the id {wanted}")
    events = await log.read(position - 1, 1) if position > 0 else []
    if not events:
        raise Failed(f"the log has no event at position {position}: its newest is at {await log.head()}")
    return events[0]


async def _metadata(installation: Installation, event: StoredEvent) -> Any:
    """The event's free metadata; None without any; why not, where the key to it is gone or not at hand."""
    from adapters.postgres.tenant_keys import all_wrapped
    from gateway.house import NotReady
    from gateway.sealed import open_metadata
    from gateway.secrets import SecretKeyError

    tenant = event.tenant
    try:
        if open_metadata(tenant, event.data, {}) is None:
            return None
    except ValueError:  # somebody changed it: what is said of the hash tells that
        return None
    wrapped = (await all_wrapped(installation.log.pool)).get(tenant)
    try:
        keys = {} if wrapped is None else {tenant: installation.master().unwrap(tenant, wrapped)}
        return open_metadata(tenant, event.data, keys)
    except (NotReady, SecretKeyError, ValueError) as error:
        return {"unopened": str(error)}
