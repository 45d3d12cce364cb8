"""A rig for providers that speak HTTP: the simulated server with the provider's own API, and the adapter opened at it.

A provider's API is a `WireApi` (`gateway.bench.wire_api`). For one that answers JSON, `rows_of` gives the vectors as a fault spoils them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from domain.ports.provider import EmbedCall, Provider, ProviderError
from gateway.bench.faults import Control, Fault
from gateway.bench.simulator import Simulator, Stats
from gateway.bench.tokens import bytes_of_tokens
from gateway.bench.vectors import vector_of
from gateway.bench.wire_api import Asked
from tests.conformance.provider_contract import KEY

Open = Callable[[str, int, str], Provider]
"""Opens the adapter: the server's root (`http://127.0.0.1:PORT`), the most connections, the key."""


class HttpRig:
    """Implements `provider_contract.Rig` on a running simulator."""

    def __init__(self, simulator: Simulator, model: str, opens: Open) -> None:
        self.simulator = simulator
        self.model = model
        self._opens = opens

    def open(self, *, max_concurrency: int = 4, key: str = KEY, port: int | None = None) -> Provider:
        url = self.simulator.url if port is None else f"http://127.0.0.1:{port}"
        return self._opens(url, max_concurrency, key)

    def fault(self, fault: Fault) -> None:
        self.simulator.control(Control(faults=[fault]))

    def hold(self, on: bool) -> None:
        self.simulator.control(Control(hold=on))

    def stats(self) -> Stats:
        return self.simulator.stats

    async def calls(self, count: int) -> Stats:
        await self.simulator.until(lambda stats: stats.calls >= count)
        return self.simulator.stats

    async def abandoned(self, count: int) -> None:
        await self.simulator.until(lambda stats: stats.abandoned >= count)

    def vector(self, text: str, dimensions: int) -> NDArray[np.float32]:
        return vector_of(text, dimensions)

    def tokens(self, text: str) -> int:
        return self.simulator.count(text)

    def input_type(self) -> object:
        assert self.simulator.asked is not None, "no call was taken yet"
        return self.simulator.asked.input_type


async def failure(rig: HttpRig, provider: Provider, call: EmbedCall, fault: Fault | None = None) -> ProviderError:
    """What a call fails with, while the server does as told."""
    if fault is not None:
        rig.fault(fault)
    with pytest.raises(ProviderError) as caught:
        await provider.embed(call)
    return caught.value


def said(body: str, status: int = 400) -> Fault:
    """This very body."""
    return Fault("status", status=status, body=body)


def rows_of(asked: Asked, fault: Fault | None) -> tuple[list[int], list[NDArray[np.float32]]]:
    """The indices and vectors of an answer, spoilt as `fault` says; what concerns the body's form is the API's (`bad_base64`, `no_usage`)."""
    kind = fault.kind if fault is not None else None
    size = asked.dimensions - 1 if kind == "wrong_dimensions" else asked.dimensions
    texts = [text if isinstance(text, str) else bytes_of_tokens(text) for text in asked.texts]
    if kind == "drifted":
        texts = [f"another model's {text!r}" for text in texts]
    rows = [vector_of(text, size) for text in texts]
    indices = list(range(len(rows)))
    if kind == "wrong_count":
        rows.pop()
        indices.pop()
    elif kind == "too_many":
        rows.append(rows[-1])
        indices.append(len(indices))
    elif kind == "shuffled":
        rows.reverse()
        indices.reverse()
    elif kind == "same_index":
        indices = [0] * len(indices)
    elif kind == "ragged":
        rows[-1] = rows[-1][:-1]
    elif kind in ("nan", "infinity"):
        rows[-1] = rows[-1].copy()
        rows[-1][-1] = np.nan if kind == "nan" else np.inf
    return indices, rows
