"""Collections as a part of a gateway: opened, run beside its requests and closed as one."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Self

from adapters.postgres.pool import UNREACHABLE
from adapters.postgres.vectors import VectorTable, VectorTables
from domain.plane import ControlPlane
from gateway.collections.desk import CollectionDesk
from gateway.collections.storing import Storing
from gateway.collections.upkeep import Upkeep
from gateway.places import Places


class CollectionParts:
    """See the module."""

    def __init__(self, tables: VectorTables, plane: ControlPlane, owner_dsn: str) -> None:
        self.tables = tables
        self.desk = CollectionDesk(plane, tables)
        self.upkeep = Upkeep(plane, tables, owner_dsn)
        self.storing = Storing(plane.collections, tables, self.upkeep.grown)
        self.close = tables.close

    @classmethod
    async def open(cls, places: Places, plane: ControlPlane) -> Self:
        """Raises what connecting raises."""
        return cls(await VectorTables.connect(places.app_dsn), plane, places.owner_dsn)

    def runs(self) -> list[Coroutine[Any, Any, None]]:
        """What runs beside requests."""
        return [self.upkeep.run_sweeps(), self.upkeep.run_builds()]

    async def forget(self, tenant: str) -> None:
        """A tenant was shredded: drop what it kept. Raises OSError where the database is out of reach."""
        try:
            for table, owner in await self.tables.kept(tenant):
                await self.tables.drop(VectorTable(table, owner, 1))
        except UNREACHABLE as error:
            raise OSError(f"the database is out of reach: {type(error).__name__}") from None
