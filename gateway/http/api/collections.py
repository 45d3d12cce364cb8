"""`/api/v1/collections`: where a tenant keeps vectors for search; what is in them, deleted and exported. An installation key sees none."""

from __future__ import annotations

import msgspec
from starlette.responses import StreamingResponse

from domain.errors import invalid_request
from gateway.collections.desk import PAGE, CollectionDetail, CollectionDocument, RowDocument
from gateway.http.api.route import Answer, ApiRoute, Call, Nothing, Pagination, Parameter

_ROW_PAGE = 100


class CollectionList(msgspec.Struct, frozen=True):
    """A page of collections, by name."""

    collections: list[CollectionDocument]
    pagination: Pagination


class NewCollectionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Its name, and the `space` of its vectors as answers name it; or the `model` (with `dimensions` and `input_type`) that they will be of."""

    name: str
    space: str | None = None
    model: str | None = None
    dimensions: int | None = None
    input_type: str | None = None


class RowList(msgspec.Struct, frozen=True):
    """Rows by id. `next` is what to give as `after` for those behind them; null where there are none."""

    rows: list[RowDocument]
    next: str | None


class DeleteRowsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ids of the rows to delete."""

    ids: list[str]


class RowsDeleted(msgspec.Struct, frozen=True):
    """How many of the rows there were."""

    deleted: int


async def index(call: Call) -> CollectionList:
    """Those there are."""
    page, pagination = call.page(call.service.collections.listed(call.tenant))
    return CollectionList(page, pagination)


async def show(call: Call) -> CollectionDetail:
    """One."""
    return await call.service.collections.show(call.tenant, call.path["collection"])


async def create(call: Call) -> Answer:
    """Make one."""
    body = call.body
    made, new = await call.service.collections.create(
        call.decide, call.tenant, body.name, space=body.space, model=body.model, dimensions=body.dimensions,
        input_type=body.input_type, actor=call.actor,
    )  # fmt: skip
    return Answer(made, 201 if new else 200)


async def remove(call: Call) -> None:
    """Delete one."""
    await call.service.collections.delete(call.decide, call.tenant, call.path["collection"], actor=call.actor)


async def rows(call: Call) -> RowList:
    """A page of what is in it."""
    limit = call.query.integer("limit", _ROW_PAGE, 1, PAGE)
    found = await call.service.collections.rows(
        call.tenant,
        call.path["collection"],
        after=_after(call),
        limit=limit,
        vectors=call.query.choice("vectors", ("true", "false"), "false") == "true",
    )
    return RowList(found, found[-1].id if len(found) == limit else None)


async def delete_rows(call: Call) -> RowsDeleted:
    """Delete some of what is in it."""
    return RowsDeleted(
        await call.service.collections.delete_rows(call.tenant, call.path["collection"], call.body.ids)
    )  # fmt: skip


async def export(call: Call) -> StreamingResponse:
    """All that is in it."""
    name = call.path["collection"]
    await call.service.collections.rows(call.tenant, name, limit=1)  # what is wrong is said before the answer begins
    return StreamingResponse(call.service.collections.export(call.tenant, name), media_type="application/x-ndjson")


def _after(call: Call) -> str:
    after = call.query.text("after") or ""
    if "\0" in after:
        raise invalid_request("`after` holds a NUL character, which no id may", "after")
    return after


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/collections",
        name="listCollections",
        summary="A tenant's collections",
        tag="collections",
        handler=index,
        answer=CollectionList,
        scopes=("agent", "admin"),
        own=True,
        paged=True,
    ),
    ApiRoute(
        method="POST",
        path="/api/v1/collections",
        name="createCollection",
        summary="Make a collection for vectors of one space; nothing where there is the same one",
        tag="collections",
        handler=create,
        body=NewCollectionBody,
        answer=CollectionDocument,
        scopes=("admin",),
        own=True,
        statuses=(201, 200),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/collections/{collection}",
        name="getCollection",
        summary="One collection: its space, how many vectors it has, how its index stands",
        tag="collections",
        handler=show,
        answer=CollectionDetail,
        scopes=("agent", "admin"),
        own=True,
    ),
    ApiRoute(
        method="DELETE",
        path="/api/v1/collections/{collection}",
        name="deleteCollection",
        summary="Delete a collection with all that is in it, for good",
        tag="collections",
        handler=remove,
        answer=Nothing,
        scopes=("admin",),
        own=True,
        statuses=(204,),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/collections/{collection}/rows",
        name="listCollectionRows",
        summary="What is in a collection, by id",
        tag="collections",
        handler=rows,
        answer=RowList,
        scopes=("agent", "admin"),
        own=True,
        query=(
            Parameter("after", "Rows behind this id."),
            Parameter(
                "limit", "Rows at most.", {"type": "integer", "minimum": 1, "maximum": PAGE, "default": _ROW_PAGE}
            ),
            Parameter(
                "vectors", "With their vectors.", {"type": "string", "enum": ["true", "false"], "default": "false"}
            ),
        ),
    ),
    ApiRoute(
        method="POST",
        path="/api/v1/collections/{collection}/rows/delete",
        name="deleteCollectionRows",
        summary="Delete rows of a collection by their ids",
        tag="collections",
        handler=delete_rows,
        body=DeleteRowsBody,
        answer=RowsDeleted,
        scopes=("agent", "admin"),
        own=True,
        versioned=False,
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/collections/{collection}/export",
        name="exportCollection",
        summary="Every row of a collection with its vector, a line of JSON each",
        tag="collections",
        handler=export,
        answer=RowDocument,
        scopes=("agent", "admin"),
        own=True,
        media="application/x-ndjson",
    ),
)
