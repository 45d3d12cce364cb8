"""Decisions about tenants and keys, written to the log: used by the first start and by the management commands alike."""

from __future__ import annotations

from uuid import UUID, uuid4

from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.tenant_keys import hold_writers, put_if_absent
from domain.errors import GatewayError
from domain.events import SYSTEM_STREAM, SYSTEM_TENANT, EventData, KeyRevoked, TenantCreated, encode_data
from domain.ports.event_log import ANY_VERSION, Appended, AppendStatus, EventLog, NewEvent
from domain.tenancy import IssuedKey, check_tenant_name, issue_key
from gateway.secrets import MasterKey, new_tenant_key

KEYS_STREAM = SYSTEM_STREAM
"""The stream of installation keys, of the tenant `_system`."""


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


async def create_tenant(log: PostgresEventLog, instance: UUID, master: MasterKey, name: str) -> None:
    """A tenant with a key of its own, which is stored (wrapped) before the tenant exists.

    Raises `version_conflict` if it exists or was shredded, `SecretKeyError`.
    """
    check_tenant_name(name)
    taken = GatewayError("version_conflict", f"tenant {name} already exists")
    async with log.pool.acquire() as connection, connection.transaction():
        await hold_writers(connection, alone=False)
        # From here on the installation's key is not rotated: what it is by now is what every gateway will unwrap with.
        if await put_if_absent(connection, name, master.reread().wrap(name, new_tenant_key())) is None:
            raise taken
    try:
        await append_decision(log, instance, name, f"tenant/{name}", TenantCreated(tenant=name), expected_version=0)
    except GatewayError as error:
        if error.code != "version_conflict":
            raise
        raise taken from None


async def create_key(
    log: EventLog,
    instance: UUID,
    tenant: str | None,
    scopes: list[str],
    *,
    expires_at: int | None = None,
    name: str | None = None,
) -> IssuedKey:
    """A key of a tenant that exists, or of the installation. Its token is in the answer and nowhere else."""
    issued = issue_key(tenant, scopes, expires_at=expires_at, name=name)
    owner, stream = (tenant, f"tenant/{tenant}") if tenant else (SYSTEM_TENANT, KEYS_STREAM)
    await append_decision(log, instance, owner, stream, issued.event)
    return issued


async def revoke_key(log: EventLog, instance: UUID, tenant: str | None, key: str) -> None:
    """From now on the key is refused everywhere, and its open sessions are closed."""
    owner, stream = (tenant, f"tenant/{tenant}") if tenant else (SYSTEM_TENANT, KEYS_STREAM)
    await append_decision(log, instance, owner, stream, KeyRevoked(key=key))
