"""`emberlog bench quota`: what the gate of the quotas adds to a request that its leases let in, without a database."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any

from domain.events import EmbeddingGenerated, QuotaSet
from domain.plane import ControlPlane
from domain.quota_lease import Answer, Ask
from gateway.quota.gate import QuotaGate
from gateway.quota.keeper import Keeper
from gateway.service.pending import Pending

if TYPE_CHECKING:
    from rich.console import Console

ROUNDS = 5
_LIMIT = 10**15


class _Request:
    """As much of a request as the gate looks at; each has an agent, all have a tenant and a model."""

    class selection:  # noqa: N801 (it stands for an instance)
        class model:  # noqa: N801
            id = "m"

    class price:  # noqa: N801
        unit = "token"
        unit_pico_usd = 20_000

    priced = {"p": None}  # noqa: RUF012 (at one provider only)
    __slots__ = ("agent", "at", "day", "hold", "tenant", "total_characters", "total_tokens")

    def __init__(self, agent: str, at: int) -> None:
        self.tenant = "acme"
        self.agent = agent
        self.at = at
        self.total_tokens = 20
        self.total_characters = 0
        self.hold: Any = None
        self.day: str | None = None


_THREE = (("tokens", "day"), ("requests", "month"), ("nano_usd", "month"))


async def run(requests: int, agents: int = 64) -> dict[str, Any]:
    """Microseconds a request takes at the gate and to settle, of the best of some rounds: without quotas, and with three hard ones."""
    return {
        "requests": requests,
        "agents": agents,
        "none_us": await _measure(requests, agents, ()),
        "three_us": await _measure(requests, agents, _THREE),
    }


def show(found: dict[str, Any], console: Console) -> None:
    """The same for a person."""
    console.print(
        f"of {found['requests']:,} requests of {found['agents']} agents, each, from the gate to the settled outcome:"
    )
    console.print(f"  {found['none_us']:.1f} µs without quotas, {found['three_us']:.1f} µs with three hard ones")


async def _measure(requests: int, agents: int, quotas: tuple[tuple[str, str], ...]) -> float:
    plane = ControlPlane()
    for position, (unit, window) in enumerate(quotas, 1):
        data = QuotaSet(scope="tenant", unit=unit, window=window, limit=_LIMIT)
        plane.quotas.apply("acme", data, position)
    keeper = Keeper(plane.quotas, _grant, "bench")
    keeping = asyncio.create_task(keeper.run())
    gate = QuotaGate(plane, keeper)
    at = time.time_ns() // 1000
    outcome = EmbeddingGenerated(
        request_id="r", agent="a", attempt=1, at=at, model="m", provider="p", endpoint="e", space="s", inputs=1, tokens=20,
        billed_tokens=20, price="x", latency_ms=1, dimensions=8, nano_usd=400,
    )  # fmt: skip
    for agent in range(agents):  # the first asks for the leases, and waits for them
        await _pass(gate, _Request(f"a{agent}", at))
    best = float("inf")
    gc.disable()
    try:
        for _ in range(ROUNDS):
            batch: list[Any] = [_Request(f"a{n % agents}", at) for n in range(requests)]
            began = time.perf_counter()
            for request in batch:
                if gate(request) is not None:
                    raise RuntimeError("a request had to wait: what was measured is something else")
                request.hold.settle(outcome)
            best = min(best, time.perf_counter() - began)
            await asyncio.sleep(0.01)
    finally:
        gc.enable()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    return best / requests * 1e6


async def _pass(gate: QuotaGate, request: Any) -> None:
    pending: Pending = request
    if (wait := gate(pending)) is not None:
        await wait


async def _grant(instance: str, serial: int, asks: Any) -> list[Answer]:
    """A database that grants a thousandth of what there is at once."""
    found: list[Ask] = list(asks)
    return [Answer(_LIMIT // 1000 if ask.need or ask.extra else 0, _LIMIT, ask.holds, ask.used) for ask in found]
