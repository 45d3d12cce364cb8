"""What selection is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from domain.catalogue import Candidate, Model
from domain.errors import GatewayError
from domain.events import Failover
from domain.menu import Entry, PassedOver

STRATEGIES = ("tenant_default", "fixed", "cost", "latency", "quality")
REASONS = {"quota_exceeded": "quota", "budget_exceeded": "budget", "provider_unavailable": "circuit_open"}
"""What blocked a model, by the code of the refusal, as answers name it."""

Blocked = Callable[[Entry], GatewayError | None]
"""What a model would be refused with now, however well it suits: asked of each candidate, at every decision."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """What a request asks for.

    `another` says whether another model may answer than the first in line. `tokens` (in all), `characters` and `longest` (the tokens of
    the longest text) are 0 until they are counted. `priced`: the request is bound to a budget, which an unknown price cannot be.
    `ceiling`: a soft budget is used up.
    """

    model: str | None = None
    dimensions: int | None = None
    input_type: str | None = None
    task: str | None = None
    optimize: str | None = None
    another: bool = False
    admin: bool = False
    tokens: int = 0
    characters: int = 0
    longest: int = 0
    priced: bool = False
    ceiling: bool = False


class Selection(msgspec.Struct, frozen=True):
    """The chosen model, the size of its vectors, their space, why it was chosen, and what was passed over.

    `failover` is what was first in line, where something live kept it from answering.
    """

    model: Model
    dimensions: int
    space: str
    reason: str
    passed_over: tuple[PassedOver, ...] = ()
    candidate: Candidate | None = None
    notices: tuple[str, ...] = ()
    failover: Failover | None = None


class Explanation(msgspec.Struct, frozen=True):
    """A decision with all that was looked at: what stands in line behind the chosen model, and what every other model was left out for."""

    selection: Selection
    in_line: list[str]
    reasons: list[PassedOver]


def over_cap(model: str, cap: int | None) -> GatewayError:
    """A model would cost more than the agent allows for a request (`cap`, nano-dollars), or nobody knows what."""
    why = (
        "has no known price, and the request is bound to a budget"
        if cap is None
        else f"would cost more than the {cap} nano-dollars that the agent allows for a request, or has no known price"
    )
    return GatewayError(
        "budget_exceeded",
        f"model {model!r} {why}: name another, send fewer texts, or allow another model with failover = 'any'",
        details={"window": "request", "limit": cap, "used": 0, "reserved": 0, "resets_at": None, "alternatives": []},
    )
