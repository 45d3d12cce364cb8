"""Every provider's adapter at its simulated server, as the conformance suites have them: what `chaos` breaks."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters.providers.registry import open_provider
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedAnswer, EmbedCall, Provider
from gateway.bench.faults import Control, Fault
from gateway.bench.simulator import Simulator, SimulatorOptions, Stats
from gateway.bench.vectors import vector_of
from gateway.bench.wire_api import WireApi
from tests.conformance.provider_contract import KEY
from tests.support.bedrock import REGION as AWS_REGION
from tests.support.bedrock import BedrockApi
from tests.support.bedrock_sigv4 import Account as AwsAccount
from tests.support.cohere_api import CohereApi
from tests.support.gemini_api import GeminiApi
from tests.support.jina_api import JinaApi
from tests.support.mistral_api import MistralApi
from tests.support.ports import free_port
from tests.support.proxy import CuttingProxy
from tests.support.vertex_server import REGION as GOOGLE_REGION
from tests.support.vertex_server import Account as GoogleAccount
from tests.support.vertex_server import VertexServer
from tests.support.voyage_api import VoyageApi

MOST_WORDS = 40
"""The longest text, in words, that a simulated server takes; Vertex's takes 2,048."""


class Kind(NamedTuple):
    """A provider and one of its models: its id there, the size of its vectors, the most texts of a call."""

    provider: str
    model: str
    size: int
    max_inputs: int
    api: Callable[[], WireApi] | None = None
    path: str = ""
    options: Mapping[str, str] = {}
    secret: str = KEY


def _azure() -> WireApi:
    from tests.conformance.test_provider_azure import AzureApi

    return AzureApi("v1")


_AWS = AwsAccount("AKIASIMULATED", KEY)
_AWS_SECRET = json.dumps({"aws_access_key_id": _AWS.key, "aws_secret_access_key": KEY})


def _bedrock(model: str, size: int, max_inputs: int) -> Kind:
    return Kind("bedrock", model, size, max_inputs, lambda: BedrockApi(_AWS), "", {"region": AWS_REGION}, _AWS_SECRET)


KINDS = {
    "openai": Kind("openai", "text-embedding-3-small", 1536, 8, None, "/v1"),
    "azure": Kind("azure", "our embeddings", 1536, 8, _azure),
    "cohere": Kind("cohere", "embed-v4.0", 1536, 8, CohereApi),
    "mistral": Kind("mistral", "codestral-embed", 1536, 8, MistralApi),
    "voyage": Kind("voyage", "voyage-4", 1024, 8, VoyageApi, "/v1"),
    "jina": Kind("jina", "jina-embeddings-v4", 2048, 8, JinaApi, "/v1"),
    "bedrock titan": _bedrock("amazon.titan-embed-text-v2:0", 1024, 1),
    "bedrock cohere v3": _bedrock("cohere.embed-english-v3", 1024, 8),
    "bedrock cohere v4": _bedrock("cohere.embed-v4:0", 1536, 8),
    "gemini": Kind("gemini", "gemini-embedding-001", 3072, 8, GeminiApi),
    "vertex": Kind("vertex", "text-embedding-005", 768, 8),
}


class Turnout:
    """A provider that is the one or the other: calls go to `now`."""

    def __init__(self, now: Provider) -> None:
        self.now = now

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        return await self.now.embed(call)

    async def warm_up(self) -> None:
        await self.now.warm_up()

    async def check(self, timeout: float) -> None:
        await self.now.check(timeout)

    async def close(self) -> None:
        await self.now.close()


class Place(NamedTuple):
    """A provider at its server. `gone` is the same adapter at a port where nobody listens."""

    name: str
    kind: Kind
    here: Provider
    gone: Provider
    control: Callable[[Control], None]
    """Faults from now on."""
    stats: Callable[[], Stats]
    """Of the calls that it got since the last reset."""
    long_text: str
    """More than the server takes as one text."""

    def vector(self, text: str) -> NDArray[np.float32]:
        """What its model gives for a text."""
        return vector_of(text, self.kind.size)


@asynccontextmanager
async def place(name: str) -> AsyncIterator[Place]:
    """Start the server of a provider and open its adapter."""
    kind = KINDS[name]
    for variable in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):  # this machine's own proxy is not for servers in this process
        os.environ.pop(variable, None)
        os.environ.pop(variable.upper(), None)
    if kind.provider == "vertex":
        account = GoogleAccount()
        async with VertexServer(account) as server, CuttingProxy(("127.0.0.1", server.port)) as proxy:

            def cut(how: str) -> None:
                if how == "drop":
                    proxy.cut()
                else:
                    proxy.cut_after(answered=1000)

            server.cut = cut
            secret = account.json(private_key_id=KEY)
            url = f"http://127.0.0.1:{proxy.port}"
            async with _opened(kind._replace(options={"region": GOOGLE_REGION}, secret=secret), url) as (here, gone):
                await here.check(30.0)
                yield Place(name, kind, here, gone, server.faults.apply, lambda: server.stats, "word " * 2100)
        return
    options = SimulatorOptions(
        key=None if kind.provider == "bedrock" else KEY, tokens="words", max_inputs=16, max_input_tokens=MOST_WORDS
    )
    async with (
        Simulator(options, kind.api() if kind.api is not None else None) as simulator,
        _opened(kind, simulator.url + kind.path) as (here, gone),
    ):
        await here.warm_up()
        long_text = "word " * (MOST_WORDS + 20)
        yield Place(name, kind, here, gone, simulator.control, lambda: simulator.stats, long_text)


@asynccontextmanager
async def _opened(kind: Kind, url: str) -> AsyncIterator[tuple[Provider, Provider]]:
    opened = []
    for address in (url, f"http://127.0.0.1:{free_port()}{kind.path}"):
        endpoint = Endpoint("a", kind.provider, {}, base_url=address, max_concurrency=8, options=dict(kind.options))
        opened.append(open_provider(endpoint, {}, Path(), kind.secret))
    try:
        yield opened[0], opened[1]
    finally:
        for provider in opened:
            await provider.close()


class Healthy(NamedTuple):
    """A server that does nothing wrong, serving vectors of this size: of the same model (`m`), and of another (`n`)."""

    same: Provider
    other: Provider
    served: dict[str, int]


@asynccontextmanager
async def healthy() -> AsyncIterator[Healthy]:
    """A compatible server of each model's vectors in every size."""
    sizes = {f"served-{size}": size for size in sorted({kind.size for kind in KINDS.values()})}
    options = SimulatorOptions(key=KEY, tokens="words", models=sizes)
    async with Simulator(options) as same, Simulator(options) as other:
        other.control(Control(faults=[Fault("drifted", count=-1)]))
        opened = [
            open_provider(Endpoint(name, "openai", {}, base_url=server.base_url, max_concurrency=8), {}, Path(), KEY)
            for name, server in (("b", same), ("c", other))
        ]
        try:
            yield Healthy(opened[0], opened[1], sizes)
        finally:
            for provider in opened:
                await provider.close()


def drifted(text: str, size: int) -> NDArray[np.float32]:
    """What the other model gives for a text."""
    return vector_of(f"another model's {text}", size)
