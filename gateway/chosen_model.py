"""Which model a request would get, and why: as the management API and `emberlog models select` show it."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from domain.selection import Question
from gateway.event_document import time_text
from gateway.quota.live import StandingQuotas
from gateway.service.outcomes import switch_document
from gateway.service.selector import Selector


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
