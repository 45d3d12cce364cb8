"""The benchmark of the selection: what it measures, and that a core makes 200,000 decisions a second among 50 models."""

from __future__ import annotations

from domain.selection import select
from gateway.bench.selection import MODELS, PASSED_OVER, make_menu, run, scenarios


async def test_a_core_makes_200_000_decisions_a_second_among_50_models() -> None:
    rates = (await run(4_000))["decisions_per_second"]
    assert rates["mix"] > 200_000, rates


def test_what_is_measured_is_what_it_is_called() -> None:
    menu = make_menu()
    assert len(menu.orders["any"]) == MODELS
    expected = {
        "named": {"requested"},
        "task model": {"task_model"},
        "ranked models": {"agent_model"},
        "tenant default": {"tenant_default"},
        "cheapest of a size": {"any_cost"},
    }
    for name, asked in scenarios().items():
        if name in expected:
            assert {select(menu, *each).reason for each in asked} == expected[name]
    looked_at = [len(select(menu, *each).passed_over) for each in scenarios()["cheapest of a size"]]
    assert max(looked_at) > 3, looked_at
    assert PASSED_OVER in scenarios()
