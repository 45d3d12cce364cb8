"""Endpoints that are deployed, on a fold without a log, and providers that tell what was done with them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.providers import registry
from domain.catalogue import Endpoint
from domain.endpoints import Endpoints
from domain.events import CredentialSet, DeploymentChanged, EndpointSpec
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError

DIMENSIONS = 16
CALL = EmbedCall(["a text"], "m", 5.0)


def _vector(text: str) -> NDArray[np.float32]:
    """The vector of this text alone."""
    seed = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)


class Telling:
    """A provider of the endpoint and the key that it was opened with. `fault` by the method's name: what it raises."""

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str], key: str | None) -> None:
        self.endpoint = endpoint
        self.environ = environ
        self.key = key
        self.closed = False
        self.calls = 0
        self.called = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.faults: dict[str, Exception] = {}
        self.scale = np.ones(DIMENSIONS, dtype=np.float32)

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        assert not self.closed
        self.calls += 1
        self.called.set()
        await self.gate.wait()
        assert not self.closed, "a provider is closed after its calls"
        return EmbedAnswer(np.stack([_vector(str(text)) for text in call.texts]) * self.scale, len(call.texts))

    async def warm_up(self) -> None:
        await self._do("warm_up")

    async def check(self, timeout: float) -> None:
        await self._do("check")

    async def close(self) -> None:
        self.closed = True

    async def _do(self, what: str) -> None:
        if what in self.faults:
            raise self.faults[what]
        await self.gate.wait()


class Tellers:
    """Opens such providers, under the name `told` while `installed`. `refuse`: what opening raises."""

    def __init__(self) -> None:
        self.opened: list[Telling] = []
        self.refuse: Exception | None = None
        self.faults: dict[str, ProviderError | Exception] = {}
        self.shut = False
        self.drifted = False

    def open(self, endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Telling:
        if self.refuse is not None:
            raise self.refuse
        made = Telling(endpoint, environ, key)
        made.faults = dict(self.faults)
        if self.shut:
            made.gate.clear()
        if self.drifted:
            made.scale = np.where(np.arange(DIMENSIONS) % 2, 1, -1).astype(np.float32)
        self.opened.append(made)
        return made

    def install(self, monkeypatch: Any, *, name: str = "told", **facts: Any) -> Tellers:
        """Make it the provider `name` for the time of a test."""
        monkeypatch.setitem(registry.PROVIDERS, name, registry.ProviderFacts(self.open, **{"key": "none", **facts}))
        return self

    @property
    def last(self) -> Telling:
        return self.opened[-1]

    @property
    def open_now(self) -> list[Telling]:
        return [one for one in self.opened if not one.closed]


def deployed(endpoints: Endpoints, name: str, state: str = "ready", **fields: Any) -> Endpoint | None:
    """Fold that an endpoint is deployed, or steps on; returns it where it serves."""
    owner = fields.pop("owner", None)
    spec = EndpointSpec(**{"provider": "told", "models": {"m": ""}, **fields})
    step = DeploymentChanged(name, fields.pop("deployment", "d1"), "m", state, 1, spec=spec, owner=owner)
    endpoints.apply(owner or "_system", step)
    return endpoints.ready.get(name)


def credential(endpoints: Endpoints, tenant: str, name: str, revision: int) -> None:
    """Fold that a credential was set."""
    endpoints.apply(tenant, CredentialSet(name, "told", revision))
