"""Agents of several tenants that ask, stream, repeat themselves, give up and share texts, each for itself and all at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any

from domain.errors import GatewayError
from domain.tenancy import Principal
from gateway.service.service import Ticket
from gateway.wire.messages import EmbeddingGenerate
from tests.support.chaos.places import MOST_WORDS
from tests.support.chaos.plans import POISON, Plan
from tests.support.chaos.site import TENANTS, Site
from tests.unit.service.conftest import Recorder

AGENTS = 4
"""Of each tenant."""
PATIENCE_MS = 8_000
"""The deadline of a request that is not to meet it."""
GRACE = 2.0
"""Seconds beyond its deadline that a request is waited for."""
SHARED = [f"what everybody asks {i}" for i in range(5)]


@dataclass
class Asked:
    """A request and what came of it; `refusal` is what was said at once. `bad`: a text of it is too long, or poison."""

    tenant: str
    message: EmbeddingGenerate
    texts: list[str]
    bad: bool = False
    gives_up: bool = False
    hurries: bool = False
    first: Asked | None = None
    """The request whose id it repeats."""
    reply: Recorder = field(default_factory=Recorder)
    ticket: Ticket | None = None

    @property
    def its_own(self) -> bool:
        """Whether nobody else asks for any of its texts, so that it pays for each."""
        return not set(self.texts) & set(SHARED)


class Load:
    """`requests` in all are begun, by agents that each wait for an answer before the next. `halfway` is set when half have ended."""

    def __init__(self, site: Site, plan: Plan, requests: int, seed: int) -> None:
        self.asked: list[Asked] = []
        self.halfway = asyncio.Event()
        self._site = site
        self._plan = plan
        self._wanted = requests
        self._begun = self._ended = 0
        self._seed = seed

    async def run(self) -> None:
        """Returns when every agent has been told what became of its last request, or has waited in vain."""
        await asyncio.gather(*(self._agent(tenant, f"agent-{i}") for tenant in TENANTS for i in range(AGENTS)))
        self.halfway.set()

    async def _agent(self, tenant: str, name: str) -> None:
        rng, number = Random(f"{self._seed} {tenant} {name}"), 0
        while self._begun < self._wanted:
            self._begun += 1
            number += 1
            one = self._ask(rng, tenant, f"{name}-{number}")
            self._send(one, name)
            if rng.random() < 0.15:
                again = Asked(tenant, one.message, one.texts, one.bad, hurries=one.hurries, first=one)
                if rng.random() < 0.5:
                    await self._end(one, rng)
                else:
                    await asyncio.sleep(0)
                self._send(again, name)
                await self._end(again, rng)
            await self._end(one, rng)
            self._ended += 1
            if self._ended * 2 >= self._wanted:
                self.halfway.set()

    def _ask(self, rng: Random, tenant: str, id_: str) -> Asked:
        texts = [
            f"{tenant} {id_} text {i}" + " word" * rng.randrange(8) for i in range(rng.choice([1, 1, 2, 3, 5, 12]))
        ]
        if rng.random() < 0.3:
            texts[rng.randrange(len(texts))] = rng.choice(SHARED)
        if rng.random() < 0.2:
            texts.append(texts[0])
        bad = self._plan.of_texts and rng.random() < 0.2
        if bad:
            long = f"{tenant} {id_} {self._site.place.long_text}"
            texts[rng.randrange(len(texts))] = long if self._plan.long_texts else f"{POISON}, says {tenant} {id_}"
        options: dict[str, Any] = {"deadline_ms": PATIENCE_MS, "model": "m"}
        options["failover"] = rng.choice([None, None, None, "any", "none"])
        options["stream"] = rng.random() < 0.2
        options["cache"] = rng.choice(["use", "use", "refresh", "off"])
        hurries = rng.random() < 0.05
        if hurries:
            options["deadline_ms"] = rng.randrange(1, 60)
        message = EmbeddingGenerate(id=id_, input=texts, **options)
        return Asked(tenant, message, texts, bad, gives_up=rng.random() < 0.1, hurries=hurries)

    def _send(self, one: Asked, agent: str) -> None:
        principal = Principal(f"key-of-{one.tenant}", one.tenant, frozenset({"agent"}))
        self.asked.append(one)
        try:
            one.ticket = self._site.service.generate(principal, agent, one.message, one.texts, one.reply)
        except GatewayError as error:
            one.reply.error(error)

    async def _end(self, one: Asked, rng: Random) -> None:
        if one.gives_up and not one.reply.done.is_set():
            await asyncio.sleep(rng.choice([0.0, 0.001, 0.01, 0.05]))
            if one.ticket is not None and not one.reply.done.is_set():
                one.ticket.cancel()
        try:
            async with asyncio.timeout(PATIENCE_MS / 1000 + GRACE):
                await one.reply.done.wait()
        except TimeoutError:
            pass  # the audit will find it


assert MOST_WORDS > 20, "no text but those that are meant to be is too long"
