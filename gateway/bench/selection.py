"""`emberlog bench selection`: decisions a second of the pure selection with 50 models, on one core, without a database.

Nothing is remembered between two decisions. CPU time of this process, best of several rounds. `passed over` looks through 50 models and
takes the last; the mix is what agents ask: a model by name, a task's model, ranked models, the default, the cheapest of a size.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from domain.catalogue import Catalogue, Endpoint, Model, Offering
from domain.events import Preferences, TenantModelConfigured
from domain.menu import Menu, compile_menu
from domain.money import Price
from domain.selection import Question, select
from domain.tenant_config import TenantConfig

if TYPE_CHECKING:
    from rich.console import Console

MODELS = 50
ROUNDS = 5
DECISIONS = 20_000
PASSED_OVER = "passed over"
SIZES = (384, 768, 1024, 1536, 3072)


def make_menu() -> Menu:
    """50 models of five sizes, each enabled for the tenant, at prices and priorities of their own."""
    models = [Model(f"model-{n:02}", "1", SIZES[n % 5], 8192 if n % 3 else 512, None, True, n) for n in range(MODELS)]
    offerings = [
        Offering(m.id, "p", m.id, Price(f"p-{m.id}", 1000 + (n * 7919) % 997), 16, 8192) for n, m in enumerate(models)
    ]
    tenant = TenantConfig()
    for n, m in enumerate(models):
        tenant.models[m.id] = TenantModelConfigured(m.id, priority=100 + n % 3)
    tenant.default = "model-20"
    endpoint = Endpoint("e", "p", {m.id: "" for m in models})
    return compile_menu(Catalogue(models, offerings, [endpoint]), tenant, latency_ms={m.id: 20 for m in models})


_Asked = list[tuple[Question, Preferences | None]]


def scenarios() -> dict[str, _Asked]:
    """What is asked, by name."""
    ranked = Preferences(models=["model-03", "model-04"], task_models={"code": "model-10"}, required_dimensions=1536)
    capped = Preferences(strategy="cost", required_dimensions=3072, max_cost_per_request_nano_usd=5_000)
    named: _Asked = [(Question(f"model-{n:02}"), None) for n in range(MODELS)]
    task: _Asked = [(Question(task="code"), Preferences(task_models={"code": "model-10"}))]
    agent: _Asked = [(Question(), ranked)]
    default: _Asked = [(Question(), None)]
    cheapest: _Asked = [
        (Question(optimize="cost", dimensions=size, tokens=1000, longest=600), capped) for size in SIZES
    ]
    return {
        "named": named,
        "task model": task,
        "ranked models": agent,
        "tenant default": default,
        "cheapest of a size": cheapest,
        "mix": named[:5] + task * 5 + agent * 5 + default * 5 + cheapest,
        PASSED_OVER: [(Question(optimize="quality", dimensions=MODELS), None)],
    }


async def run(decisions: int = DECISIONS) -> dict[str, Any]:
    """Decisions a second of each scenario."""
    menu, last = make_menu(), Model("last", "1", MODELS, 512, None, True, 10**6)
    models = [entry.model for entry in menu.orders["any"]] + [last]
    offerings = [Offering(m.id, "p", m.id, Price("x", 1), 16, 8192) for m in models]
    wide = compile_menu(Catalogue(models, offerings, [Endpoint("e", "p", {m.id: "" for m in models})]), TenantConfig())
    rates = {
        name: round(_rate(wide if name == PASSED_OVER else menu, asked, decisions))
        for name, asked in scenarios().items()
    }
    return {"models": MODELS, "decisions_per_second": rates}


def _rate(menu: Menu, asked: _Asked, decisions: int) -> float:
    best = float("inf")
    rounds = max(1, decisions // len(asked))
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(rounds):
            for question, preferences in asked:
                select(menu, question, preferences)
        best = min(best, (time.process_time() - started) / (rounds * len(asked)))
    return 1 / best


def show(found: dict[str, Any], console: Console) -> None:
    """The same for a person."""
    console.print(f"of {found['models']} models, decisions a second on one core:")
    for name, rate in found["decisions_per_second"].items():
        console.print(f"  {name:20}{rate:>12,}")
