"""Deployments as they are shown, by the management API and the commands."""

from __future__ import annotations

import msgspec

from domain.endpoints import Deployment
from domain.events import EndpointSpec
from gateway.event_document import time_text


class DeploymentDocument(msgspec.Struct, frozen=True):
    """The latest deployment of an endpoint. `tenant` is whom the endpoint serves alone; null: everybody. Times are ISO 8601, UTC.

    `state`: `preparing`, `allocating`, `loading`, `ready`, `failed`, `draining` or `stopped`; of a failed one `stage` is the one that failed
    (`prepare`, `allocate`, `load`, `register`), and `code` and `reason` say why. `status_url` is where it is looked at again.
    """

    id: str
    endpoint: str
    model: str
    tenant: str | None
    state: str
    stage: str | None
    code: str | None
    reason: str | None
    started_at: str
    changed_at: str
    spec: EndpointSpec
    status_url: str


def deployment_document(deployment: Deployment) -> DeploymentDocument:
    """The deployment as it is shown."""
    return DeploymentDocument(
        id=deployment.id,
        endpoint=deployment.endpoint,
        model=deployment.model,
        tenant=deployment.owner,
        state=deployment.state,
        stage=deployment.stage,
        code=deployment.code,
        reason=deployment.reason,
        started_at=time_text(deployment.started_at),
        changed_at=time_text(deployment.changed_at),
        spec=deployment.spec,
        status_url=f"/api/v1/deployments/{deployment.id}",
    )
