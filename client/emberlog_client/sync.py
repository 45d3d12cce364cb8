"""The same client for code without an event loop."""

from __future__ import annotations

import asyncio
import ssl as tls
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, TypeVar, Unpack

from .calls import Progress
from .client import Client, Options
from .results import Chunk, Estimate, Result
from .streams import EmbeddingStream
from .types import Limits, Preferences, Registration, Session

T = TypeVar("T")


class CallOptions(Options, total=False):
    """What `SyncClient.generate` takes beside the texts; `Client.generate` explains each."""

    dry_run: bool
    id: str | None
    progress: Progress | None


class StreamOptions(Options, total=False):
    """What `SyncClient.stream` takes beside the texts."""

    id: str | None
    progress: Progress | None


class ClientOptions(TypedDict, total=False):
    """What `SyncClient` takes beside address and key; `Client` explains each."""

    agent: str
    agent_name: str | None
    agent_version: str | None
    preferences: Preferences | None
    connect_timeout: float
    max_attempts: int
    max_message_bytes: int
    ssl: tls.SSLContext | None
    proxy: str | Literal[True] | None


class SyncClient:
    """`Client` with blocking methods; may be used from several threads at once.

    Its event loop runs in a thread of its own, where `progress` is called too. Use it as a context manager, or `close` it.
    """

    def __init__(self, url: str, key: str, **options: Unpack[ClientOptions]) -> None:
        self._client = Client(url, key, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="emberlog-client", daemon=True)
        self.closed = False
        """Whether `close` was called."""
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Sync{repr(self._client)[1:]}"

    def __enter__(self) -> Self:
        try:
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self) -> Session:
        """See `Client.connect`."""
        return self._wait(self._client.connect())

    def close(self) -> None:
        """Close the connection and end the thread. Idempotent."""
        if self.closed:
            return
        self._wait(self._client.close())
        self.closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def session(self) -> Session:
        """See `Client.session`."""
        return self._client.session

    @property
    def limits(self) -> Limits:
        """See `Client.limits`."""
        return self._client.limits

    def generate(self, texts: str | Sequence[str], **options: Unpack[CallOptions]) -> Result:
        """See `Client.generate`. An interrupt (ctrl-C) cancels the request."""
        return self._wait(self._client.generate(texts, **options))

    def stream(self, texts: str | Sequence[str], **options: Unpack[StreamOptions]) -> SyncStream:
        """See `Client.stream`: `for chunk in c.stream(texts)`, then `.result`."""

        async def start() -> EmbeddingStream:
            return self._client.stream(texts, **options)

        return SyncStream(self, self._wait(start()))

    def estimate(self, texts: str | Sequence[str], **options: Unpack[Options]) -> Estimate:
        """See `Client.estimate`."""
        return self._wait(self._client.estimate(texts, **options))

    def register(
        self,
        preferences: Preferences,
        *,
        capabilities: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Registration:
        """See `Client.register`."""
        return self._wait(self._client.register(preferences, capabilities=capabilities, metadata=metadata))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self.closed:
            work.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


class SyncStream:
    """A streamed answer, iterated by blocking code. Leaving the loop early cancels the request."""

    def __init__(self, client: SyncClient, stream: EmbeddingStream) -> None:
        self._client = client
        self._stream = stream

    @property
    def result(self) -> Result:
        """See `EmbeddingStream.result`."""
        return self._stream.result

    def __iter__(self) -> Iterator[Chunk]:
        chunks = self._stream.__aiter__()

        async def following() -> Chunk | None:
            return await anext(chunks, None)

        try:
            while (chunk := self._client._wait(following())) is not None:
                yield chunk
        finally:
            if not self._client.closed:
                self._client._wait(self._stream.aclose())
