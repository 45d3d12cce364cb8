"""`emberlog events`: read the log."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, encode, execute, printable, split_list

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Set
    from uuid import UUID

    from domain.ports.event_log import StoredEvent
    from gateway.manage import Installation
    from gateway.settings import Settings

app = typer.Typer(help="The events of the log.", no_args_is_help=True)

_BATCH = 1000
_POLL_SECONDS = 0.25


@app.command()
def tail(
    start: Annotated[
        str, typer.Option("--from", help="`start`, or a cursor of an earlier call: what came after it.")
    ] = "start",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is appended, until Ctrl-C.")] = False,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's events.")] = None,
    types: Annotated[str | None, typer.Option(help="Only these event types, comma-separated.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Print events in the order of the log, up to its head as of the call.

    With --json one document {"events": [...], "cursor": ...}; with --json --follow one event a line, each with its cursor.
    """
    reader = _Reader(start, follow, tenant, _types(types) if types else None, json)
    execute(config, reader.run)


def _types(text: str) -> frozenset[str]:
    from domain.events import EVENT_TYPES

    types = frozenset(split_list(text))
    for name in sorted(types - EVENT_TYPES.keys()):
        raise typer.BadParameter(
            f"there are no events {name!r}; docs/events.md lists those there are", param_hint="--types"
        )
    return types


class _Reader:
    """Reads from a place on; with `follow`, over restarts of the gateway."""

    def __init__(self, start: str, follow: bool, tenant: str | None, types: frozenset[str] | None, json: bool) -> None:
        self._start = start
        self._follow = follow
        self._tenant = tenant
        self._types = types
        self._json = json
        self._after: int | None = None
        self._shredded: Set[str] = frozenset()

    async def run(self, settings: Settings) -> None:
        from domain.ports.event_log import LogUnavailable
        from gateway.manage import gateway_appears, open_installation

        if not self._follow:
            async with open_installation(settings) as installation:
                await self._once(installation)
            return
        with suppress(asyncio.CancelledError):  # Ctrl-C is how following ends
            while True:
                try:
                    async with open_installation(settings) as installation:
                        await self._read(installation, forever=not installation.temporary)
                except LogUnavailable:
                    if self._after is None:
                        raise
                    await asyncio.sleep(1.0)
                await gateway_appears(settings)

    async def _once(self, installation: Installation) -> None:
        """One pass; as JSON the document is written as it is read, so that a long log needs little memory."""
        incarnation = (await installation.log.identity()).incarnation
        if not self._json:
            await self._read(installation, forever=False)
            return
        from domain.cursor import encode_cursor

        comma = ""
        opened = False
        async for event in self._events(installation, incarnation, forever=False):
            typer.echo(comma if opened else '{"events":[', nl=False)
            typer.echo(encode(document(event, self._shredded)), nl=False)
            comma, opened = ",\n", True
        assert self._after is not None
        cursor = encode({"cursor": encode_cursor(incarnation, self._after)})[1:]
        typer.echo(("" if opened else '{"events":[') + "]," + cursor)

    async def _read(self, installation: Installation, *, forever: bool) -> None:
        from domain.cursor import encode_cursor

        incarnation = (await installation.log.identity()).incarnation
        async for event in self._events(installation, incarnation, forever=forever):
            if self._json:
                typer.echo(
                    encode(document(event, self._shredded) | {"cursor": encode_cursor(incarnation, event.position)})
                )
            else:
                typer.echo(_line(event))

    async def _events(
        self, installation: Installation, incarnation: UUID, *, forever: bool
    ) -> AsyncIterator[StoredEvent]:
        from adapters.postgres.tenant_keys import shredded_tenants
        from domain.cursor import START, decode_cursor
        from domain.ports.event_log import LogDamaged

        log = installation.log
        self._shredded = await shredded_tenants(log.pool)
        head = await log.head()
        if self._after is None:
            self._after = 0 if self._start == START else decode_cursor(self._start, incarnation, head)
        while True:
            while self._after < head:
                page = await log.read(self._after, min(_BATCH, head - self._after))
                if not page:
                    raise LogDamaged(
                        self._after + 1,
                        f"the log has no event at position {self._after + 1}, though its newest is at {head}, which no append leaves: "
                        "see `emberlog log verify`, and restore it from a backup",
                    )
                for event in page:
                    self._after = event.position
                    if (self._tenant is None or event.tenant == self._tenant) and (
                        self._types is None or event.type in self._types
                    ):
                        yield event
            if not forever:
                return
            await asyncio.sleep(_POLL_SECONDS)
            head = await log.head()
            if head > self._after:
                self._shredded = await shredded_tenants(log.pool)


def document(event: StoredEvent, shredded: Set[str]) -> dict[str, Any]:
    """An event as JSON; `shredded` are the tenants whose keys were destroyed."""
    import msgspec

    from gateway.event_document import event_document

    shown = event_document(event, for_tenant=False, shredded=event.tenant in shredded)
    return {name: value for name, value in msgspec.structs.asdict(shown).items() if value is not msgspec.UNSET}


def _line(event: StoredEvent) -> str:
    from gateway.event_document import time_text

    stream = printable(event.stream)
    return f"{event.position:>10}  {time_text(event.recorded_at)}  {event.type:<22} {event.tenant}  {stream}"
