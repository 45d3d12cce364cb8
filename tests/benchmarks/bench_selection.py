"""Decisions a second of the pure selection with 50 models, on one core: `python -m tests.benchmarks.bench_selection`.

Nothing is remembered between two decisions. CPU time of this process, best of several runs. `passed over` looks through all 50 models
and takes the last; the mix is what agents ask: a model by name, a task's model, ranked models, the default, the cheapest of a size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from domain.catalogue import Catalogue, Endpoint, Model, Offering
from domain.events import Preferences, TenantModelConfigured
from domain.menu import Menu, compile_menu
from domain.money import Price
from domain.selection import Question, select
from domain.tenant_config import TenantConfig

MODELS = 50
ROUNDS = 5
DECISIONS = 20_000
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
        "passed over": [(Question(optimize="quality", dimensions=MODELS), None)],
    }


def rates() -> Iterator[tuple[str, float]]:
    """Decisions a second of each scenario."""
    menu, last = make_menu(), Model("last", "1", MODELS, 512, None, True, 10**6)
    names = list(menu.names.values())
    models = [e.model for e in names] + [last]
    offerings = [Offering(m.id, "p", m.id, Price("x", 1), 16, 8192) for m in models]
    wide = compile_menu(Catalogue(models, offerings, [Endpoint("e", "p", {m.id: "" for m in models})]), TenantConfig())
    for name, asked in scenarios().items():
        of = wide if name == "passed over" else menu
        best = float("inf")
        for _ in range(ROUNDS):
            rounds = range(DECISIONS // len(asked))
            started = time.process_time()
            for _ in rounds:
                for question, preferences in asked:
                    select(of, question, preferences)
            best = min(best, (time.process_time() - started) / (len(rounds) * len(asked)))
        yield name, 1 / best


if __name__ == "__main__":
    for scenario, rate in rates():
        print(f"{scenario:20} {rate:>10,.0f} decisions/s")
