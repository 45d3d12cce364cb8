"""The end of grace periods: models whose time is over leave the catalogue."""

from __future__ import annotations

import time
from functools import partial

from domain.model_decisions import decide_end_grace, grace_ended, model_stream
from gateway.control import Control

ACTOR = "maintenance"


async def end_graces(control: Control) -> int:
    """Remove every deprecated model whose grace period has ended; returns how many this process removed."""
    now, removed = time.time(), 0
    for model in grace_ended(control.plane, now):
        decide = partial(decide_end_grace, model=model, now=now, actor=ACTOR)
        removed += (await control.run(decide, stream=model_stream(model))).changed
    return removed
