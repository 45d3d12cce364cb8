"""`/api/v1/embedding-models/select`: which model a request would get, what it would cost there, and why no other."""

from __future__ import annotations

from typing import Literal

import msgspec

from domain.problems import Problems
from domain.selection import Question
from domain.tenancy import Principal
from gateway.chosen_model import ChosenModel, choose_model
from gateway.http.api.agents import speaks_for
from gateway.http.api.quotas import standing_quotas
from gateway.http.api.route import ApiRoute, Call
from gateway.service.selector import Selector

MAX_TOKENS = 10**12
MAX_DIMENSIONS = 10**6
MAX_NAME = 128


class SelectionQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request would ask for. Without `agent_id` it is the key's own agent. `estimated_tokens` is another name of `token_estimate`,
    which stands for one text; prices per character are reckoned at 4 characters a token.
    """

    agent_id: str | None = None
    task_type: str | None = None
    requested_model: str | None = None
    token_estimate: int | None = None
    estimated_tokens: int | None = None
    required_dimensions: int | None = None
    input_type: Literal["query", "document", "classification", "clustering"] | None = None
    optimize: Literal["cost", "latency", "quality"] | None = None
    failover: Literal["same_space", "any", "none"] | None = None

    @property
    def tokens(self) -> int:
        """The estimate, 0 where there is none."""
        return self.token_estimate or self.estimated_tokens or 0

    def check(self) -> None:
        """Raise `invalid_config` naming every field that is wrong."""
        problems = Problems()
        for field, value, most in (
            ("token_estimate", self.token_estimate, MAX_TOKENS),
            ("estimated_tokens", self.estimated_tokens, MAX_TOKENS),
            ("required_dimensions", self.required_dimensions, MAX_DIMENSIONS),
        ):
            if value is not None and not 1 <= value <= most:
                problems.add(field, f"expected a whole number from 1 to {most}")
        if None not in (self.token_estimate, self.estimated_tokens) and self.token_estimate != self.estimated_tokens:
            problems.add("estimated_tokens", "says something else than `token_estimate`: leave one out")
        for field in ("agent_id", "task_type", "requested_model"):
            value = getattr(self, field)
            if value is not None and not 1 <= len(value) <= MAX_NAME:
                problems.add(field, f"expected 1 to {MAX_NAME} characters")
        problems.check("the question")


def question_of(selector: Selector, tenant: str, asked: SelectionQuestion, *, admin: bool) -> Question:
    """The question that selection is asked."""
    asked.check()
    return Question(
        model=asked.requested_model,
        dimensions=asked.required_dimensions,
        input_type=asked.input_type,
        task=asked.task_type,
        optimize=asked.optimize,
        another=selector.another(tenant, asked.requested_model, asked.failover),
        admin=admin,
        tokens=asked.tokens,
        characters=asked.tokens * 4,
        longest=asked.tokens,
    )


async def select_model(call: Call) -> ChosenModel:
    """Decide, and say why. Nothing is logged, reserved or sent."""
    selector, asked = call.service.selector, call.body
    question = question_of(selector, call.tenant, asked, admin=is_admin(call.principal))
    agent = speaks_for(call.principal, asked.agent_id)
    return choose_model(selector, call.tenant, agent, question, await standing_quotas(call))


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
        errors=(402, 403, 404),
    ),
)
