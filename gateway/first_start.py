"""What a start of an embedded installation does before it serves.

With the data folder's lock in hand, whoever wrote to this log before is dead; and where the tenant `default` has never
had a key it gets a development key, shown once on standard error.
"""

from __future__ import annotations

import sys

from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.instances import live_instances
from domain.errors import GatewayError
from domain.events import KeyCreated
from gateway.decisions import create_key, create_tenant
from gateway.house import House
from gateway.instance import describe
from gateway.manage import actor_of_command

DEFAULT_TENANT = "default"
DEVELOPMENT_SCOPES = ["agent", "admin"]


async def prepare_installation(house: House) -> None:
    """Fence the dead, and issue the development key unless the tenant `default` has ever had a key."""
    log = await PostgresEventLog.connect(house.places.app_dsn)
    try:
        for instance in await live_instances(log.pool):
            await log.fence_instance(instance)
        if await _has_had_a_key(log, DEFAULT_TENANT):
            return
        instance = await log.register_instance(f"first start of {describe()}", 60)
        try:
            await create_tenant(log, instance, house.master, DEFAULT_TENANT, actor=actor_of_command())
        except GatewayError as error:
            if error.code != "version_conflict":
                raise
        issued = await create_key(
            log, instance, DEFAULT_TENANT, DEVELOPMENT_SCOPES, actor=actor_of_command(), name="development"
        )
        await log.fence_instance(instance)
    finally:
        await log.close()
    print(f"development key (tenant {DEFAULT_TENANT}, shown once): {issued.token}", file=sys.stderr, flush=True)


async def _has_had_a_key(log: PostgresEventLog, tenant: str) -> bool:
    after = 0
    while events := await log.read_decisions(after, 1000):
        if any(event.type == KeyCreated.TYPE and event.tenant == tenant for event in events):
            return True
        after = events[-1].position
    return False
