"""Decisions about tenants and keys, written to the log: used by the first start and by the management commands alike."""

from __future__ import annotations

from uuid import UUID, uuid4

from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.tenant_keys import hold_writers, put_if_absent
from domain.access_decisions import keys_stream
from domain.errors import GatewayError
from domain.events import SYSTEM_TENANT, EventData, TenantCreated, encode_data
from domain.ports.event_log import ANY_VERSION, Appended, AppendStatus, EventLog, NewEvent
from domain.tenancy import IssuedKey, check_tenant_name, issue_key
from gateway.secrets import MasterKey, new_tenant_key


def decision_event(
    tenant: str, stream: str, data: EventData, expected_version: int = ANY_VERSION, event_id: bytes | None = None
) -> NewEvent:
    """An event of a decision stream, under this id or a new random one."""
    key = event_id or uuid4().bytes
    return NewEvent(
        key=key,
        event_id=key,
        tenant=tenant,
        stream=stream,
        type=data.TYPE,
        data=encode_data(data),
        schema_version=data.SCHEMA,
        expected_version=expected_version,
    )


def check_appended(appended: Appended, stream: str) -> Appended:
    """The outcome of a decision, if it was taken. Raises `version_conflict` or `invalid_config`."""
    if appended.status is AppendStatus.CONFLICT:
        raise GatewayError("version_conflict", f"{stream} was changed meanwhile: look at it and decide again")
    if appended.status is AppendStatus.REJECTED:
        raise GatewayError("invalid_config", "a value has a character that the log cannot keep: use plain text")
    return appended


async def append_decision(
    log: EventLog,
    instance: UUID,
    tenant: str,
    stream: str,
    data: EventData,
    *,
    expected_version: int = ANY_VERSION,
    event_id: bytes | None = None,
) -> Appended:
    """Append one decision event. Raises what `check_appended` raises."""
    [appended] = await log.append(instance, [decision_event(tenant, stream, data, expected_version, event_id)])
    return check_appended(appended, stream)


async def keep_tenant_key(log: PostgresEventLog, master: MasterKey, name: str) -> None:
    """A key of the tenant's own, stored (wrapped) before the tenant exists; one that is there already stays.

    Raises `version_conflict` where it was shredded, `SecretKeyError`.
    """
    async with log.pool.acquire() as connection, connection.transaction():
        await hold_writers(connection, alone=False)
        # From here on the installation's key is not rotated: what it is by now is what every gateway will unwrap with.
        if await put_if_absent(connection, name, master.reread().wrap(name, new_tenant_key())) is None:
            raise _taken(name)


async def create_tenant(log: PostgresEventLog, instance: UUID, master: MasterKey, name: str, *, actor: str) -> None:
    """A tenant with a key of its own. Raises `version_conflict` if it exists or was shredded, `SecretKeyError`."""
    check_tenant_name(name)
    await keep_tenant_key(log, master, name)
    data = TenantCreated(tenant=name, actor=actor)
    try:
        await append_decision(log, instance, name, f"tenant/{name}", data, expected_version=0)
    except GatewayError as error:
        if error.code != "version_conflict":
            raise
        raise _taken(name) from None


def _taken(name: str) -> GatewayError:
    return GatewayError("version_conflict", f"tenant {name} already exists")


async def create_key(
    log: EventLog, instance: UUID, tenant: str | None, scopes: list[str], *, actor: str, name: str | None = None
) -> IssuedKey:
    """A key of a tenant that exists, or of the installation. Its token is in the answer and nowhere else."""
    issued = issue_key(tenant, scopes, name=name, actor=actor)
    await append_decision(log, instance, tenant or SYSTEM_TENANT, keys_stream(tenant), issued.event)
    return issued
