"""`emberlog collections`: where tenants keep vectors for search."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway.cli.common import ConfigOption, JsonOption, encode, fields, show, tell, with_installation

if TYPE_CHECKING:
    from gateway.collections.desk import CollectionDesk, CollectionDetail, CollectionDocument, Take
    from gateway.collections.searching import SearchAnswer
    from gateway.manage import Installation

T = TypeVar("T")
app = typer.Typer(help="Collections: the vectors that tenants keep for search.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The collection's name.")]
TenantOption = Annotated[str, typer.Option(help="Whose.")]


@app.command("list")
def list_(tenant: TenantOption, json: JsonOption = False, config: ConfigOption = None) -> None:
    """List a tenant's collections."""

    async def work(desk: CollectionDesk, take: Take, actor: str) -> list[CollectionDocument]:
        return desk.listed(tenant)

    found = _run(config, tenant, work)
    documents = [{"id": c.name, "tenant": c.tenant, "space": c.space, "dimensions": c.dimensions} for c in found]
    show(documents, json, ["id", "space", "dimensions"], [[c.name, c.space, c.dimensions] for c in found])


@app.command()
def create(
    name: NameArgument,
    tenant: TenantOption,
    space: Annotated[
        str | None, typer.Option(help="The space of its vectors, as answers name it; or say the model.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model that its vectors will be of.")] = None,
    dimensions: Annotated[int | None, typer.Option(help="Their size; without it the model's own.")] = None,
    input_type: Annotated[
        str | None, typer.Option(help="classification or clustering, whose vectors have a space of their own.")
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a collection for vectors of one space; nothing where there is the same one."""

    async def work(desk: CollectionDesk, take: Take, actor: str) -> CollectionDocument:
        made, _ = await desk.create(
            take, tenant, name, space=space, model=model, dimensions=dimensions, input_type=input_type, actor=actor
        )
        return made

    made = _run(config, tenant, work)
    tell(made, json, f"{made.name}: vectors of {made.space}")


@app.command("show")
def show_(name: NameArgument, tenant: TenantOption, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show a collection: its space, how many vectors it has, how its index stands."""

    async def work(desk: CollectionDesk, take: Take, actor: str) -> CollectionDetail:
        return await desk.show(tenant, name)

    found = _run(config, tenant, work)
    index = found.index
    progress = f" ({index.phase}: {index.done} of {index.total})" if index.state == "building" else ""
    told = {"name": found.name, "space": found.space, "vectors": str(found.vectors), "index": index.state + progress}
    tell(found, json, *fields(told))


@app.command()
def delete(name: NameArgument, tenant: TenantOption, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Delete a collection with all that is in it, for good."""

    async def work(desk: CollectionDesk, take: Take, actor: str) -> None:
        await desk.delete(take, tenant, name, actor=actor)

    _run(config, tenant, work)
    tell({"name": name, "deleted": True}, json, f"deleted {name}")


@app.command()
def export(name: NameArgument, tenant: TenantOption, config: ConfigOption = None) -> None:
    """Write every row with its vector to standard output, a line of JSON each."""

    async def work(desk: CollectionDesk, take: Take, actor: str) -> None:
        async for lines in desk.export(tenant, name):
            sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()

    _run(config, tenant, work)


@app.command()
def search(
    name: NameArgument,
    tenant: TenantOption,
    vector: Annotated[
        Path,
        typer.Option(
            help="A file with the vector to search for, a JSON list of numbers; - reads it from stdin.", allow_dash=True
        ),
    ],
    k: Annotated[int, typer.Option("-k", help="Rows at most.")] = 10,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="FIELD=JSON",
            help="A value that the metadata must have, or a list of which one must be; may be given again.",
        ),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Leave out what scores less.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show the rows that are nearest to a vector. A text is embedded by a gateway: search by HTTP for one."""
    row, where = _numbers(vector), _filter(filters or [])

    async def work(desk: CollectionDesk, take: Take, actor: str) -> SearchAnswer:
        from gateway.collections.searching import SearchRequest, vector_of_numbers

        return await desk.search(
            tenant, SearchRequest(name, vector=vector_of_numbers(row), k=k, filter=where, threshold=threshold)
        )

    found = _run(config, tenant, work)
    rows = [[f"{m.score:.4f}", m.id, "" if m.metadata is None else encode(m.metadata)] for m in found.matches]
    show(found, json, ["score", "id", "metadata"], rows)


def _numbers(path: Path) -> list[float]:
    import msgspec

    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return msgspec.json.decode(text, type=list[float])
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"expected a JSON list of numbers: {error}", param_hint="--vector") from None


def _filter(given: list[str]) -> dict[str, Any]:
    import msgspec

    from gateway.wire.messages import RowFilter

    where: dict[str, Any] = {}
    for one in given:
        field, equals, value = one.partition("=")
        try:
            where |= msgspec.convert({field: msgspec.json.decode(value)}, RowFilter) if equals else {}
        except ValueError:
            equals = ""
        if not equals:
            raise typer.BadParameter(
                f'{one[:40]!r}: expected FIELD=JSON, such as chapter=1 or lang=\'["de", "en"]\'', param_hint="--filter"
            )
    return where


def _run(config: Path | None, tenant: str, work: Callable[[CollectionDesk, Take, str], Awaitable[T]]) -> T:
    async def opened(installation: Installation) -> T:
        from adapters.postgres.vectors import VectorTables
        from gateway.collections.desk import CollectionDesk

        await installation.require_tenant(tenant, alive=True)
        tables = await VectorTables.connect(installation.places.app_dsn, size=1)
        try:
            async with installation.control() as control:
                return await work(
                    CollectionDesk(control.plane, tables),
                    lambda stream, decide: control.run(decide, stream=stream),
                    installation.actor,
                )
        finally:
            await tables.close()

    return with_installation(config, opened)
