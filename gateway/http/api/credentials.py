"""`/api/v1/credentials`: the credentials by which endpoints call providers, a tenant's own or the installation's. Secrets go in, never out."""

from __future__ import annotations

import msgspec

from gateway.credential_admin import CredentialDocument
from gateway.http.api.alerts import whose
from gateway.http.api.reaching import reaching
from gateway.http.api.route import Answer, ApiRoute, Call, Nothing, Pagination, Parameter

_TENANT = Parameter(
    "tenant", "Whose; for operators, whose own credentials are meant without it. Others have their tenant's."
)


class CredentialList(msgspec.Struct, frozen=True):
    """A page of credentials, by name."""

    credentials: list[CredentialDocument]
    pagination: Pagination


class CredentialBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The provider that it is for, and its secret: an API key, or what else that provider takes, as JSON (docs/endpoints.md)."""

    provider: str
    secret: str

    def __repr__(self) -> str:
        return f"CredentialBody(provider={self.provider!r}, secret=***)"


async def index(call: Call) -> CredentialList:
    """Those there are."""
    page, pagination = call.page(call.service.credentials.listed(whose(call)))
    return CredentialList(page, pagination)


async def show(call: Call) -> CredentialDocument:
    """One."""
    return call.service.credentials.show(whose(call), call.path["credential"])


async def put(call: Call) -> Answer:
    """Set one, or give it a new secret."""
    tenant, name, body = whose(call), call.path["credential"], call.body
    there = any(one.name == name for one in call.service.credentials.listed(tenant))
    with reaching():
        made = await call.service.credentials.set(
            call.decide, tenant, name, provider=body.provider, secret=body.secret, actor=call.actor
        )
    return Answer(made, 200 if there else 201)


async def remove(call: Call) -> None:
    """Remove one."""
    with reaching():
        await call.service.credentials.remove(call.decide, whose(call), call.path["credential"], actor=call.actor)


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/credentials",
        name="listCredentials",
        summary="The credentials of a tenant, or of the installation, without their secrets",
        tag="credentials",
        handler=index,
        answer=CredentialList,
        scopes=("admin",),
        tenanted=False,
        paged=True,
        query=(_TENANT,),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/credentials/{credential}",
        name="getCredential",
        summary="One credential, without its secret",
        tag="credentials",
        handler=show,
        answer=CredentialDocument,
        scopes=("admin",),
        tenanted=False,
        query=(_TENANT,),
    ),
    ApiRoute(
        method="PUT",
        path="/api/v1/credentials/{credential}",
        name="setCredential",
        summary="Set a credential, or give it a new secret: endpoints that use it do so from their next call on",
        tag="credentials",
        handler=put,
        body=CredentialBody,
        answer=CredentialDocument,
        scopes=("admin",),
        tenanted=False,
        statuses=(201, 200),
        query=(_TENANT,),
    ),
    ApiRoute(
        method="DELETE",
        path="/api/v1/credentials/{credential}",
        name="removeCredential",
        summary="Remove a credential that no endpoint uses, and its secret",
        tag="credentials",
        handler=remove,
        answer=Nothing,
        scopes=("admin",),
        tenanted=False,
        statuses=(204,),
        query=(_TENANT,),
    ),
)
