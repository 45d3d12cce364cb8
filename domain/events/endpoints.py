"""Endpoints: what is deployed where, what state its circuit and its health are in, and whether its vectors are of the space they claim."""

from __future__ import annotations

import msgspec

from domain.events.base import ENDPOINT_STREAMS, TENANT_STREAMS, EventData


class EndpointSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place that serves models, as somebody deploys it. `models` maps catalogue ids to the provider's own ids ("" = the offering's).

    The key comes from the environment variable `api_key_env`, or is the `credential` of this name of the tenant that owns the
    endpoint; never from here. `options` are the provider's own (`region`, `project`, `api_version`, ...).
    """

    provider: str
    models: dict[str, str]
    base_url: str | None = None
    api_key_env: str | None = None
    credential: str | None = None
    max_inputs: int | None = None
    max_tokens_per_call: int | None = None
    max_concurrency: int = 8
    timeout_ms: int = 30_000
    weight: int = 1
    options: dict[str, str] = {}


class DeploymentChanged(EventData, frozen=True, gc=False, omit_defaults=True):
    """A step of putting an endpoint to work: `preparing`, `allocating`, `loading`, `ready`, `failed`, `draining`, `stopped`.

    `spec` goes with `preparing`; `stage` is the one that failed (`prepare`, `allocate`, `load`, `register`), `code` and `reason` say why.
    `model` is the one that was asked for. `owner` is the tenant that the endpoint serves alone; None: it serves everybody. `instance` is
    the gateway instance at work.
    """

    TYPE = "deployment.changed"
    STREAMS = ENDPOINT_STREAMS
    DECISION = True

    endpoint: str
    deployment: str
    model: str
    state: str
    at: int
    spec: EndpointSpec | None = None
    owner: str | None = None
    stage: str | None = None
    code: str | None = None
    reason: str | None = None
    instance: str | None = None
    actor: str | None = None


class BreakerChanged(EventData, frozen=True, gc=False, omit_defaults=True):
    """The circuit of an endpoint is `closed`, `open` or `half_open`. `until` (microseconds since the epoch) is when an open one lets trial
    calls through; `failures` led there; `reason` is `failures`, `trial_failed`, `trials_succeeded`, `elapsed`, or `reset` by `actor`.
    """

    TYPE = "breaker.state_changed"
    STREAMS = ENDPOINT_STREAMS
    DECISION = True

    endpoint: str
    state: str
    previous: str
    reason: str
    at: int
    failures: int = 0
    until: int | None = None
    instance: str | None = None
    actor: str | None = None


class EndpointAttested(EventData, frozen=True, gc=False, omit_defaults=True):
    """Probe texts of ours were embedded at an endpoint and held against the reference vectors of the space that it serves.

    `configuration` (hex) is a digest of what the endpoint was configured as: with another it is unattested. `cosine_min` is the lowest
    cosine of a probe with its reference, in millionths; None where they were not compared. `passed` false quarantines the endpoint for
    the space until it passes; `references` (hex) is the digest of the references. They are the installation's, or of the tenant `owner`
    for an endpoint of its own in a space that has no others; `epoch` is how often they had been renewed on purpose by then.
    """

    TYPE = "endpoint.attested"
    STREAMS = ENDPOINT_STREAMS
    DECISION = True

    endpoint: str
    model: str
    space: str
    passed: bool
    at: int
    configuration: str
    cosine_min: int | None = None
    references: str | None = None
    latency_ms: int | None = None
    problems: list[str] = []
    actor: str | None = None
    epoch: int = 0
    owner: str | None = None


class EndpointHealthChanged(EventData, frozen=True, gc=False, omit_defaults=True):
    """An endpoint is `healthy`, `degraded`, `unhealthy` or `unknown` in the eyes of a gateway instance. `reason` says what was seen."""

    TYPE = "endpoint.health_changed"
    STREAMS = ENDPOINT_STREAMS

    endpoint: str
    health: str
    previous: str
    reason: str
    at: int
    instance: str


class CredentialSet(EventData, frozen=True, gc=False, omit_defaults=True):
    """A tenant's own credential for a provider was stored, sealed with the tenant's key, beside the log. `revision` counts its secrets."""

    TYPE = "credential.set"
    STREAMS = TENANT_STREAMS
    DECISION = True

    credential: str
    provider: str
    revision: int
    actor: str | None = None


class CredentialRemoved(EventData, frozen=True, gc=False, omit_defaults=True):
    """The credential is gone; endpoints that use it answer nothing any more."""

    TYPE = "credential.removed"
    STREAMS = TENANT_STREAMS
    DECISION = True

    credential: str
    actor: str | None = None
