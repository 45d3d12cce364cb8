"""The periodic tasks of a gateway.

Each run is an event, so periods are long: an idle installation logs some seventy to ninety runs a day. What must be done at once or all the
time is done elsewhere: `append` makes partitions that are missing, the reconciler looks every two seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from adapters.archive.archiver import archive_due
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.instances import open_of_fenced
from adapters.postgres.maintenance import sweep_instances
from adapters.postgres.pool import connect
from adapters.postgres.quota_leases import prune as prune_quotas
from gateway.maintenance.task import Task
from gateway.places import Places
from gateway.settings import Settings
from projections.generations import drop_retired
from projections.runner import ALL

HOUR = timedelta(hours=1)
INSTANCE_AGE = timedelta(days=30)
"""Fenced instances are remembered this long."""
GENERATION_AGE = timedelta(days=7)
"""Generations of views that a rebuild has replaced are kept this long to go back to."""
WINDOW_AGE = timedelta(days=62)
"""Windows of quotas are remembered this long after their end."""
_COUNTED = 1_000


def gateway_tasks(
    log: PostgresEventLog,
    settings: Settings,
    places: Places,
    abandon_open: Callable[[], Awaitable[int]],
    end_graces: Callable[[], Awaitable[int]],
    attest_due: Callable[[], Awaitable[dict[str, int]]] | None = None,
) -> list[Task]:
    """What every gateway of the installation may be asked to do.

    `abandon_open` gives up attempts, `end_graces` removes models whose grace period has ended; both say how many. `attest_due` attests
    the endpoints that are due; None: none is attested.
    """

    async def partitions() -> dict[str, int]:
        return {"made": await log.ensure_partitions()}

    async def dedupe_keys() -> dict[str, int]:
        return {"dropped": await log.drop_old_dedupe_keys()}

    async def reconciliation() -> dict[str, int]:
        left = len(await open_of_fenced(log.pool, _COUNTED))
        return {"open": left, "abandoned": await abandon_open() if left else 0}

    async def sweep() -> dict[str, int]:
        connection = await connect(places.app_dsn, "sweep")
        try:
            generations = sum([await drop_retired(connection, view, GENERATION_AGE) for view in ALL])
        finally:
            await connection.close()
        return {
            "instances": await sweep_instances(log.pool, INSTANCE_AGE),
            "generations": generations,
            "quota_windows": await prune_quotas(log.pool, (datetime.now(UTC) - WINDOW_AGE).date()),
        }

    async def deprecations() -> dict[str, int]:
        return {"removed": await end_graces()}

    tasks = [
        Task("partitions", HOUR, partitions),
        Task("dedupe_keys", 6 * HOUR, dedupe_keys),
        Task("reconciliation", HOUR, reconciliation),
        Task("sweep", 24 * HOUR, sweep),
        Task("deprecations", 2 * HOUR, deprecations),
    ]
    if attest_due is not None:
        tasks.append(Task("attestations", HOUR, attest_due))
    days, folder = settings.archive_after_days, settings.archive_folder
    if days is not None and folder is not None:
        age = timedelta(days=days)

        async def archive() -> dict[str, int]:
            return await archive_due(places.owner_dsn, places.app_dsn, folder, age)

        tasks.append(Task("archive", HOUR, archive))
    return tasks
