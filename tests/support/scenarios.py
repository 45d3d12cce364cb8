"""Maps from what has to be shown to the tests that show it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

Shown = list[tuple[str, str]]
"""Files, relative to the repository, and names of tests in them."""
Scenarios = Mapping[str, Mapping[str, Shown]]


def flat(scenarios: Scenarios) -> list[tuple[str, str, str]]:
    """(scenario, file, test) of everything in the map."""
    return [
        (f"{group}: {scenario}", path, name)
        for group, within in scenarios.items()
        for scenario, tests in within.items()
        for path, name in tests
    ]


@cache
def shown_in(path: str) -> frozenset[str]:
    """The tests of a file: its functions, its classes and what is in them, and the names that state machines are given."""
    found = set()
    body = ast.parse((ROOT / path).read_text()).body
    for node in [*body, *(inner for outer in body if isinstance(outer, ast.ClassDef) for inner in outer.body)]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(name for name in found if name.startswith(("test_", "Test")))
