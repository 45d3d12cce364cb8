"""Deciding on credentials for providers: a tenant's own, or the installation's, which are of the tenant `_system`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from domain.decision import Decision
from domain.endpoints import ENDED, Deployment, Endpoints
from domain.errors import GatewayError
from domain.events import SYSTEM_TENANT, CredentialRemoved, CredentialSet
from domain.problems import Problems

if TYPE_CHECKING:
    from domain.plane import ControlPlane

MAX_CREDENTIALS = 100
MAX_SECRET = 16_384
"""Bytes of a secret in UTF-8: the key of a service account, as JSON, has some 2,400."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PROVIDER = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def credential_owner(tenant: str | None) -> str:
    """The tenant that a credential is of, `_system` for the installation's (None)."""
    return SYSTEM_TENANT if tenant is None else tenant


def credential_stream(owner: str) -> str:
    """The stream of the credentials of a tenant, or of `_system`."""
    return f"tenant/{owner}"


def users(endpoints: Endpoints, owner: str, credential: str) -> list[Deployment]:
    """The deployments that use a credential, or will, by endpoint."""
    found = [
        d
        for d in endpoints.deployments.values()
        if d.state not in ENDED and d.spec.credential == credential and credential_owner(d.owner) == owner
    ]
    return sorted(found, key=lambda d: d.endpoint)


def credential_of(plane: ControlPlane, owner: str, credential: str) -> CredentialSet:
    """What the log tells of a credential. Raises `not_found`, also for those of others."""
    found = plane.endpoints.credentials.get((owner, credential))
    if found is None:
        raise GatewayError("not_found", f"there is no credential {credential[:63]!r}", details={"field": "credential"})
    return found


def check_credential(plane: ControlPlane, owner: str, credential: str, *, provider: str, secret: str) -> None:
    """Raise `invalid_config` or `resource_constraint` where a credential cannot be set like this. The secret is not repeated."""
    problems = Problems()
    if not _NAME.fullmatch(credential):
        problems.add("name", "expected 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit")
    if not _PROVIDER.fullmatch(provider):
        problems.add("provider", "expected the name of a provider, such as 'openai'")
    try:
        size = len(secret.strip().encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_SECRET or "\0" in secret:
        problems.add("secret", f"expected a text of 1 to {MAX_SECRET} bytes")
    problems.check("the credential")
    known = plane.endpoints.credentials
    if (owner, credential) not in known and sum(of == owner for of, _ in known) >= MAX_CREDENTIALS:
        raise GatewayError(
            "resource_constraint", f"there are {MAX_CREDENTIALS} credentials, the most there can be: remove one first"
        )
    others = [d.endpoint for d in users(plane.endpoints, owner, credential) if d.spec.provider != provider]
    if others:
        raise GatewayError(
            "resource_constraint",
            f"credential {credential!r} is used for another provider by {others[0]!r}: take another name, or undeploy that first",
            details={"field": "provider", "endpoints": others[:100]},
        )


def decide_set_credential(
    plane: ControlPlane, owner: str, credential: str, *, provider: str, revision: int, actor: str
) -> list[Decision]:
    """Say that the secret of this revision is in use from now on; nothing where a later one is already."""
    known = plane.endpoints.credentials.get((owner, credential))
    if known is not None and known.revision >= revision:
        return []
    data = CredentialSet(credential=credential, provider=provider, revision=revision, actor=actor)
    return [Decision(owner, credential_stream(owner), data)]


def decide_remove_credential(plane: ControlPlane, owner: str, credential: str, *, actor: str) -> list[Decision]:
    """Remove a credential. Raises `not_found`, `resource_constraint` while an endpoint uses it."""
    credential_of(plane, owner, credential)
    using = [d.endpoint for d in users(plane.endpoints, owner, credential)]
    if using:
        raise GatewayError(
            "resource_constraint",
            f"credential {credential!r} is used by {len(using)} endpoints, such as {using[0]!r}: undeploy them first",
            details={"field": "credential", "endpoints": using[:100]},
        )
    return [Decision(owner, credential_stream(owner), CredentialRemoved(credential=credential, actor=actor))]
