"""Deciding on deployments: what may be put to work where, by whom, and the steps on the way.

preparing -> allocating -> loading -> ready -> draining -> stopped; any step before `ready` may end in `failed`, or in `stopped` where it was
called off. A tenant's endpoint is named `tenant:name`, a name that no other can have.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import msgspec

from domain.catalogue import EMBEDDING
from domain.decision import Decision
from domain.endpoints import (
    ALLOCATING,
    DRAINING,
    ENDED,
    FAILED,
    LOADING,
    PREPARING,
    READY,
    STOPPED,
    UNFINISHED,
    Deployment,
    endpoint_stream,
)
from domain.errors import GatewayError
from domain.events import SYSTEM_TENANT, DeploymentChanged, EndpointSpec
from domain.model_catalog import CatalogModel
from domain.model_decisions import model_of
from domain.model_lifecycle import DRAFT, REMOVED
from domain.problems import Problems

if TYPE_CHECKING:
    from domain.plane import ControlPlane

MAX_DEPLOYED = 1_000
MAX_OF_TENANT = 20
"""Endpoints that are deployed at once, in all and of one tenant."""
MAX_CALLS_OF_TENANT = 64
"""Calls at once that a tenant may give an endpoint: `max_provider_calls` is for all tenants."""
MAX_REASON = 500

STAGES = {PREPARING: "prepare", ALLOCATING: "allocate", LOADING: "load"}
"""The state in which a stage is under way. What fails behind the last of them failed to `register`."""

_BEFORE: dict[str, frozenset[str]] = {
    ALLOCATING: frozenset({PREPARING}),
    LOADING: frozenset({ALLOCATING}),
    READY: frozenset({LOADING}),
    FAILED: UNFINISHED,
    DRAINING: frozenset({READY}),
    STOPPED: UNFINISHED | {DRAINING},
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PROVIDER = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OPTION = re.compile(r"[a-z][a-z0-9_]{0,63}")
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""What a tenant may set an option to: it can be part of a host's name, and never leads to another."""
_PROVIDER_MODEL = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._:/+-]{0,255}")
_AZURE = re.compile(r"https://[a-z0-9][a-z0-9-]{0,62}\.(openai|cognitiveservices|services\.ai)\.azure\.com/?")

_LISTED = "`emberlog models deployments` and GET /api/v1/deployments list them; an endpoint of the settings is taken out of these"

TENANT_OPTIONS: Mapping[str, frozenset[str]] = {
    "azure": frozenset({"api_version", "encoding_format"}),
    "bedrock": frozenset({"region"}),
    "cohere": frozenset({"encoding_format"}),
    "jina": frozenset({"encoding_format"}),
    "mistral": frozenset({"encoding_format"}),
    "openai": frozenset({"organization", "project", "encoding_format"}),
    "vertex": frozenset({"project", "region"}),
    "voyage": frozenset({"encoding_format"}),
}
"""Options of a provider's that a tenant may set; another provider's has none. A `profile`, say, would be the operator's."""


def endpoint_name(name: str, owner: str | None) -> str:
    """The name of an endpoint that is called `name` by its owner. A tenant may give the whole name, too."""
    return name if owner is None or name.startswith(f"{owner}:") else f"{owner}:{name}"


def find_deployment(plane: ControlPlane, key: str, tenant: str | None) -> Deployment:
    """A deployment by its id or its endpoint's name, of any owner (None) or of a tenant. Raises `not_found`, also for those of others."""
    deployments = plane.endpoints.deployments
    named = (deployments.get(endpoint_name(key, tenant)), deployments.get(key))
    for found in (*named, *(d for d in deployments.values() if d.id == key)):
        if found is not None and tenant in (None, found.owner):
            return found
    raise GatewayError("not_found", f"there is no deployment {key[:128]!r}: {_LISTED}", details={"field": "deployment"})


def decide_deploy(
    plane: ControlPlane,
    name: str,
    deployment: str,
    model: str,
    spec: EndpointSpec,
    *,
    owner: str | None,
    operator: bool,
    configured: Collection[str],
    instance: str,
    at: int,
    actor: str,
) -> list[Decision]:
    """Begin to put an endpoint to work; nothing where the same one is at work, or on its way.

    `spec.models` has the model and others that are served there, too; `configured` are the names that the settings take; `at` is in
    microseconds since the epoch. Raises `model_not_found`, `type_unsupported`, `invalid_config`, `forbidden`, `resource_constraint`.
    """
    wanted = model_of(plane, model)
    endpoint = endpoint_name(name, owner)
    problems = Problems()
    if not _NAME.fullmatch(endpoint.removeprefix(f"{owner}:") if owner is not None else endpoint):
        problems.add("name", "expected 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', beginning with a letter or digit")
    _check_spec(problems, spec)
    for served in spec.models:
        _check_model(plane, problems, model_of(plane, served), spec.provider)
    _check_credential(plane, problems, spec, owner)
    if not operator:
        _check_tenants(spec)
    problems.check(f"endpoint {name[:64]!r}")
    # By an alias it would serve nothing: what serves a model is looked for by the id.
    spec = msgspec.structs.replace(spec, models={model_of(plane, n).id: theirs for n, theirs in spec.models.items()})
    known = plane.endpoints.deployments.get(endpoint)
    if known is not None and known.state not in ENDED:
        if (known.spec, known.owner, known.state == DRAINING) == (spec, owner, False):
            return []
        raise _taken(
            endpoint, f"is {known.state} with other settings: undeploy it first, or take another name", known.state
        )
    if endpoint in configured:
        raise _taken(endpoint, "is one of the settings' endpoints: take another name")
    _check_room(plane, owner)
    data = DeploymentChanged(
        endpoint=endpoint,
        deployment=deployment,
        model=wanted.id,
        state=PREPARING,
        at=at,
        spec=spec,
        owner=owner,
        instance=instance,
        actor=actor,
    )
    return [Decision(owner or SYSTEM_TENANT, endpoint_stream(endpoint), data)]


def may_step(plane: ControlPlane, deployment: Deployment, state: str) -> bool:
    """Whether the deployment can step on to this state, or is there already: not where others ended or replaced it."""
    now = plane.endpoints.deployments.get(deployment.endpoint)
    return now is not None and now.id == deployment.id and (now.state == state or now.state in _BEFORE[state])


def decide_step(
    plane: ControlPlane,
    deployment: Deployment,
    state: str,
    *,
    at: int,
    actor: str,
    stage: str | None = None,
    code: str | None = None,
    reason: str | None = None,
    instance: str | None = None,
) -> list[Decision]:
    """Step on with a deployment; nothing where it is there already. Raises `version_conflict` where it has gone another way meanwhile,
    and `resource_constraint` where it is to serve what the catalogue has not any more.
    """
    now = plane.endpoints.deployments.get(deployment.endpoint)
    if now is None or not may_step(plane, deployment, state):
        became = "was replaced" if now is None or now.id != deployment.id else f"is {now.state} by now"
        raise GatewayError(
            "version_conflict",
            f"the deployment of {deployment.endpoint!r} {became}: look at it and decide again",
            details={"deployment": deployment.id},
        )
    if now.state == state:
        return []
    if state == READY:
        _check_still_there(plane, now)
    data = DeploymentChanged(
        endpoint=now.endpoint,
        deployment=now.id,
        model=now.model,
        state=state,
        at=at,
        owner=now.owner,
        stage=stage,
        code=code,
        reason=None if reason is None else reason[:MAX_REASON],
        instance=instance,
        actor=actor,
    )
    return [Decision(now.owner or SYSTEM_TENANT, endpoint_stream(now.endpoint), data)]


def decide_undeploy(
    plane: ControlPlane, deployment: Deployment, *, instance: str, at: int, actor: str
) -> list[Decision]:
    """Take an endpoint out of service: one that serves drains first. Nothing where that is under way or done."""
    now = plane.endpoints.deployments.get(deployment.endpoint)
    if now is None or now.id != deployment.id or now.state in ENDED or now.state == DRAINING:
        return []
    state = DRAINING if now.state == READY else STOPPED
    return decide_step(plane, now, state, at=at, actor=actor, instance=instance)


def check_share(plane: ControlPlane, deployment: Deployment, configured: int, most: int) -> None:
    """Raise `resource_constraint` unless there is room for the calls of a deployment that has made its claim, and for one more of its owner's.

    `configured` are the calls of the endpoints of the settings, `most` those that there may be at once. A claim counts those before it in
    the log: of two that are made at once the later one sees the earlier, in whichever process, so that both never take the last.
    """
    now = plane.endpoints.deployments[deployment.endpoint]
    assert now.claim is not None
    before = [d for d in plane.endpoints.deployments.values() if d.claim is not None and d.claim < now.claim]
    _check_number(before, now.owner)
    taken = configured + sum(d.spec.max_concurrency for d in before)
    if taken + now.spec.max_concurrency > most:
        if now.owner is not None:  # how much others have is none of its business
            raise GatewayError(
                "resource_constraint",
                f"{now.spec.max_concurrency} calls at once are more than this installation has left: lower max_concurrency, or ask its operators",
                details={"field": "max_concurrency"},
            )
        raise GatewayError(
            "resource_constraint",
            f"{now.spec.max_concurrency} calls at once are too many: of {most} (max_provider_calls), {taken} are given to other endpoints; "
            "lower max_concurrency, undeploy another, or raise the bound",
            details={"field": "max_concurrency", "most": most, "left": max(0, most - taken)},
        )


def _taken(endpoint: str, why: str, state: str | None = None) -> GatewayError:
    return GatewayError(
        "resource_constraint", f"the endpoint {endpoint!r} {why}", details={"field": "name", "state": state}
    )


def _check_room(plane: ControlPlane, owner: str | None) -> None:
    _check_number([d for d in plane.endpoints.deployments.values() if d.state not in ENDED], owner)


def _check_number(others: list[Deployment], owner: str | None) -> None:
    """Raise `resource_constraint` where there can be no further one of this owner's besides these."""
    if owner is not None and sum(d.owner == owner for d in others) >= MAX_OF_TENANT:
        message = f"the tenant has {MAX_OF_TENANT} endpoints, the most that it can have: undeploy one"
    elif len(others) >= MAX_DEPLOYED:
        message = f"there are {MAX_DEPLOYED} endpoints, the most there can be: undeploy one"
    else:
        return
    raise GatewayError("resource_constraint", message)


def _check_model(plane: ControlPlane, problems: Problems, model: CatalogModel, provider: str) -> None:
    if model.type != EMBEDDING:
        raise GatewayError(
            "type_unsupported",
            f"model {model.id!r} is of the type {model.type!r}: only {EMBEDDING!r} models are dispatched, and deployed",
            details={"field": "type"},
        )
    if model.state in (DRAFT, REMOVED):
        raise GatewayError(
            "resource_constraint",
            f"model {model.id!r} is {model.state}: put it to testing first"
            if model.state == DRAFT
            else f"model {model.id!r} was removed",
            details={"field": "model", "state": model.state},
        )
    offered = sorted(o.provider for o in model.offerings)
    if provider not in offered:
        problems.add(
            "provider", f"model {model.id!r} has no offering at {provider[:63]!r}; it has at {', '.join(offered)}"
        )


def _check_credential(plane: ControlPlane, problems: Problems, spec: EndpointSpec, owner: str | None) -> None:
    if spec.api_key_env is not None and owner is not None:
        problems.add("api_key_env", "is the installation's: a tenant's endpoint takes a `credential` of the tenant's")
    if spec.credential is None:
        return
    if spec.api_key_env is not None:
        problems.add("api_key_env", "goes without `credential`: expected one of them")
    known = plane.endpoints.credentials.get((owner or SYSTEM_TENANT, spec.credential))
    if known is None:
        problems.add("credential", f"there is none of the name {spec.credential[:63]!r}: set it first")
    elif known.provider != spec.provider:
        problems.add("credential", f"{spec.credential!r} is for the provider {known.provider!r}")


def _check_spec(problems: Problems, spec: EndpointSpec) -> None:
    if not _PROVIDER.fullmatch(spec.provider):
        problems.add("provider", "expected the name of a provider, such as 'openai'")
    for model, theirs in spec.models.items():
        if theirs and not _PROVIDER_MODEL.fullmatch(theirs):
            problems.add(
                "models", f"of {model[:64]!r}: expected the provider's id of it, or nothing for that of the offering"
            )
    if spec.base_url is not None and not re.fullmatch(r"https?://[^\s@?#]{1,500}", spec.base_url):
        problems.add("base_url", "expected http:// or https://, a host and a path, without user, query or fragment")
    if spec.api_key_env is not None and not _VARIABLE.fullmatch(spec.api_key_env):
        problems.add("api_key_env", "expected the name of an environment variable, never a key itself")
    for field, value, most in (
        ("max_inputs", spec.max_inputs, 100_000),
        ("max_tokens_per_call", spec.max_tokens_per_call, 100_000_000),
        ("max_concurrency", spec.max_concurrency, 1_024),
        ("timeout_ms", spec.timeout_ms, 600_000),
    ):
        if value is not None and not 1 <= value <= most:
            problems.add(field, f"is out of range: expected 1 to {most}")
    if not 0 <= spec.weight <= 1_000_000:
        problems.add("weight", "is out of range: expected 0 to 1000000")
    if len(spec.models) > 32 or len(spec.options) > 32:
        problems.add("models" if len(spec.models) > 32 else "options", "are too many: expected at most 32")
    for option, chosen in list(spec.options.items())[:32]:
        if not _OPTION.fullmatch(option) or len(chosen) > 512 or not chosen.isprintable():
            problems.add(
                "options", f"{option[:64]!r}: expected a name of the provider's, and a text of up to 512 characters"
            )


def _check_tenants(spec: EndpointSpec) -> None:
    """Raise `forbidden` for what only operators may say: it would send the operator's keys, or this machine, somewhere else."""
    refused = None
    if spec.provider == "local":
        refused = "provider", "the local model runs on this machine"
    elif spec.api_key_env is not None:
        refused = "api_key_env", "the environment holds the installation's keys: give a `credential` of your own"
    elif spec.credential is None:
        refused = "credential", "an endpoint of yours needs a credential of yours: set one, and name it here"
    elif spec.base_url is not None and not (spec.provider == "azure" and _AZURE.fullmatch(spec.base_url)):
        refused = "base_url", "another address is for operators to give, but for that of a resource at Azure"
    elif spec.max_concurrency > MAX_CALLS_OF_TENANT:
        refused = "max_concurrency", f"more than {MAX_CALLS_OF_TENANT} calls at once are for operators to give"
    else:
        allowed = TENANT_OPTIONS.get(spec.provider, frozenset())
        for option, value in spec.options.items():
            if option not in allowed or (not _VALUE.fullmatch(value)):
                refused = "options", f"{option[:64]!r} is for operators to set, or to set to this"
    if refused is not None:
        raise GatewayError("forbidden", f"`{refused[0]}`: {refused[1]}", details={"field": refused[0]})


def _check_still_there(plane: ControlPlane, deployment: Deployment) -> None:
    spec = deployment.spec
    known = plane.endpoints.credentials.get((deployment.owner or SYSTEM_TENANT, spec.credential or ""))
    if spec.credential is not None and (known is None or known.provider != spec.provider):
        raise GatewayError(
            "resource_constraint",
            f"credential {spec.credential!r} was removed meanwhile, or set for another provider",
            details={"field": "credential"},
        )
    for name in spec.models:
        model = plane.models.models.get(name)
        if (
            model is None
            or model.state in (DRAFT, REMOVED)
            or all(o.provider != spec.provider for o in model.offerings)
        ):
            raise GatewayError(
                "resource_constraint",
                f"model {name!r} was taken from the catalogue, or from that provider, meanwhile",
                details={"field": "model"},
            )
