"""`/api/v1/models`: the catalogue of models, their facts and their lifecycle."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

from domain.decision import Decision
from domain.errors import GatewayError, invalid_request
from domain.events import ModelSpec, ModelUpdated, OfferingSpec
from domain.model_catalog import CatalogModel, changed
from domain.model_config import MODEL_TYPES, TYPES
from domain.model_decisions import Step, decide_change, decide_register, model_of, model_stream
from domain.model_lifecycle import REMOVED, STATES
from domain.plane import ControlPlane
from gateway.catalogue.documents import ModelDocument, ModelStatistics, count_models, model_document, shown, visible
from gateway.http.api.route import Answer, ApiRoute, Call, Nothing, Pagination, Parameter

MAX_REASON = 500


class OfferingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model at one provider: its id there, its caps, and the settings of that provider's own."""

    provider: str
    provider_model: str
    max_inputs: int
    max_tokens_per_call: int
    takes_tokens: bool = False
    sends_dimensions: bool = False
    config: dict[str, str] = {}

    def spec(self) -> OfferingSpec:
        """As the catalogue keeps it."""
        return OfferingSpec(**msgspec.structs.asdict(self))


class ModelRegistration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model to register. It starts as a draft. `model_version` and `dimensions` become part of the names of its spaces."""

    model_id: str
    model_version: str
    dimensions: int
    max_tokens: int
    offerings: list[OfferingBody]
    unit: bool = True
    rank: int = 1000
    name: str | None = None
    type: str = "embedding"
    model_type: str = "text"
    tokenizer: str | None = None
    dimensions_allowed: list[int] = []
    dimensions_range: tuple[int, int] | None = None
    aliases: list[str] = []
    supports_binary: bool = False
    minimum_tier: str = "free"
    capabilities: list[str] = []
    owned_by: str = ""
    created: int = 0

    def spec(self) -> ModelSpec:
        """Its facts as the catalogue keeps them."""
        return ModelSpec(**facts_of(self))


class ModelConfigChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Facts that are to change; what is left out stays. `offerings` are all of them. Tenants may have vectors of a model that is not a
    draft or in testing: its version, dimensions, unit, tokenizer and type stay.
    """

    model_version: str | msgspec.UnsetType = msgspec.UNSET
    dimensions: int | msgspec.UnsetType = msgspec.UNSET
    max_tokens: int | msgspec.UnsetType = msgspec.UNSET
    offerings: list[OfferingBody] | msgspec.UnsetType = msgspec.UNSET
    unit: bool | msgspec.UnsetType = msgspec.UNSET
    rank: int | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType | None = msgspec.UNSET
    type: str | msgspec.UnsetType = msgspec.UNSET
    model_type: str | msgspec.UnsetType = msgspec.UNSET
    tokenizer: str | msgspec.UnsetType | None = msgspec.UNSET
    dimensions_allowed: list[int] | msgspec.UnsetType = msgspec.UNSET
    dimensions_range: tuple[int, int] | msgspec.UnsetType | None = msgspec.UNSET
    aliases: list[str] | msgspec.UnsetType = msgspec.UNSET
    supports_binary: bool | msgspec.UnsetType = msgspec.UNSET
    minimum_tier: str | msgspec.UnsetType = msgspec.UNSET
    capabilities: list[str] | msgspec.UnsetType = msgspec.UNSET
    owned_by: str | msgspec.UnsetType = msgspec.UNSET
    created: int | msgspec.UnsetType = msgspec.UNSET


class ModelStateChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the model is to stand in its lifecycle. `grace_days` (90) goes with `deprecated`."""

    state: Literal["testing", "available", "unavailable", "deprecated", "removed"]
    reason: str | None = None
    grace_days: int | None = None


class ModelsAnswer(msgspec.Struct, frozen=True):
    """A page of models, by id."""

    models: list[ModelDocument]
    pagination: Pagination


class ModelStates(msgspec.Struct, frozen=True):
    """Every model's state, by id."""

    models: dict[str, str]


STEPS = {
    "testing": "test",
    "available": "available",
    "unavailable": "unavailable",
    "deprecated": "deprecate",
    "removed": "remove",
}
"""The state that is wanted -> the step that leads there."""


def facts_of(body: msgspec.Struct) -> dict[str, Any]:
    """The fields of `ModelSpec` that a body gives."""
    names = {"model_version": "version", **{f: f for f in ModelSpec.__struct_fields__ if f != "version"}}
    return {
        names[field]: value
        for field, value in msgspec.structs.asdict(body).items()
        if field in names and value is not msgspec.UNSET
    }


def step_to(state: str, reason: str | None = None, grace_days: int | None = None) -> Step:
    """The step to a state. Raises `invalid_request`."""
    if reason is not None and len(reason) > MAX_REASON:
        raise invalid_request(f"`reason` has {len(reason)} characters: expected at most {MAX_REASON}", "reason")
    if grace_days is not None and state != "deprecated":
        raise invalid_request("`grace_days` goes with the state 'deprecated'", "grace_days")
    return Step(STEPS[state], reason, grace_days)


def document(call: Call, model: CatalogModel) -> ModelDocument:
    """The model as the asker is shown it."""
    endpoints = [c.endpoint.name for c in call.service.models().candidates(model.id, call.principal.tenant)]
    return model_document(call.plane, model, endpoints, now=time.time(), tenant=call.principal.tenant)


def found(call: Call) -> CatalogModel:
    """The model of the path. Raises `model_not_found`, also for one that the asker is not shown."""
    model = model_of(call.plane, call.path["model"])
    if not visible(call.plane, model, call.principal):
        raise GatewayError(
            "model_not_found",
            f"the catalogue has no model {call.path['model'][:128]!r}: GET /api/v1/models shows what it has",
            details={"field": "model_id"},
        )
    return model


async def listing(call: Call) -> ModelsAnswer:
    """A page of the models that match."""
    state = call.query.text("state")
    if state is not None and state not in STATES:
        raise invalid_request(f"`state`: expected one of {', '.join(STATES)}", "state")
    type_ = call.query.text("type")
    if type_ is not None and type_ not in (*TYPES, *MODEL_TYPES):
        raise invalid_request(f"`type`: expected one of {', '.join((*TYPES, *MODEL_TYPES))}", "type")
    models = shown(
        call.plane,
        provider=call.query.text("provider"),
        type=type_,
        state=state,
        tag=call.query.text("tag"),
        search=call.query.text("search"),
    )
    page, pagination = call.page([m for m in models if visible(call.plane, m, call.principal)])
    return ModelsAnswer([document(call, m) for m in page], pagination)


async def show(call: Call) -> ModelDocument:
    """One model."""
    return document(call, found(call))


async def register(call: Call) -> Answer:
    """Register a model; one that is there with the same facts is answered with 200."""
    body: ModelRegistration = call.body
    offerings = [offering.spec() for offering in body.offerings]
    written = await call.decide(
        model_stream(body.model_id),
        lambda plane: decide_register(plane, body.model_id, body.spec(), offerings, actor=call.actor),
    )
    model = model_of(call.plane, body.model_id)
    return Answer(document(call, model), status=201 if written.changed else 200)


async def configure(call: Call) -> ModelDocument:
    """Change facts. What they would make is assembled and loaded aside first: where that fails, nothing is changed."""
    facts = facts_of(call.body)
    if call.body.offerings is not msgspec.UNSET:
        facts["offerings"] = [offering.spec() for offering in call.body.offerings]
    await apply(call, facts)
    return document(call, found(call))


async def change_state(call: Call) -> ModelDocument:
    """Step through the lifecycle."""
    body: ModelStateChange = call.body
    await apply(call, {}, step_to(body.state, body.reason, body.grace_days))
    return document(call, found(call))


async def validate(call: Call) -> ModelDocument:
    """Embed probe texts by a model in testing and hold the vectors against its facts: it becomes available, or a draft again."""
    model = found(call)
    await call.decide(
        model_stream(model.id), lambda plane: []
    )  # refuses another version than was expected, before anything is spent
    call.written = await call.service.validate_model(model.id, call.actor)
    return document(call, found(call))


async def remove(call: Call) -> None:
    """Remove a draft, a model in testing, or a deprecated one at the end of its grace period."""
    await apply(call, {}, step_to("removed"))


async def apply(call: Call, facts: dict[str, Any], *steps: Step) -> None:
    """Decide on a change of the model of the path, rehearse it, write it."""
    model = found(call)

    def decide(plane: ControlPlane) -> list[Decision]:
        return decide_change(plane, model.id, facts, steps, now=time.time(), actor=call.actor)

    for decision in decide(call.plane):
        if isinstance(decision.data, ModelUpdated):
            await call.service.rehearse(changed(model, decision.data))
    await call.decide(model_stream(model.id), decide)


async def statistics(call: Call) -> ModelStatistics:
    """Counts of models."""
    models = [m for m in shown(call.plane) if visible(call.plane, m, call.principal)]
    if call.principal.tenant is None:
        models += shown(call.plane, state=REMOVED)
    catalogue = call.service.models()
    return count_models(models, {m.id for m in models if catalogue.candidates(m.id, call.principal.tenant)})


async def states(call: Call) -> ModelStates:
    """Every model's state."""
    return ModelStates({m.id: m.state for m in shown(call.plane) if visible(call.plane, m, call.principal)})


READERS = ("agent", "admin")
_FILTERS = (
    Parameter("provider", "Models that this provider offers."),
    Parameter("type", "Models of this type (`embedding`) or model type (`text`, `multimodal`, `code`)."),
    Parameter("state", "Models in this state; the removed ones are left out otherwise.", {"enum": list(STATES)}),
    Parameter("tag", "Models with this capability."),
    Parameter("search", "Models with this in their id, name, alias or maker, in whatever case."),
)


def _route(method: str, path: str, name: str, summary: str, handler: Any, **more: Any) -> ApiRoute:
    return ApiRoute(
        method=method,
        path=path,
        name=name,
        summary=summary,
        tag="models",
        handler=handler,
        tenanted=False,
        **{"answer": ModelDocument, **more},
    )


ROUTES = (
    _route(
        "POST", "/api/v1/models/register", "registerModel",
        "Register a model, as a draft; the same facts again are answered with 200, others with 409",
        register, body=ModelRegistration, statuses=(201, 200),
    ),
    _route(
        "GET", "/api/v1/models", "listCatalogModels", "The models of the catalogue; a tenant's key sees what the tenant may use",
        listing, answer=ModelsAnswer, scopes=READERS, query=_FILTERS, paged=True,
    ),
    _route(
        "GET", "/api/v1/models/statistics", "getModelStatistics", "How many models there are, by state, type and provider",
        statistics, answer=ModelStatistics, scopes=READERS,
    ),
    _route(
        "GET", "/api/v1/models/state", "getModelStates", "The state of every model", states, answer=ModelStates, scopes=READERS,
    ),
    _route("GET", "/api/v1/models/{model}", "getCatalogModel", "One model", show, scopes=READERS),
    _route(
        "DELETE", "/api/v1/models/{model}", "removeModel",
        "Remove a draft, a model in testing, or a deprecated one whose grace period has ended and that no tenant has configured",
        remove, answer=Nothing, statuses=(204,),
    ),
    _route(
        "PUT", "/api/v1/models/{model}/config", "configureModel",
        "Change facts of a model; in force everywhere within a second, and nowhere if they cannot be loaded",
        configure, body=ModelConfigChange, errors=(502,),
    ),
    _route(
        "POST", "/api/v1/models/{model}/state", "changeModelState",
        "Step through the lifecycle: enable for testing, switch off and on, deprecate, remove",
        change_state, body=ModelStateChange,
    ),
    _route(
        "POST", "/api/v1/models/{model}/validate", "validateModel",
        "Embed probe texts by a model in testing: available if the vectors are what the catalogue says, else a draft again",
        validate, errors=(402, 502, 504),
    ),
)  # fmt: skip
