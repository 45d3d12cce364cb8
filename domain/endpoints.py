"""Endpoints as the log tells of them: what is deployed, how circuits stand, which endpoint serves vectors of which space, credentials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from domain.catalogue import Endpoint
from domain.events import (
    SYSTEM_TENANT,
    BreakerChanged,
    CredentialRemoved,
    CredentialSet,
    DeploymentChanged,
    EndpointAttested,
    EndpointSpec,
    EventData,
    ModelRegistered,
    ModelUpdated,
    OfferingSpec,
    TenantShredded,
)

PREPARING, ALLOCATING, LOADING, READY, FAILED, DRAINING, STOPPED = (
    "preparing",
    "allocating",
    "loading",
    "ready",
    "failed",
    "draining",
    "stopped",
)

UNFINISHED = frozenset({PREPARING, ALLOCATING, LOADING})
"""The states in which a gateway is at work on a deployment, to put it to work."""
ENDED = frozenset({FAILED, STOPPED})
"""The states in which a deployment holds nothing, so that its endpoint can be deployed anew."""
KEEP_ENDED = 100
"""Deployments that have ended of which anything is known, of each owner: the latest. Names are free, and cost memory in every process."""


def endpoint_stream(endpoint: str) -> str:
    """The stream of an endpoint's events."""
    return f"endpoint/{endpoint}"


class Deployment(msgspec.Struct, frozen=True):
    """The latest deployment of an endpoint: how far it is, and what it is of. Times are microseconds since the epoch.

    `claim` says that it holds its share of what there is, and numbers such claims in the order of the log; None: it holds nothing.
    """

    endpoint: str
    id: str
    model: str
    state: str
    started_at: int
    changed_at: int
    spec: EndpointSpec
    owner: str | None = None
    stage: str | None = None
    code: str | None = None
    reason: str | None = None
    instance: str | None = None
    claim: int | None = None

    def served(self) -> Endpoint:
        """The endpoint as requests see it."""
        spec = self.spec
        return Endpoint(
            name=self.endpoint,
            provider=spec.provider,
            models=spec.models,
            base_url=spec.base_url,
            api_key_env=spec.api_key_env,
            max_inputs=spec.max_inputs,
            max_tokens_per_call=spec.max_tokens_per_call,
            max_concurrency=spec.max_concurrency,
            timeout=spec.timeout_ms / 1000,
            weight=spec.weight,
            options=spec.options,
            tenant=self.owner,
            credential=spec.credential,
        )


class Endpoints:
    """Folded from events. `version` grows when the pool of deployed endpoints that serve changes: everybody's menu is made anew then. Nothing else bears on it.

    `deployments` has the latest of each endpoint, `ready` the endpoints that serve by it, `breakers` the last word of any process
    on a circuit, `attested` the last attestation of (endpoint, space), `epochs` how often the references of (space, owner) have been
    renewed, `credentials` those of (tenant, name).
    """

    def __init__(self) -> None:
        self.version = 0
        self.deployments: dict[str, Deployment] = {}
        self.ready: dict[str, Endpoint] = {}
        self.breakers: dict[str, BreakerChanged] = {}
        self.attested: dict[tuple[str, str], EndpointAttested] = {}
        self.epochs: dict[tuple[str, str | None], int] = {}
        self.credentials: dict[tuple[str, str], CredentialSet] = {}
        self._claims = 0
        self._ended: dict[str | None, dict[str, None]] = {}
        """The endpoints whose deployment has ended, by owner, the earliest first."""
        self._shredded: set[str] = set()
        self._offered: dict[str, dict[str, OfferingSpec]] = {}
        self._distrusted: Counter[tuple[str, str | None]] = Counter()
        """How often vectors of (model, owner of the endpoint that gave them) turned out not to be of their space."""

    def apply(self, tenant: str, data: EventData) -> None:
        """Fold one event."""
        match data:
            case DeploymentChanged() | CredentialSet() if tenant in self._shredded:
                pass  # decided on before the tenant was shredded, written after
            case DeploymentChanged():
                self._deployed(data)
            case BreakerChanged():
                self.breakers[data.endpoint] = data
            case EndpointAttested():
                self._distrust(None if tenant == SYSTEM_TENANT else tenant, data)
                self.attested[data.endpoint, data.space] = data
                if data.passed:
                    of = data.space, data.owner
                    self.epochs[of] = max(data.epoch, self.epochs.get(of, 0))
            case CredentialSet():
                self.credentials[tenant, data.credential] = data
            case CredentialRemoved():
                self.credentials.pop((tenant, data.credential), None)
            case ModelRegistered() | ModelUpdated():
                self._offered_anew(data.model, data.offerings)
            case TenantShredded():
                self._forget(data.tenant)
            case _:
                pass

    def cached_as(self, space: str, tenant: str) -> str:
        """What a tenant's vectors of this space are cached as: not what may hold some of an endpoint that has drifted since."""
        if not self._distrusted:
            return space
        model = space.rpartition("@")[0]
        shared, own = self._distrusted[model, None], self._distrusted[model, tenant]
        return f"{space}#{shared}.{own}" if shared or own else space

    def _distrust(self, tenant: str | None, data: EndpointAttested) -> None:
        before = self.attested.get((data.endpoint, data.space))
        served = before is not None and before.passed and before.configuration == data.configuration
        renewed = data.passed and data.epoch > self.epochs.get((data.space, data.owner), 0)
        if renewed or (served and not data.passed):
            self._distrusted[data.model, data.owner if renewed else tenant] += 1

    def _deployed(self, data: DeploymentChanged) -> None:
        known = self.deployments.get(data.endpoint)
        same = known if known is not None and known.id == data.deployment else None
        if same is None:
            self._forget_findings(data.endpoint)  # of another place that had this name, or of what ran there
        spec = data.spec or (same.spec if same is not None else None)
        if spec is None:
            return  # of a deployment whose beginning is not in this log
        claim = same.claim if same is not None and data.state not in ENDED else None
        if claim is None and data.state == ALLOCATING:
            self._claims += 1
            claim = self._claims
        found = Deployment(
            endpoint=data.endpoint,
            id=data.deployment,
            model=data.model,
            state=data.state,
            started_at=same.started_at if same is not None else data.at,
            changed_at=data.at,
            spec=spec,
            owner=data.owner if same is None else same.owner,
            stage=data.stage,
            code=data.code,
            reason=data.reason,
            instance=data.instance or (same.instance if same is not None else None),
            claim=claim,
        )
        self.deployments[data.endpoint] = found
        if found.state == READY:
            self.ready[data.endpoint] = found.served()
            self.version += 1
        elif self.ready.pop(data.endpoint, None) is not None:
            self.version += 1
        self._count_ended(found)

    def _count_ended(self, deployment: Deployment) -> None:
        ended = self._ended.setdefault(deployment.owner, {})
        ended.pop(deployment.endpoint, None)
        if deployment.state not in ENDED:
            return
        ended[deployment.endpoint] = None
        if len(ended) > KEEP_ENDED:
            name = next(iter(ended))
            del ended[name], self.deployments[name]
            self._forget_findings(name)

    def _forget_findings(self, endpoint: str) -> None:
        self.breakers.pop(endpoint, None)
        for key in [key for key in self.attested if key[0] == endpoint]:
            del self.attested[key]

    def _offered_anew(self, model: str, offerings: Iterable[OfferingSpec]) -> None:
        """Where another model of a provider's stands behind an offering, or is asked otherwise, what endpoints gave before proves nothing."""
        known = self._offered.setdefault(model, {})
        changed = any(_asked(known.get(o.provider, o)) != _asked(o) for o in offerings)
        known.update((o.provider, o) for o in offerings)
        if changed:
            for key in [key for key, told in self.attested.items() if told.model == model]:
                del self.attested[key]

    def _forget(self, tenant: str) -> None:
        self._shredded.add(tenant)
        for key in [key for key in self.credentials if key[0] == tenant]:
            del self.credentials[key]
        for name, deployment in self.deployments.items():
            if deployment.owner == tenant:
                self.deployments[name] = msgspec.structs.replace(deployment, state=STOPPED, claim=None)
                self._forget_findings(name)
        for name in [name for name, endpoint in self.ready.items() if endpoint.tenant == tenant]:
            del self.ready[name]
            self.version += 1


def _asked(offering: OfferingSpec) -> tuple[str, bool, dict[str, str]]:
    """What of an offering bears on the vectors that endpoints give by it."""
    return offering.provider_model, offering.sends_dimensions, offering.config


def serving(configured: Iterable[Endpoint], endpoints: Endpoints) -> tuple[Endpoint, ...]:
    """Every endpoint that serves: those of the settings, and the deployed ones, which never take the name of a configured one."""
    found = {endpoint.name: endpoint for endpoint in configured}
    for name, endpoint in endpoints.ready.items():
        found.setdefault(name, endpoint)
    return tuple(found.values())
