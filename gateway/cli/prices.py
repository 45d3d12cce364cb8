"""`emberlog prices`: the price book."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, encode, fields, parse_time, show, tell, with_installation

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.plane import ControlPlane
    from gateway.manage import Installation
    from gateway.price_document import PriceEntry

app = typer.Typer(
    help="The price book: what units of models cost at providers, from when until when.", no_args_is_help=True
)

_SHOWN = (
    "id",
    "model",
    "provider",
    "unit",
    "usd_per_million",
    "effective_from",
    "effective_until",
    "for_tenant",
    "effective",
)


class Unit(StrEnum):
    """What a price is of."""

    TOKEN = "token"  # noqa: S105 (a unit of text)
    CHARACTER = "character"


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only at this provider.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's own prices, without list prices.")] = None,
    effective: Annotated[bool, typer.Option("--effective", help="Only those that are charged now.")] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the prices in the order in which they were set."""

    def chosen(plane: ControlPlane) -> list[PriceEntry]:
        from gateway.price_document import price_document

        wanted = {"model": model, "provider": provider, "for_tenant": tenant}
        documents = [price_document(plane, entry, time.time(), True) for entry in plane.prices]
        return [
            d
            for d in documents
            if all(v is None or getattr(d, n) == v for n, v in wanted.items()) and (d.effective or not effective)
        ]

    found = with_installation(config, lambda installation: _read(installation, chosen))
    show(found, json, _SHOWN, [[_cell(getattr(price, name)) for name in _SHOWN] for price in found])


@app.command("show")
def show_one(
    price: Annotated[str, typer.Argument(help="The price's id.")], json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Show one price whole."""
    found = with_installation(config, lambda installation: _read(installation, lambda plane: _document(plane, price)))
    tell(found, json, *_lines(found))


@app.command("set")
def set_(
    model: Annotated[str, typer.Argument(help="The model.")],
    provider: Annotated[str, typer.Option(help="The provider that offers it.")],
    usd_per_million: Annotated[
        str | None, typer.Option(help="USD per million units, a decimal of at most six places; 0 is free.")
    ] = None,
    unknown: Annotated[bool, typer.Option("--unknown", help="The price is not known: bills say so, never 0.")] = False,
    unit: Annotated[Unit, typer.Option(help="What is counted.")] = Unit.TOKEN,
    tenant: Annotated[str | None, typer.Option(help="What this tenant pays; without it the list price.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="From this time on, ISO 8601; by default now.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Up to this time; by default until the next price.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--id", help="The price's id, which bills name; by default made up.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Where the figure is from.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Put a price into the book. It is charged within a second by every running gateway; what was charged before keeps its price."""
    if (usd_per_million is None) != unknown:
        raise typer.BadParameter("give one of --usd-per-million and --unknown", param_hint="--usd-per-million")
    first = parse_time(since, "--from") or datetime.now(UTC).replace(microsecond=0)
    parse_time(until, "--until")
    made_up = "/".join([*([tenant] if tenant else []), provider, model, first.strftime("%Y-%m-%dT%H:%M:%SZ")])
    wanted: dict[str, Any] = {
        "id": name or made_up,
        "model": model,
        "provider": provider,
        "unit": unit.value,
        "for_tenant": tenant,
        "effective_from": since,
        "effective_until": until,
        "source": source,
    }
    wanted |= {"unit_pico_usd": None} if unknown else {"usd_per_million": usd_per_million}

    async def work(installation: Installation) -> tuple[PriceEntry, bool]:
        from domain.events import PRICES_STREAM
        from domain.price_decisions import decide_price

        async with installation.control(seeded=True) as control:
            written = await control.run(
                lambda plane: decide_price(plane, wanted, now=time.time(), actor=installation.actor),
                stream=PRICES_STREAM,
            )
            return _document(control.plane, wanted["id"]), written.changed

    document, changed = with_installation(config, work)
    tell(document, json, f"{'set' if changed else 'the book has'} price {document.id}", *_lines(document)[1:])


@app.command()
def end(
    price: Annotated[str, typer.Argument(help="The price's id.")],
    at: Annotated[str | None, typer.Option(help="When, ISO 8601; by default now.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """End a price, or keep it from beginning. A tenant whose price ends pays the list price from then on."""
    parse_time(at, "--at")

    async def work(installation: Installation) -> PriceEntry:
        from domain.events import PRICES_STREAM
        from domain.price_decisions import decide_price_end

        async with installation.control(seeded=True) as control:
            await control.run(
                lambda plane: decide_price_end(plane, price, at, now=time.time(), actor=installation.actor),
                stream=PRICES_STREAM,
            )
            return _document(control.plane, price)

    document = with_installation(config, work)
    tell(document, json, f"price {document.id} ends at {document.effective_until}")


async def _read(installation: Installation, read: Callable[[ControlPlane], Any]) -> Any:
    async with installation.control() as control:
        return read(control.plane)


def _document(plane: ControlPlane, price: str) -> PriceEntry:
    from domain.errors import GatewayError
    from gateway.price_document import price_document

    entry = plane.prices.entries.get(price)
    if entry is None:
        raise GatewayError("not_found", f"there is no price {price[:128]!r}: see `emberlog prices list`")
    return price_document(plane, entry, time.time(), True)


def _lines(price: PriceEntry) -> list[str]:
    import msgspec

    return fields({name: _cell(value) for name, value in msgspec.structs.asdict(price).items()})


def _cell(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else value if isinstance(value, str) else encode(value)
