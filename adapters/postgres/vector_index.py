"""Building the index (HNSW, by cosine) over the vectors of a collection, as the owner of its table, while it is read and written.

`CREATE INDEX CONCURRENTLY` needs the table's owner and a statement of its own. One that was broken off leaves an index that is not valid:
whoever builds next drops it first.
"""

from __future__ import annotations

from adapters.postgres.pool import connect
from adapters.postgres.vector_codec import extension
from adapters.postgres.vectors import SINGLE_PRECISION, VectorTable

_VALID = "SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass($1)"
MEMORY = "256MB"
"""What a build may use of the server's memory; a graph that is larger is built on disk from there on, more slowly."""


async def build_index(owner_dsn: str, table: VectorTable, *, memory: str = MEMORY) -> bool:
    """Build it, unless it is there; False where somebody else is at it. Takes minutes for a million vectors.

    Raises what `UNREACHABLE` lists, among it `InsufficientPrivilegeError` where the login is not the owner's and `UndefinedTableError`
    where the table is gone.
    """
    connection = await connect(owner_dsn, "vector index", role=False, statement_timeout=0)
    try:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", int(table.id[:15], 16)):
            return False
        name, index = f"vectors.c_{table.id}", f"c_{table.id}_hnsw"
        valid = await connection.fetchval(_VALID, f"vectors.{index}")
        if valid:
            return True
        if valid is False:
            await connection.execute(f"DROP INDEX CONCURRENTLY vectors.{index}")
        schema, _ = await extension(connection)
        kind = "vector" if table.dimensions <= SINGLE_PRECISION else "halfvec"
        await connection.execute("SELECT set_config('maintenance_work_mem', $1, false)", memory)
        await connection.execute(
            f"CREATE INDEX CONCURRENTLY {index} ON {name} USING hnsw (embedding {schema}.{kind}_cosine_ops)"
        )
        await connection.execute(f"ANALYZE {name}")
        return True
    finally:
        await connection.close()
