"""`/api/v1/embedding-models/select`: which model a request would get, what it would cost there, and why no other."""

from __future__ import annotations

from domain.tenancy import Principal
from gateway.chosen_model import ChosenModel, SelectionQuestion, choose_model, question_of
from gateway.http.api.agents import speaks_for
from gateway.http.api.quotas import standing_quotas
from gateway.http.api.route import ApiRoute, Call


async def select_model(call: Call) -> ChosenModel:
    """Decide, and say why. Nothing is logged, reserved or sent."""
    selector, asked = call.service.selector, call.body
    question = question_of(selector, call.tenant, asked, admin=is_admin(call.principal))
    agent = speaks_for(call.principal, asked.agent_id)
    return choose_model(selector, call.tenant, agent, question, await standing_quotas(call, agent))


def is_admin(principal: Principal) -> bool:
    """Whether the asker may use models in testing."""
    return principal.tenant is None or "admin" in principal.scopes


ROUTES = (
    ApiRoute(
        method="POST",
        path="/api/v1/embedding-models/select",
        name="selectModel",
        summary="Which model a request would get, what it would cost, and why no other",
        tag="selection",
        handler=select_model,
        body=SelectionQuestion,
        answer=ChosenModel,
        scopes=("agent", "admin"),
        errors=(402, 504),
        versioned=False,
    ),
)
