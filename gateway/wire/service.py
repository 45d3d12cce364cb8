"""What sessions and HTTP routes ask of the request service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from domain.catalogue import Catalogue
from domain.events import Preferences
from domain.model_catalog import CatalogModel
from domain.ports.provider import Text
from domain.tenancy import Principal
from gateway.alerts.desk import AlertDesk
from gateway.collections.desk import CollectionDesk
from gateway.collections.searching import Searcher
from gateway.control import Control, Written
from gateway.credential_admin import CredentialAdmin
from gateway.endpoints.attest_model import AttestationsAnswer
from gateway.endpoints.deployments import Deployments
from gateway.endpoints.desk import EndpointDesk
from gateway.limits.logins import FailedLogins
from gateway.limits.standing import Standing
from gateway.maintenance.schedules import Schedules
from gateway.reads.reads import Reads
from gateway.replies import Reply
from gateway.service.selector import Selector
from gateway.settings import Settings
from gateway.webhooks.manage import WebhookAdmin
from gateway.wire.messages import AgentInfo, EmbeddingGenerate, Limits


class Ticket(Protocol):
    """A request in flight, in the hands of whoever sent it."""

    @property
    def rates(self) -> Sequence[Standing]:
        """How the rate limits that it drew on stand; nothing where there are none, or it has not come to them."""
        ...

    def cancel(self) -> None:
        """The sender gave it up: what was sent to a provider is billed, what was not is dropped. Idempotent."""
        ...

    def vanish(self) -> None:
        """The sender's connection is gone: nobody is to be told, and the request goes on. Idempotent."""
        ...


class EmbeddingService(Protocol):
    """Everything behind the wire. Synchronous methods are called on the loop and must not block."""

    limits: Limits
    reads: Reads
    """Reads of the log and its views; who may read what is for the caller to check (`gateway.reads.reach`)."""
    control: Control
    """The control plane, and the way to change it; who may is for the caller to check."""

    @property
    def selector(self) -> Selector:
        """How models are chosen for requests; who may ask is for the caller to check."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        ...

    alerts: AlertDesk
    """Alerts; whose, is for the caller to check."""
    webhooks: WebhookAdmin
    """Webhooks; whose, is for the caller to check."""
    endpoint_desk: EndpointDesk
    """Endpoints, their circuits and their health; whose, is for the caller to check."""
    credentials: CredentialAdmin
    """Credentials for providers; whose, is for the caller to check."""
    deployments: Deployments
    """Endpoints put to work; whose, is for the caller to check."""
    schedules: Schedules
    """What the installation does from time to time; who may ask is for the caller to check."""

    collections: CollectionDesk
    """Where vectors are kept; whose, is for the caller to check."""

    searches: Searcher
    """Finds what is kept in them."""

    failed_logins: FailedLogins
    """Told of every credential that was refused, and asked what to say."""

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the gateway is going down."""
        ...

    def authenticate(self, token: str) -> Principal:
        """Who holds this token. Raises `unauthorized`."""
        ...

    def valid(self, principal: Principal) -> bool:
        """Whether the principal's credential is still neither revoked nor expired."""
        ...

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
        """Start a request. Raises GatewayError for a refusal, and then never calls `reply`, which may be called before this returns."""
        ...

    async def register_agent(
        self,
        principal: Principal,
        agent: AgentInfo,
        message_preferences: Preferences,
        capabilities: list[str],
        metadata: dict[str, str] | None,
    ) -> int:
        """Store what an agent states; its version. Raises GatewayError."""
        ...

    async def plane_reaches(self, position: int, timeout: float) -> None:
        """Return once the control plane has folded everything up to `position`. Raises TimeoutError after `timeout` seconds."""
        ...

    def models(self) -> Catalogue:
        """The catalogue as of now."""
        ...

    async def rehearse(self, model: CatalogModel) -> None:
        """Assemble and load aside what this model would be. Raises `reload_failed`; what serves goes on as it is either way."""
        ...

    async def validate_model(self, model: str, actor: str) -> Written:
        """Embed probe texts by a model in testing and decide on what they show. Raises `GatewayError` where that cannot be done."""
        ...

    async def attest_model(
        self, model: str, actor: str, *, endpoint: str | None = None, new_references: bool = False
    ) -> AttestationsAnswer:
        """Hold the model's endpoints, or that one, against the references of their spaces: see `gateway.endpoints.attest_model`."""
        ...

    async def keep_tenant_key(self, tenant: str) -> None:
        """See to it that a tenant yet to be made has a key of its own. Raises `version_conflict` where it was shredded, `unavailable`."""
        ...

    async def readiness(self) -> tuple[bool, dict[str, object]]:
        """Whether requests can be served, and the state of each part."""
        ...
