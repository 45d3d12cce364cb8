"""One gateway: the request service with what it stands on. What sessions and routes talk to."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import structlog

from adapters.postgres.pool import UNREACHABLE
from adapters.providers.local.files import default_store
from domain.agents import agent_stream, decide_agent
from domain.catalogue import Catalogue
from domain.errors import GatewayError
from domain.events import (
    AgentRegistered,
    Preferences,
)
from domain.model_catalog import CatalogModel
from domain.ports.event_log import LogUnavailable
from domain.ports.provider import Text
from domain.tenancy import Principal
from gateway.catalogue.live import rehearse
from gateway.control import Written
from gateway.decisions import keep_tenant_key
from gateway.endpoints.attest_model import AttestationsAnswer, attest_model
from gateway.engine import Engine
from gateway.replies import Reply
from gateway.secrets import open_metadata, seal_metadata
from gateway.service import refusals
from gateway.service.selector import Selector
from gateway.service.service import Ticket
from gateway.settings import Settings
from gateway.wire import checks
from gateway.wire.messages import AgentInfo, EmbeddingGenerate
from projections.cursor import State

_log = structlog.get_logger("emberlog.gateway")
MAX_LAG_SECONDS = 60.0
"""A projection further behind than this makes the gateway unready."""


class Gateway(Engine):
    """Implements `gateway.wire.service.EmbeddingService`. Made by `Gateway.open`."""

    @property
    def settings(self) -> Settings:
        """The settings in force: those of the start with what events have changed since."""
        return self._settings

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the gateway is going down."""
        return self._service.draining

    def authenticate(self, token: str) -> Principal:
        """Who holds this API key or JSON Web Token. Raises `unauthorized`; see `gateway.auth.authenticator.authenticated`."""
        if token.count(".") == 2:
            return self._tokens.authenticate(token)
        return self.directory.authenticate(token, time.time())

    def valid(self, principal: Principal) -> bool:
        """Whether the principal's key or token is still good."""
        if principal.kind == "jwt":
            return self._tokens.valid(principal)
        return self.directory.valid(principal.key, time.time())

    def generate(
        self,
        principal: Principal,
        agent: str,
        message: EmbeddingGenerate,
        texts: Sequence[Text],
        reply: Reply,
        *,
        trace: str | None = None,
    ) -> Ticket:
        """See `RequestService.generate`."""
        return self._service.generate(principal, agent, message, texts, reply, trace=trace)

    async def register_agent(
        self,
        principal: Principal,
        agent: AgentInfo,
        message_preferences: Preferences,
        capabilities: list[str],
        metadata: dict[str, str] | None,
    ) -> int:
        """Store what an agent states about itself; returns the number of its statements. Raises `GatewayError`."""
        tenant = principal.tenant
        if tenant is None:
            raise GatewayError("forbidden", "an installation key has no agents: use a key of a tenant")
        known = self.directory.agents.get((tenant, agent.id))
        sealed = None
        if metadata:
            checks.metadata(metadata)
            sealed = self._sealed_again(tenant, None if known is None else known.metadata, metadata)
        data = AgentRegistered(
            agent=agent.id,
            preferences=message_preferences,
            name=agent.name,
            version=agent.version,
            capabilities=capabilities,
            metadata=sealed,
            actor=principal.actor,
        )
        written = await self.control.run(
            lambda plane: decide_agent(plane, tenant, data), stream=agent_stream(tenant, agent.id)
        )
        return written.version

    def _sealed_again(self, tenant: str, before: str | None, metadata: dict[str, str]) -> str:
        """The metadata, sealed; as it was sealed `before` where it says the same, so that what is said again is nothing new to log."""
        key, plain = self._service.tenant_key(tenant), msgspec.json.encode(metadata)
        if before is not None and open_metadata(key, before) == plain:
            return before
        return seal_metadata(key, plain)

    @property
    def selector(self) -> Selector:
        """See `EmbeddingService.selector`."""
        return self._service.selector

    def models(self) -> Catalogue:
        """The catalogue as of now."""
        return self._live.current()

    async def keep_tenant_key(self, tenant: str) -> None:
        """See `gateway.decisions.keep_tenant_key`. Raises `unavailable` too."""
        try:
            await keep_tenant_key(self._log, self._master, tenant)
        except (LogUnavailable, *UNREACHABLE):
            raise refusals.log_error(LogUnavailable()) from None

    async def rehearse(self, model: CatalogModel) -> None:
        """See `EmbeddingService.rehearse`."""
        await rehearse(self._live, self.plane, model, self._settings.model_store or default_store())

    async def attest_model(
        self, model: str, actor: str, *, endpoint: str | None = None, new_references: bool = False
    ) -> AttestationsAnswer:
        """See `EmbeddingService.attest_model`."""
        return await attest_model(
            self.endpoints.attestations,
            self.plane.endpoints,
            self.models(),
            model,
            actor=actor,
            endpoint=endpoint,
            new_references=new_references,
        )

    async def validate_model(self, model: str, actor: str) -> Written:
        """See `EmbeddingService.validate_model`."""
        return await self._validator.validate(model, actor)

    async def readiness(self) -> tuple[bool, dict[str, object]]:
        """Whether requests can be served now, and the state of each part."""
        schema = await self._schema.state()
        lag = self._runner.lag()
        states = {name: seen.state for name, seen in self._runner.standings().items()}
        # One that has halted waits for a person, as it does in every other gateway: taking them all out of service would help nobody.
        behind = {
            name
            for name, (_, seconds) in lag.items()
            if seconds > MAX_LAG_SECONDS and states.get(name) is not State.HALTED
        }
        parts: dict[str, object] = {
            "log": "ok" if self._appender.healthy else "unreachable",
            "migrations": "unknown" if schema is None else schema.status.value,
            "projections": {
                name: {"state": states.get(name, "unknown"), "events": events, "seconds": round(seconds, 3)}
                for name, (events, seconds) in lag.items()
            },
            "draining": self.draining,
        }
        good = self._appender.healthy and schema is not None and schema.serves
        return good and not behind and not self.draining, parts
