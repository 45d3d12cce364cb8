"""Collections: the vectors of one space that a tenant keeps for search. Folded from their events; and the decisions about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from domain.catalogue import EMBEDDING
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import CollectionCreated, CollectionDeleted, EventData, TenantShredded
from domain.model_catalog import SHOWN, CatalogModel, as_model
from domain.problems import Problems
from domain.space import INPUT_TYPES, size_and_type

if TYPE_CHECKING:
    from domain.plane import ControlPlane

MAX_COLLECTIONS = 1_000
"""Collections of one tenant."""
MAX_DIMENSIONS = 4_000
"""The longest vectors that an index takes."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Collection(msgspec.Struct, frozen=True):
    """A collection of `tenant`: its vectors, of `space` and of `dimensions` numbers, lie in `table`."""

    name: str
    tenant: str
    table: str
    space: str
    dimensions: int


class Collections:
    """The collections that there are, by tenant and name. `ended` holds the tables of those that there were."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self._tenants: dict[str, dict[str, Collection]] = {}

    def of(self, tenant: str) -> list[Collection]:
        """A tenant's, by name."""
        return sorted(self._tenants.get(tenant, {}).values(), key=lambda c: c.name)

    def get(self, tenant: str, name: str) -> Collection | None:
        """The tenant's collection of this name."""
        return self._tenants.get(tenant, {}).get(name)

    def find(self, tenant: str, name: str, field: str = "collection") -> Collection:
        """The same. Raises `not_found`, for those of others as for what never was."""
        found = self.get(tenant, name)
        if found is None:
            raise GatewayError(
                "not_found",
                f"there is no collection {name[:63]!r}: make it first, of the space that its vectors will be of",
                details={"field": field},
            )
        return found

    def __iter__(self) -> Iterator[Collection]:
        return (collection for kept in self._tenants.values() for collection in kept.values())

    def apply(self, tenant: str, data: EventData) -> None:
        """Fold one event of the tenant."""
        match data:
            case CollectionCreated():
                made = Collection(data.collection, tenant, data.table, data.space, size_and_type(data.space)[0])
                self._tenants.setdefault(tenant, {})[data.collection] = made
            case CollectionDeleted():
                kept = self._tenants.get(tenant, {})
                if (found := kept.get(data.collection)) is not None and found.table == data.table:
                    del kept[data.collection]
                self.ended.add(data.table)
            case TenantShredded():
                self.ended.update(c.table for c in self._tenants.pop(data.tenant, {}).values())
            case _:
                pass


def check_space(collection: Collection, space: str, what: str, field: str) -> None:
    """Raise `invalid_request`, naming both, where `what` is of another space than the collection's vectors."""
    if space != collection.space:
        raise GatewayError(
            "invalid_request",
            f"collection {collection.name!r} keeps vectors of {collection.space}, and {what} is of {space}: vectors are compared within one "
            "space only; ask for the model, the dimensions and the input type of the collection's, or use another collection",
            details={"field": field, "collection_space": collection.space, "space": space},
        )


def decide_create_collection(
    plane: ControlPlane, tenant: str, name: str, *, table: str, space: str, actor: str
) -> list[Decision]:
    """Make a collection of this space; nothing where there is the same one. Raises `invalid_config`, `resource_constraint`."""
    problems = Problems()
    if not _NAME.fullmatch(name):
        problems.add("name", "expected 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit")
    if (problem := _space_problem(plane, space)) is not None:
        problems.add("space", problem)
    problems.check("the collection")
    there = plane.collections.get(tenant, name)
    if there is not None:
        if there.space == space:
            return []
        raise GatewayError(
            "resource_constraint",
            f"there is a collection {name!r} already, of {there.space}, not {space}: take another name, or delete that one first",
            details={"field": "name", "collection_space": there.space, "space": space},
        )
    if len(plane.collections.of(tenant)) >= MAX_COLLECTIONS:
        raise GatewayError(
            "resource_constraint", f"there are {MAX_COLLECTIONS} collections, the most there can be: delete one first"
        )
    data = CollectionCreated(collection=name, table=table, space=space, actor=actor)
    return [Decision(tenant, f"tenant/{tenant}", data)]


def decide_delete_collection(plane: ControlPlane, tenant: str, name: str, *, actor: str) -> list[Decision]:
    """Delete a collection with all that is in it. Raises `not_found`."""
    found = plane.collections.find(tenant, name)
    data = CollectionDeleted(collection=name, table=found.table, actor=actor)
    return [Decision(tenant, f"tenant/{tenant}", data)]


def space_of(plane: ControlPlane, model: str, dimensions: int | None, input_type: str | None) -> str:
    """The space of this model's vectors of that size (None: its default) and input type. Raises `model_not_found`, `invalid_config`."""
    found = _shown(plane, model)
    if found is None:
        raise GatewayError("model_not_found", f"there is no model {model[:128]!r}", details={"field": "model"})
    problems, facts = Problems(), as_model(found)
    size = facts.dimensions if dimensions is None else dimensions
    if not facts.supports(size):
        problems.add("dimensions", f"model {found.id!r} has vectors of {facts.dimensions_text()} dimensions")
    if input_type is not None and input_type not in INPUT_TYPES:
        problems.add("input_type", f"expected one of {', '.join(INPUT_TYPES)}")
    problems.check("the collection")
    return facts.space(size, input_type)


def asked_in(plane: ControlPlane, collection: Collection) -> tuple[str, str | None]:
    """The model that embeds texts to search this collection with, and the input type to ask it for. Raises `invalid_request`, naming both spaces, where the catalogue's model of that id is another by now."""
    model = collection.space.rpartition("@")[0]
    _, input_type = size_and_type(collection.space)
    found = _shown(plane, model)
    if found is None:
        raise GatewayError(
            "model_not_found",
            f"model {model[:128]!r}, whose vectors collection {collection.name!r} keeps, is not in the catalogue any more: search with a vector, or keep them anew in another collection",
            details={"field": "collection", "collection_space": collection.space},
        )
    now = as_model(found).space(collection.dimensions, input_type)
    check_space(collection, now, f"what model {model!r} gives now", "text")
    return model, input_type or "query"


def _space_problem(plane: ControlPlane, space: str) -> str | None:
    try:
        size, input_type = size_and_type(space)
    except ValueError:
        return "expected a space's name, <model>@<version>/<dimensions>/<unit|raw>[/<input type>], as answers name it"
    if not 1 <= size <= MAX_DIMENSIONS:
        return f"vectors of {size} dimensions cannot be searched: at most {MAX_DIMENSIONS}; ask the model for fewer"
    model = _shown(plane, space.rpartition("@")[0])
    if model is None:
        return "no model of the catalogue has this space"
    facts = as_model(model)
    if not facts.supports(size) or facts.space(size, input_type) != space:
        return f"model {model.id!r} has no such space: its vectors of {facts.dimensions} dimensions are of {facts.space(facts.dimensions, input_type)}"
    return None


def _shown(plane: ControlPlane, name: str) -> CatalogModel | None:
    """The model, if requests know of it."""
    found = plane.models.resolve(name)
    return found if found is not None and found.state in SHOWN and found.spec.type == EMBEDDING else None
