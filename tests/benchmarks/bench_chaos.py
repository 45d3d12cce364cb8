"""The chaos table: `python -m tests.benchmarks.bench_chaos [--requests N] [--seed N] [--json] [provider ...]`.

Each provider's adapter is called by the real request service, dispatcher, router and circuits while its simulated server misbehaves, with a
healthy endpoint of the same model beside it: agents of three tenants, all at once, ask for one text or many, stream, repeat an id, share
texts, give up. Half of the requests end while the fault lasts. Ends with 1 where anything is not as it has to be.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from functools import reduce
from operator import add

import msgspec

from tests.support.chaos.audit import Verdict
from tests.support.chaos.places import KINDS, healthy, place
from tests.support.chaos.plans import PLANS
from tests.support.chaos.run import cell

Table = dict[str, dict[str, Verdict]]
"""By fault, then by provider."""

COUNTED = {
    "requests": "requests",
    "answered": "answered",
    "refused": "refused",
    "given_up": "given up by the sender",
    "lost": "lost",
    "needless": "refused needlessly",
    "billed_twice": "billed wrongly or twice",
    "wrong_space": "wrong space",
    "wrong_order": "wrong vector or order",
    "left": "left behind",
}


async def measure(names: Sequence[str], requests: int, seed: int) -> Table:
    """Every fault at these providers."""
    table: Table = {plan.name: {} for plan in PLANS}
    async with healthy() as others:
        for name in names:
            async with place(name) as here:
                for plan in PLANS:
                    table[plan.name][name] = found = await cell(here, others, plan, requests, seed)
                    for note in found.notes:
                        print(f"{plan.name} at {name}: {note}", file=sys.stderr)
    return table


def as_markdown(table: Table) -> str:
    """Two tables: what became of the requests by fault, over all providers; and answered / refused in each cell."""
    lines = [_row("fault", *COUNTED.values()), _row("---", *["---"] * len(COUNTED))]
    sums = {plan: reduce(add, found.values()) for plan, found in table.items()}
    for plan, found in {**sums, "all": reduce(add, sums.values())}.items():
        lines.append(_row(plan, *(f"{getattr(found, name):,}" for name in COUNTED)))
    names = list(next(iter(table.values())))
    lines += ["", _row("answered / refused", *names), _row("---", *["---"] * len(names))]
    for plan, cells in table.items():
        shown = (f"{found.answered} / {found.refused}{' **!**' * bool(found.wrong)}" for found in cells.values())
        lines.append(_row(plan, *shown))
    return "\n".join(lines)


def _row(*columns: str) -> str:
    return f"| {' | '.join(columns)} |"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_chaos")
    parser.add_argument("providers", nargs="*", metavar="provider", help=f"one of: {', '.join(KINDS)} (default: all)")
    parser.add_argument("--requests", type=int, default=120, help="of each cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    unknown = [name for name in given.providers if name not in KINDS]
    if unknown:
        parser.error(f"no provider {unknown[0]!r}: expected {', '.join(KINDS)}")
    table = asyncio.run(measure(given.providers or list(KINDS), given.requests, given.seed))
    print(msgspec.json.encode(table).decode() if given.json else as_markdown(table))
    return int(any(found.wrong for cells in table.values() for found in cells.values()))


if __name__ == "__main__":
    sys.exit(main())
