"""What the bench measures: how many agents ask for how much, at which pace, of a provider that takes how long."""

from __future__ import annotations

import msgspec

from gateway.bench.load import LoadOptions

MODEL = "text-embedding-3-small"
MARK_REQUESTS_PER_SECOND = 3000.0
"""The first mark: requests a second with the gateway on one core, every event synced to disk."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. `rate` None is the closed loop: each agent asks again when it is answered."""

    name: str
    agents: int
    pipeline: int = 1
    texts: int = 1
    rate: float | None = None
    repeat: float = 0.0
    provider_ms: float
    mark: float | None = None

    def load(self, url: str, key: str, warmup: float, seconds: float) -> LoadOptions:
        """The load generator's options for it."""
        return LoadOptions(
            url=url,
            key=key,
            agents=self.agents,
            pipeline=self.pipeline,
            rate=self.rate,
            texts=self.texts,
            repeat=self.repeat,
            model=MODEL,
            warmup=warmup,
            seconds=seconds,
        )


def standard(agents: int, provider_ms: float, rate: float) -> list[Scenario]:
    """The scenarios of `emberlog bench`.

    In a closed loop `agents / (provider + gateway)` bounds the rate, so a provider of 100 ms would measure the provider: the
    throughput scenarios take `provider_ms`. The open loop asks what a request costs in time beside a provider of ordinary speed.
    """
    return [
        Scenario(name="1 text, closed loop", agents=agents, provider_ms=provider_ms),
        Scenario(
            name="1 text, four in flight each",
            agents=agents,
            pipeline=4,
            provider_ms=provider_ms,
            mark=MARK_REQUESTS_PER_SECOND,
        ),
        Scenario(name="64 texts, closed loop", agents=max(1, agents // 4), texts=64, provider_ms=provider_ms),
        Scenario(name=f"1 text, {rate:g}/s offered", agents=agents, rate=rate, provider_ms=100.0),
    ]
