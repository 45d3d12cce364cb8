"""The first start of an embedded installation: a tenant `default` with a development key, shown once on standard error.

And what every start of one does: with the data folder's lock in hand, whoever wrote to this log before is dead.
"""

from __future__ import annotations

import sys

from adapters.postgres.event_log import PostgresEventLog
from domain.ports.event_log import ANY_VERSION
from domain.tenancy import issue_key
from gateway.house import House
from gateway.manage import Installation, append_decision, create_tenant
from gateway.places import Places
from gateway.settings import Settings

DEFAULT_TENANT = "default"


async def fence_predecessors(places: Places) -> None:
    """Fence every instance that was not fenced: nobody else may write to an embedded log while its data folder is ours."""
    log = await PostgresEventLog.connect(places.app_dsn)
    try:
        for instance in await log.live_instances():
            await log.fence_instance(instance)
    finally:
        await log.close()


__all__ = [
    "ANY_VERSION",
    "DEFAULT_TENANT",
    "House",
    "Installation",
    "Settings",
    "append_decision",
    "create_tenant",
    "issue_key",
    "sys",
]
