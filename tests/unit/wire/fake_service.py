"""A request service in memory for tests of the wire: answers at the end of the loop's turn, or when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.catalogue import Catalogue, Endpoint, Model, Offering, Price
from domain.errors import GatewayError, invalid_request
from domain.events import Preferences
from domain.model_catalog import CatalogModel
from domain.plane import ControlPlane
from domain.ports.provider import Text
from domain.tenancy import Principal
from gateway.alerts.desk import AlertDesk
from gateway.collections.desk import CollectionDesk
from gateway.collections.searching import Searcher
from gateway.control import Control, Written
from gateway.credential_admin import CredentialAdmin
from gateway.endpoints.attest_model import AttestationDocument, AttestationsAnswer
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
from gateway.wire.messages import AgentInfo, Cost, EmbeddingGenerate, EmbeddingResult, Limits, Timings, Usage

KEY = "em_agent"
OTHER_KEY = "em_other"
INSTALLATION_KEY = "em_installation"
BILLING_KEY = "em_billing"
OPERATOR_KEY = "em_operator"
ADMIN_KEY = "em_admin"
BOUND_KEY = "em_bound"


def rows_of(texts: Sequence[Text], dimensions: int) -> NDArray[np.float32]:
    """A vector per text that depends on the text alone: shape (texts, dimensions)."""
    seeds = [sum(t.encode()) if isinstance(t, str) else sum(t) for t in texts]
    return np.stack([np.random.default_rng(s).standard_normal(dimensions).astype(np.float32) for s in seeds])


def result_of(message: EmbeddingGenerate, count: int, dimensions: int) -> EmbeddingResult:
    return EmbeddingResult(
        id=message.id,
        event="0190",
        model=message.model or "tiny",
        provider="fake",
        endpoint="fake-main",
        space=f"tiny@1/{dimensions}/unit",
        dimensions=dimensions,
        encoding=message.encoding,
        count=count,
        usage=Usage(tokens=3 * count, billed_tokens=3 * count, cached_inputs=0, truncated=[], estimated=False),
        cost=Cost(nano_usd=60, price="list-1"),
        failover=None,
        timings=Timings(0.1, 1.0, 1.5),
        replayed=False,
    )


class FakeTicket:
    def __init__(
        self, service: FakeService, agent: str, message: EmbeddingGenerate, texts: Sequence[Text], reply: Reply
    ) -> None:
        self.service = service
        self.agent = agent
        self.rates = service.rates
        self.message = message
        self.texts = texts
        self.reply = reply
        self.cancelled = asyncio.Event()
        self.vanished = asyncio.Event()

    def answer(self) -> None:
        if self.cancelled.is_set():
            return
        if self.service.refusal is not None:
            self.reply.error(self.service.refusal)
            return
        dimensions = self.message.dimensions or self.service.dimensions
        rows = rows_of(self.texts, dimensions)
        result = result_of(self.message, len(rows), dimensions)
        result.notices = self.service.notices or msgspec.UNSET
        if self.message.stream:
            half = len(rows) // 2
            for start, part in ((half, rows[half:]), (0, rows[:half])):
                if len(part):
                    self.reply.chunk(start, part)
            self.reply.result(result, None)
        else:
            self.reply.result(result, rows)

    def cancel(self) -> None:
        if not self.cancelled.is_set():
            self.cancelled.set()
            self.reply.error(GatewayError("cancelled", "the request was cancelled"))

    def vanish(self) -> None:
        self.vanished.set()


class FakeService:
    """`hold`: requests wait in `tickets` until a test answers them. `fail`: what the next requests raise; `refusal`: what they are
    answered with.

    `reads`, `alerts` and `webhooks` are there only where a test has given it a database.
    """

    reads: Reads
    control: Control
    alerts: AlertDesk
    webhooks: WebhookAdmin
    credentials: CredentialAdmin
    deployments: Deployments
    schedules: Schedules
    endpoint_desk: EndpointDesk
    collections: CollectionDesk
    searches: Searcher

    def __init__(self) -> None:
        self.limits = Limits()
        self.failed_logins = FailedLogins(100_000)
        self.rates: tuple[Standing, ...] = ()
        self.draining = False
        self.dimensions = 4
        self.hold = False
        self.notices: list[str] = []
        self.fail: Exception | None = None
        self.attested: list[tuple[str, str, str | None, bool]] = []
        self.reload_fails: GatewayError | None = None
        self.refusal: GatewayError | None = None
        self.tickets: list[FakeTicket] = []
        self.arrived = asyncio.Event()
        self.registered: list[tuple[AgentInfo, Preferences]] = []
        self.registration_gate = asyncio.Event()
        self.registration_gate.set()
        self.ready = True
        self.tenant_keys: list[str] = []
        self.keys = {
            KEY: Principal("k1", "acme", frozenset({"agent"})),
            OTHER_KEY: Principal("k2", "other", frozenset({"agent"})),
            INSTALLATION_KEY: Principal("k3", None, frozenset({"agent"})),
            BILLING_KEY: Principal("k4", "acme", frozenset({"billing"})),
            OPERATOR_KEY: Principal("k5", None, frozenset({"operator"})),
            ADMIN_KEY: Principal("k6", "acme", frozenset({"admin"})),
            BOUND_KEY: Principal("k7", "acme", frozenset({"agent"}), agent="scout"),
        }
        self.revoked: set[str] = set()
        self._selector: Selector | None = None
        self._models: Catalogue | None = None
        self.settings = Settings(_env_file=None)

    def authenticate(self, token: str) -> Principal:
        found = self.keys.get(token)
        if found is None or found.key in self.revoked:
            raise GatewayError("unauthorized", "the API key is unknown, revoked or expired")
        return found

    def valid(self, principal: Principal) -> bool:
        return principal.key not in self.revoked

    def generate(
        self,
        principal: Principal,
        agent: str,
        message: EmbeddingGenerate,
        texts: Sequence[Text],
        reply: Reply,
        *,
        trace: str | None = None,
    ) -> FakeTicket:
        if self.fail is not None:
            raise self.fail
        if not texts:
            raise invalid_request("`input` is empty", "input")
        if "" in texts:
            raise invalid_request("an input is empty", "input", list(texts).index(""))
        ticket = FakeTicket(self, agent, message, texts, reply)
        self.tickets.append(ticket)
        self.arrived.set()
        if not self.hold:
            asyncio.get_running_loop().call_soon(ticket.answer)
        return ticket

    async def register_agent(
        self,
        principal: Principal,
        agent: AgentInfo,
        message_preferences: Preferences,
        capabilities: list[str],
        metadata: dict[str, str] | None,
    ) -> int:
        await self.registration_gate.wait()
        if self.fail is not None:
            raise self.fail
        self.registered.append((agent, message_preferences))
        return len(self.registered)

    async def plane_reaches(self, position: int, timeout: float) -> None:
        if self.control.plane.position < position:
            raise TimeoutError

    def models(self) -> Catalogue:
        if self._models is None:
            self._models = self._catalogue()
        return self._models

    def _catalogue(self) -> Catalogue:
        model = Model("tiny", "1", 4, 256, None, True, 1, aliases=("small",), owned_by="fake", created=1)
        offering = Offering("tiny", "fake", "tiny-1", Price("list-1", 20), 100, 1000)
        return Catalogue([model], [offering], [Endpoint("fake-main", "fake", {"tiny": "tiny-1"})])

    @property
    def selector(self) -> Selector:
        if self._selector is None:
            plane = self.control.plane if hasattr(self, "control") else ControlPlane()
            self._selector = Selector(plane, self.models)
        return self._selector

    async def keep_tenant_key(self, tenant: str) -> None:
        self.tenant_keys.append(tenant)

    async def rehearse(self, model: CatalogModel) -> None:
        if self.reload_fails is not None:
            raise self.reload_fails

    async def validate_model(self, model: str, actor: str) -> Written:
        raise GatewayError("no_model_available", "nothing is validated here")

    async def attest_model(
        self, model: str, actor: str, *, endpoint: str | None = None, new_references: bool = False
    ) -> AttestationsAnswer:
        self.attested.append((model, actor, endpoint, new_references))
        return AttestationsAnswer([AttestationDocument("main", model, f"{model}@1/8/unit", True)])

    async def readiness(self) -> tuple[bool, dict[str, object]]:
        return self.ready, {"log": "ok"}
