"""`/api/v1/keys`: API keys, of the tenant that asks; an operator sees those of every tenant and of the installation."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial

import msgspec

from domain.access_decisions import decide_create_key, decide_revoke_key, keys_stream
from domain.errors import GatewayError
from domain.plane import ControlPlane
from domain.problems import Problems
from domain.tenancy import issue_key
from gateway.event_document import time_text
from gateway.http.api.route import Answer, ApiRoute, Call, Nothing, Pagination, Parameter

_TENANT = Parameter("tenant", "Whose; for operators: without it a new key is the installation's, and a list is of all. Others see their own tenant's.")  # fmt: skip


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key; never its secret. `tenant` is null for an installation key, `agent` the only one it speaks for. Times are ISO 8601, UTC."""

    id: str
    tenant: str | None
    scopes: list[str]
    name: str | None
    agent: str | None
    created_at: str
    created_by: str | None
    expires_at: str | None
    revoked: bool


class NewApiKey(ApiKey, frozen=True, kw_only=True):
    """A key that was made. `key` is the credential itself: it is shown this once and kept nowhere."""

    key: str


class ApiKeys(msgspec.Struct, frozen=True):
    """Keys in the order of their creation, the revoked ones too."""

    keys: list[ApiKey]
    pagination: Pagination


class ApiKeyWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key to be made. Of the scopes agent, billing, admin and operator (installation keys only) whoever asks needs those it gives."""

    scopes: list[str]
    name: str | None = None
    agent: str | None = None
    expires_at: str | None = None


async def show(call: Call) -> ApiKeys:
    """The keys."""
    tenant, directory = _whose(call), call.plane.directory
    everyone = call.principal.tenant is None and tenant is None
    found = list(directory.keys) if everyone else directory.keys_of.get(tenant, [])
    page, pagination = call.page(found)
    return ApiKeys([_document(call.plane, key) for key in page], pagination)


async def create(call: Call) -> Answer:
    """Make a key."""
    wanted: ApiKeyWanted = call.body
    tenant = _whose(call)
    issued = issue_key(
        tenant,
        wanted.scopes,
        expires_at=_seconds(wanted.expires_at),
        name=wanted.name,
        agent=wanted.agent,
        actor=call.actor,
    )
    await call.decide(
        keys_stream(tenant), lambda plane: decide_create_key(plane, issued, by=call.principal, now=time.time())
    )
    made = _document(call.plane, issued.event.key)
    return Answer(NewApiKey(key=issued.token, **msgspec.structs.asdict(made)), headers={"cache-control": "no-store"})


async def revoke(call: Call) -> Nothing:
    """Revoke a key, for good; again changes nothing."""
    key_id = call.path["key"]
    decide = partial(decide_revoke_key, key_id=key_id, by=call.principal, actor=call.actor)
    decide(call.plane)  # another tenant's key is unknown, whatever version its tenant is at
    await call.decide(keys_stream(call.plane.directory.keys[key_id].tenant), decide)
    return Nothing()


def _whose(call: Call) -> str | None:
    """The tenant that the request is about, None for the installation. Raises `forbidden` for another than one's own."""
    asked, own = call.query.text("tenant"), call.principal.tenant
    if own is not None and asked not in (None, own):
        raise GatewayError(
            "forbidden", "this key sees its own tenant only: leave `tenant` out", details={"field": "tenant"}
        )
    if asked is not None and asked not in call.plane.directory.tenants:
        raise GatewayError("not_found", f"there is no tenant {asked[:63]!r}", details={"field": "tenant"})
    return own if own is not None else asked


def _seconds(text: str | None) -> int | None:
    """Seconds since the epoch of ISO 8601, UTC where no offset is given. Raises `invalid_config`."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        problems = Problems()
        problems.add("expires_at", "expected ISO 8601, for example 2030-01-31 or 2030-01-31T12:00:00Z")
        problems.check("the key")
        raise


def _document(plane: ControlPlane, key_id: str) -> ApiKey:
    directory = plane.directory
    key = directory.keys[key_id]
    return ApiKey(
        id=key.key,
        tenant=key.tenant,
        scopes=key.scopes,
        name=key.name,
        agent=key.agent,
        created_at=time_text(directory.keys_since[key_id]),
        created_by=key.actor,
        expires_at=None if key.expires_at is None else time_text(key.expires_at * 1_000_000),
        revoked=key_id in directory.revoked or key.tenant in directory.shredded,
    )


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/keys",
        name="listKeys",
        summary="API keys, without their secrets",
        tag="keys",
        handler=show,
        answer=ApiKeys,
        scopes=("admin",),
        tenanted=False,
        query=(_TENANT,),
        paged=True,
        errors=(404,),
    ),
    ApiRoute(
        method="POST",
        path="/api/v1/keys",
        name="createKey",
        summary="Make an API key, and show it this once",
        tag="keys",
        handler=create,
        body=ApiKeyWanted,
        answer=NewApiKey,
        scopes=("admin",),
        tenanted=False,
        query=(_TENANT,),
        statuses=(201,),
        errors=(404, 409),
    ),
    ApiRoute(
        method="DELETE",
        path="/api/v1/keys/{key}",
        name="revokeKey",
        summary="Revoke an API key: within a second it is refused everywhere and its sessions are closed",
        tag="keys",
        handler=revoke,
        answer=Nothing,
        scopes=("admin",),
        tenanted=False,
        statuses=(204,),
        errors=(404, 409),
    ),
)
