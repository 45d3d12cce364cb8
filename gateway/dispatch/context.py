"""What the lanes of one dispatcher have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import msgspec

from domain.catalogue import Endpoint
from domain.ports.breaker import Breaker
from domain.ports.provider import ProviderFault
from gateway.dispatch.flights import Load
from gateway.dispatch.limits import DispatchLimits
from gateway.dispatch.tickets import Tickets


class CallOutcome(msgspec.Struct, frozen=True, gc=False):
    """One provider call that ended, for metrics: `fault` and `status` are None for a good one, `seconds` is how long it took.

    `attempt` is 1 for the first call of these texts, 2 for the next; `owner` is the tenant that has the endpoint for itself.
    """

    endpoint: str
    provider: str
    model: str
    texts: int
    tokens: int
    seconds: float
    attempt: int
    fault: ProviderFault | None = None
    status: int | None = None
    owner: str | None = None


class Context(msgspec.Struct, eq=False):
    """Shared by all lanes. `queued` is what all of them hold, `tasks` the provider calls in flight."""

    limits: DispatchLimits
    rng: Random
    on_call: Callable[[CallOutcome], None] | None
    tickets: Tickets
    queued: Load
    tasks: set[asyncio.Task[None]]
    breakers: Callable[[Endpoint], Breaker] | None = None
    closed: bool = False
