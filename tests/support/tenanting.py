"""Tenants' models and agents in a log, and the views of them folded in plain Python."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from domain.events import AgentRegistered, EventData, Preferences, TenantModelConfigured, TenantModelRemoved
from tests.support.cataloguing import jsonb

if TYPE_CHECKING:  # it imports us
    from tests.support.projecting import Recorded, Row

_ids = st.sampled_from(["m1", "m2"])
_names = st.sampled_from(["ä", "b\"'\\", "c/d"])
_bounds = st.none() | st.integers(1, 2**63 - 1)
_actors = st.sampled_from([None, "key:1"])
TENANT_DATA: st.SearchStrategy[EventData] = st.one_of(
    st.builds(
        TenantModelConfigured,
        model=_ids,
        state=st.sampled_from(["configured", "enabled", "disabled"]),
        default=st.booleans(),
        priority=st.sampled_from([0, 100, 1_000_000]),
        fallback_models=st.lists(_names, max_size=2),
        custom_settings=st.dictionaries(_names, _names, max_size=2),
        actor=_actors,
    ),
    st.builds(TenantModelRemoved, model=_ids, actor=_actors),
    st.builds(
        AgentRegistered,
        agent=_ids,
        preferences=st.builds(
            Preferences,
            strategy=st.sampled_from(["tenant_default", "cost"]),
            models=st.lists(_names, max_size=2),
            task_models=st.dictionaries(_names, _names, max_size=2),
            required_dimensions=_bounds,
            max_cost_per_request_nano_usd=_bounds,
            monthly_budget_nano_usd=_bounds,
            max_latency_ms=_bounds,
        ),
        name=st.none() | _names,
        version=st.none() | _names,
        capabilities=st.lists(_names, max_size=2),
        actor=_actors,
    ),
)
"""What an event says of a tenant's models or agents."""


def tenant_event(n: int) -> EventData:
    """The n-th event of a history of three models and as many agents."""
    name = f"m{n % 3}"
    match n // 3 % 4:
        case 0:
            return TenantModelConfigured(name, default=n % 2 == 0, fallback_models=["ä"], custom_settings={"x": "ä"})
        case 1:
            return AgentRegistered(name, Preferences(models=["ä"], max_latency_ms=n), capabilities=["c"])
        case 2:
            return TenantModelConfigured(name, state="disabled", priority=n, actor="key:1")
        case _:
            return TenantModelRemoved(name)


def plain_tenant_models(events: Sequence[Recorded], skip: Collection[int] = ()) -> list[Row]:
    """The tenant_models view of these events but those at the positions `skip`, in the order of its key."""
    rows: dict[tuple[str, str], Row] = {}
    for position, event in enumerate(events, 1):
        data = event.data
        if position in skip or not isinstance(data, TenantModelConfigured | TenantModelRemoved):
            continue
        key = (event.tenant, data.model)
        since = rows[key][3] if key in rows else event.at
        latest = max(rows[key][4], event.at) if key in rows else event.at
        if isinstance(data, TenantModelRemoved):
            rows[key] = (*key, position, since, latest, data.actor, "removed", False, None, None, None, None)
        else:
            rows[key] = (
                *key, position, since, latest, data.actor, data.state, data.state == "enabled",
                position if data.default else None, data.priority, jsonb(data.fallback_models), jsonb(data.custom_settings),
            )  # fmt: skip
    return [rows[key] for key in sorted(rows)]


def plain_agent_preferences(events: Sequence[Recorded], skip: Collection[int] = ()) -> list[Row]:
    """The agent_preferences view of these events but those at the positions `skip`, in the order of its key."""
    rows: dict[tuple[str, str], Row] = {}
    for position, event in enumerate(events, 1):
        data = event.data
        if position in skip or not isinstance(data, AgentRegistered):
            continue
        key, stated = (event.tenant, data.agent), data.preferences
        since = rows[key][3] if key in rows else event.at
        rows[key] = (
            *key, position, since, event.at, data.actor, data.name, data.version, stated.strategy, jsonb(stated.models),
            jsonb(stated.task_models), stated.required_dimensions, stated.max_cost_per_request_nano_usd,
            stated.monthly_budget_nano_usd, stated.max_latency_ms, jsonb(data.capabilities),
        )  # fmt: skip
    return [rows[key] for key in sorted(rows)]
