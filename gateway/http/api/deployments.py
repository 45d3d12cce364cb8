"""`/api/v1/models/{model}/deploy` and `/api/v1/deployments`: endpoints put to work, and taken out again."""

from __future__ import annotations

import msgspec

from domain.deployment_decisions import find_deployment
from domain.endpoints import FAILED, READY, STOPPED, Deployment
from domain.errors import GatewayError
from domain.events import EndpointSpec
from domain.model_decisions import model_of
from gateway.catalogue.documents import visible
from gateway.endpoints.deployment_document import DeploymentDocument, deployment_document
from gateway.http.api.alerts import whose
from gateway.http.api.models import found
from gateway.http.api.route import Answer, ApiRoute, Call, Pagination, Parameter

MAX_WAIT = 120
_TENANT = Parameter(
    "tenant",
    "Whom the endpoint is to serve alone; for operators, whose endpoints serve everybody without it. Others deploy for their tenant.",
)
_OF = Parameter("tenant", "Whose; for operators, who see everybody's without it. Others see their own tenant's.")
_WAIT = Parameter(
    "wait",
    "Seconds to wait for the end of it; without it the answer comes at once.",
    {"type": "integer", "minimum": 0, "maximum": MAX_WAIT, "default": 0},
)


class DeploymentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An endpoint to put to work for the model of the path. `provider_model` is the provider's id of it ("" = the offering's), `models`
    are others that it serves. The key is the `credential` of this name, or stands in the environment variable `api_key_env`, which is for
    operators to say, as is `base_url`. `options` are the provider's own (docs/endpoints.md).
    """

    name: str
    provider: str
    provider_model: str = ""
    models: dict[str, str] = {}
    credential: str | None = None
    api_key_env: str | None = None
    base_url: str | None = None
    max_inputs: int | None = None
    max_tokens_per_call: int | None = None
    max_concurrency: int = 8
    timeout_ms: int = 30_000
    weight: int = 1
    options: dict[str, str] = {}

    def spec(self, model: str) -> EndpointSpec:
        """As events have it."""
        fields = msgspec.structs.asdict(self)
        fields["models"] = {**self.models, model: self.provider_model}
        return EndpointSpec(**{field: fields[field] for field in EndpointSpec.__struct_fields__})


class DeploymentList(msgspec.Struct, frozen=True):
    """A page of deployments, the latest of each endpoint, by endpoint."""

    deployments: list[DeploymentDocument]
    pagination: Pagination


async def deploy(call: Call) -> Answer:
    """Put an endpoint to work."""
    model, body = found(call), call.body
    for other in body.models:
        if not visible(call.plane, model_of(call.plane, other), call.principal):
            raise GatewayError("model_not_found", f"there is no model {other[:128]!r}", details={"field": "models"})
    deployment, new = await call.service.deployments.deploy(
        call.decide,
        body.name,
        model.id,
        body.spec(model.id),
        owner=whose(call),
        operator=call.principal.tenant is None,
        actor=call.actor,
    )
    now = await _settled(call, deployment)
    if now.state == FAILED:
        raise _failure(now)
    status = 200 if not new else 201 if now.state == READY else 202
    document = deployment_document(now)
    return Answer(document, status, {"location": document.status_url})


async def of_model(call: Call) -> DeploymentList:
    """Those of a model."""
    model = found(call)
    return _listed(call, [d for d in _visible(call) if model.id in d.spec.models])


async def index(call: Call) -> DeploymentList:
    """All of them."""
    return _listed(call, _visible(call))


async def show(call: Call) -> DeploymentDocument:
    """One."""
    return deployment_document(find_deployment(call.plane, call.path["deployment"], whose(call)))


async def undeploy(call: Call) -> Answer:
    """Take an endpoint out of service."""
    deployment = find_deployment(call.plane, call.path["deployment"], whose(call))
    now = await call.service.deployments.undeploy(call.decide, deployment, actor=call.actor)
    now = await _settled(call, now)
    return Answer(deployment_document(now), 200 if now.state in (STOPPED, FAILED) else 202)


async def _settled(call: Call, deployment: Deployment) -> Deployment:
    wait = call.query.integer("wait", 0, 0, MAX_WAIT)
    return await call.service.deployments.settled(deployment, wait) if wait else deployment


def _visible(call: Call) -> list[Deployment]:
    tenant = whose(call)
    deployments = call.plane.endpoints.deployments
    return [deployments[name] for name in sorted(deployments) if tenant in (None, deployments[name].owner)]


def _listed(call: Call, deployments: list[Deployment]) -> DeploymentList:
    page, pagination = call.page(deployments)
    return DeploymentList([deployment_document(d) for d in page], pagination)


def _failure(deployment: Deployment) -> GatewayError:
    return GatewayError(
        deployment.code or "internal",
        deployment.reason or "the deployment failed",
        details={"deployment": deployment.id, "stage": deployment.stage},
    )


ROUTES = (
    ApiRoute(
        method="POST",
        path="/api/v1/models/{model}/deploy",
        name="deployModel",
        summary="Put an endpoint to work for a model: prepared, given its share, loaded, attested, and registered in every process",
        tag="deployments",
        handler=deploy,
        body=DeploymentBody,
        answer=DeploymentDocument,
        scopes=("admin",),
        tenanted=False,
        statuses=(202, 201, 200),
        query=(_WAIT, _TENANT),
        errors=(502, 504),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/models/{model}/deployments",
        name="listModelDeployments",
        summary="The deployments that serve a model, or are to",
        tag="deployments",
        handler=of_model,
        answer=DeploymentList,
        scopes=("admin",),
        tenanted=False,
        paged=True,
        query=(_OF,),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/deployments",
        name="listDeployments",
        summary="The latest deployment of each endpoint",
        tag="deployments",
        handler=index,
        answer=DeploymentList,
        scopes=("admin",),
        tenanted=False,
        paged=True,
        query=(_OF,),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/deployments/{deployment}",
        name="getDeployment",
        summary="One deployment, by its id or its endpoint's name",
        tag="deployments",
        handler=show,
        answer=DeploymentDocument,
        scopes=("admin",),
        tenanted=False,
        query=(_OF,),
    ),
    ApiRoute(
        method="DELETE",
        path="/api/v1/deployments/{deployment}",
        name="undeploy",
        summary="Take an endpoint out of service: what is under way there ends first",
        tag="deployments",
        handler=undeploy,
        answer=DeploymentDocument,
        scopes=("admin",),
        tenanted=False,
        statuses=(202, 200),
        query=(_WAIT, _OF),
    ),
)
