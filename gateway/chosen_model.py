"""Which model a request would get, and why: as the management API and `emberlog models select` show it."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

from domain.problems import Problems
from domain.selection import Question
from gateway.event_document import time_text
from gateway.quota.live import StandingQuotas
from gateway.service.outcomes import switch_document
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


class Reason(msgspec.Struct, frozen=True):
    """A model of the catalogue, and why it was chosen, passed over or left out."""

    model: str
    reason: str


class ChosenModel(msgspec.Struct, frozen=True):
    """The model that would answer. `selection_reason` is `requested`, `task_model`, `agent_model`, `tenant_default`, `any`, `any_cost`,
    `any_quality`, `any_latency`, `fallback` or `price_ceiling`.

    `estimated_cost_nano_usd` is null without `token_estimate`, or where the price is unknown. `quota_remaining` is the tokens that the
    tightest hard quota of tokens has left, null where there is none. `price_ceiling`: a soft budget of the tenant is used up. `fallback_models` stand in line behind it; `failover` is what was first in line, where that
    cannot answer now.
    """

    model_id: str
    model_identifier: str
    provider: str
    endpoint: str
    dimensions: int
    space: str
    unit: str
    unit_pico_usd: int | None
    price: str
    token_estimate: int | None
    estimated_cost_nano_usd: int | None
    is_within_quota: bool
    quota_remaining: int | None
    price_ceiling: bool
    selection_reason: str
    is_default: bool
    priority: int
    fallback_models: list[str]
    fallback_available: bool
    failover: dict[str, Any] | None
    notices: list[str]
    reasons: list[Reason]
    selected_at: str


def choose_model(
    selector: Selector, tenant: str, agent: str, question: Question, quotas: StandingQuotas
) -> ChosenModel:
    """The decision as of now. Raises what selection raises; what is chosen is within its quotas."""
    found = selector.explain(tenant, agent, question, quotas)
    selection, menu = found.selection, selector.menu(tenant)
    entry, candidate = menu.names[selection.model.id], selection.candidate
    assert candidate is not None
    return ChosenModel(
        model_id=entry.id,
        model_identifier=candidate.provider_model,
        provider=candidate.offering.provider,
        endpoint=candidate.endpoint.name,
        dimensions=selection.dimensions,
        space=selection.space,
        unit=entry.price.unit,
        unit_pico_usd=entry.price.unit_pico_usd,
        price=entry.price.id,
        token_estimate=question.tokens or None,
        estimated_cost_nano_usd=entry.charge_nano_usd(question.tokens, question.characters)
        if question.tokens
        else None,
        is_within_quota=True,
        quota_remaining=quotas.remaining(agent, entry.id),
        price_ceiling=selector.ceiling(tenant, quotas),
        selection_reason=selection.reason,
        is_default=menu.default == entry.id,
        priority=entry.priority,
        fallback_models=found.in_line,
        fallback_available=bool(found.in_line),
        failover=switch_document(selection.failover, entry.id, candidate.endpoint.name),
        notices=list(selection.notices),
        reasons=[Reason(r.model, r.reason) for r in found.reasons],
        selected_at=time_text(time.time_ns() // 1000),
    )


class AgentModels(msgspec.Struct, frozen=True):
    """The model that the agent gets where it names none, why, and those in line behind it."""

    agent_id: str
    task_type: str | None
    primary_model: str
    selection_reason: str
    fallback_models: list[str]
    reasons: list[Reason]


def agent_models(selector: Selector, tenant: str, agent: str, task: str | None, quotas: StandingQuotas) -> AgentModels:
    """Which models the agent gets. Raises what selection raises."""
    question = Question(task=task, another=selector.another(tenant, None, None))
    found = selector.explain(tenant, agent, question, quotas)
    return AgentModels(
        agent_id=agent,
        task_type=task,
        primary_model=found.selection.model.id,
        selection_reason=found.selection.reason,
        fallback_models=found.in_line,
        reasons=[Reason(r.model, r.reason) for r in found.reasons],
    )
