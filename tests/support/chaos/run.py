"""One cell of the chaos table: a plan at a provider."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec

from gateway.bench.faults import Control, Fault
from tests.support.chaos import load as loads
from tests.support.chaos.audit import Verdict, audit
from tests.support.chaos.places import Healthy, Place
from tests.support.chaos.plans import Plan
from tests.support.chaos.site import site


async def cell(place: Place, healthy: Healthy, plan: Plan, requests: int, seed: int = 1) -> Verdict:
    """Let requests come while the provider does what the plan says, and after; and see what became of each."""
    async with site(place, healthy, plan.seconds) as made:
        load = loads.Load(made, plan, requests, seed)
        place.control(Control(clear=True, reset=True, faults=_faults(plan)))
        if plan.gone:
            made.turnout.now = place.gone
        running = asyncio.create_task(load.run())
        await load.halfway.wait()
        if not plan.of_texts:
            place.control(Control(clear=True))
            made.turnout.now = place.here
        await running
        with suppress(TimeoutError):
            async with asyncio.timeout(loads.GRACE):
                while made.left:
                    await asyncio.sleep(0.005)
        place.control(Control(clear=True))
        return await audit(made, plan, load.asked)


def _faults(plan: Plan) -> list[Fault]:
    """Copies: a server counts faults down in place."""
    return [] if plan.fault is None else [msgspec.structs.replace(plan.fault)]
