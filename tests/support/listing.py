"""Providers that have a list of models, and nothing else that works."""

from __future__ import annotations

import asyncio

from domain.ports.lists_models import ListedModel, Listing
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault


class Unlisted:
    """A provider without a list."""

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        raise ProviderError(ProviderFault.SERVER, "embeds nothing")

    async def warm_up(self) -> None:
        pass

    async def check(self, timeout: float) -> None:
        pass

    async def close(self) -> None:
        pass


class Listed(Unlisted):
    """Answers `listing`, or raises `fault`; waits for `go` before. `asked` counts."""

    def __init__(self, *names: str) -> None:
        self.listing: Listing | None = Listing([])
        self.fault: Exception | None = None
        self.asked = 0
        self.go = asyncio.Event()
        self.go.set()
        self.says(*names)

    def says(self, *names: str, garbled: int = 0) -> None:
        self.listing = Listing([ListedModel(name, embeds=True) for name in names], garbled)

    async def list_models(self, timeout: float) -> Listing | None:
        self.asked += 1
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        return self.listing
