"""What people do with credentials, for the management API and the commands alike. Nothing here gives a secret away again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from domain.credential_decisions import (
    check_credential,
    credential_of,
    credential_owner,
    credential_stream,
    decide_remove_credential,
    decide_set_credential,
    users,
)
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import SYSTEM_TENANT, CredentialSet
from domain.plane import ControlPlane
from gateway.control import Written

Take = Callable[[str, Callable[[ControlPlane], list[Decision]]], Awaitable[Written]]
"""Takes a decision on a stream: `Control.run`, or `Call.decide` of a route."""


class KeepsSecrets(Protocol):
    """Where the secrets are kept: see `gateway.credentials.CredentialSecrets`."""

    async def keep(self, tenant: str, name: str, provider: str, secret: str) -> int:
        """Keep a secret; returns its revision."""
        ...

    async def settle(self, tenant: str, name: str, revision: int) -> None:
        """Forget the revisions before this one."""
        ...

    async def discard(self, tenant: str, name: str, revision: int) -> None:
        """Forget the secret of this revision alone."""
        ...

    async def drop(self, tenant: str, name: str, revision: int) -> None:
        """Forget the secrets up to this revision."""
        ...


class CredentialDocument(msgspec.Struct, frozen=True):
    """A credential, as it is shown: its secret never is. `revision` counts its secrets; `endpoints` use it. `tenant` is null for one of the installation."""

    name: str
    tenant: str | None
    provider: str
    revision: int
    endpoints: list[str]


class CredentialAdmin:
    """For one installation. `tenant` is whose credentials are meant: None for those of the installation."""

    def __init__(self, plane: ControlPlane, secrets: KeepsSecrets) -> None:
        self._plane = plane
        self._secrets = secrets

    def listed(self, tenant: str | None) -> list[CredentialDocument]:
        """Those there are, by name."""
        owner = credential_owner(tenant)
        found = self._plane.endpoints.credentials
        return [self._document(owner, found[key]) for key in sorted(found) if key[0] == owner]

    def show(self, tenant: str | None, name: str) -> CredentialDocument:
        """One of them. Raises `not_found`."""
        owner = credential_owner(tenant)
        return self._document(owner, credential_of(self._plane, owner, name))

    async def set(
        self, take: Take, tenant: str | None, name: str, *, provider: str, secret: str, actor: str
    ) -> CredentialDocument:
        """Keep a secret, which endpoints use from now on. Raises `invalid_config`, `resource_constraint`, `version_conflict`, `not_found`."""
        owner = credential_owner(tenant)
        check_credential(self._plane, owner, name, provider=provider, secret=secret)
        revision = await self._secrets.keep(owner, name, provider, secret.strip())

        def decide(plane: ControlPlane) -> list[Decision]:
            check_credential(plane, owner, name, provider=provider, secret=secret)
            return decide_set_credential(plane, owner, name, provider=provider, revision=revision, actor=actor)

        try:
            await take(credential_stream(owner), decide)
        except GatewayError as error:
            if error.code != "unavailable":  # else it may be in the log all the same
                await self._secrets.discard(owner, name, revision)
            raise
        await self._secrets.settle(owner, name, revision)
        return self.show(tenant, name)

    async def remove(self, take: Take, tenant: str | None, name: str, *, actor: str) -> None:
        """Remove one. Raises `not_found`, `resource_constraint` while an endpoint uses it."""
        owner = credential_owner(tenant)
        revision = credential_of(self._plane, owner, name).revision
        await take(
            credential_stream(owner), lambda plane: decide_remove_credential(plane, owner, name, actor=actor)
        )  # fmt: skip
        await self._secrets.drop(owner, name, revision)

    def _document(self, owner: str, data: CredentialSet) -> CredentialDocument:
        return CredentialDocument(
            name=data.credential,
            tenant=None if owner == SYSTEM_TENANT else owner,
            provider=data.provider,
            revision=data.revision,
            endpoints=[d.endpoint for d in users(self._plane.endpoints, owner, data.credential)],
        )
