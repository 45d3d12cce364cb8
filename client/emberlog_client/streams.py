"""A streamed answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType

from .results import Chunk, Result

Run = Callable[[Callable[[Chunk], None]], Awaitable[Result]]


class EmbeddingStream:
    """Vectors as they come: `async for chunk in stream`, then `stream.result`.

    Chunks come in any order and cover each text once, also when the connection was lost in between. They are final only
    once the loop ends without an error. Leaving the loop early cancels the request; `async with` does so without delay.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._chunks: deque[Chunk] = deque()
        self._wake = asyncio.Event()
        self._iterator: AsyncGenerator[Chunk, None] | None = None
        self._task: asyncio.Task[Result] | None = None
        self._result: Result | None = None

    @property
    def result(self) -> Result:
        """The outcome, without vectors. Raises `RuntimeError` before the stream has ended well."""
        if self._result is None:
            raise RuntimeError("the stream has not ended; read `result` after the loop over its chunks")
        return self._result

    def __aiter__(self) -> AsyncGenerator[Chunk, None]:
        if self._iterator is not None:
            raise RuntimeError("a stream can be read once; call `stream` again for another")
        self._iterator = self._iterate()
        return self._iterator

    async def __aenter__(self) -> EmbeddingStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the request if it has not ended. Idempotent; not while another task waits for the next chunk."""
        await self._cancel()
        if self._iterator is not None:
            await self._iterator.aclose()

    async def _cancel(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    def _give(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._wake.set()

    async def _answer(self) -> Result:
        return await self._run(self._give)

    async def _iterate(self) -> AsyncGenerator[Chunk, None]:
        task = self._task = asyncio.get_running_loop().create_task(self._answer())
        task.add_done_callback(self._ended)
        try:
            while True:
                while self._chunks:
                    yield self._chunks.popleft()
                if task.done():
                    break
                self._wake.clear()
                await self._wake.wait()
            self._result = task.result()
        finally:
            await self._cancel()

    def _ended(self, task: asyncio.Task[Result]) -> None:
        if not task.cancelled():
            task.exception()  # seen here even if the caller left the loop before
        self._wake.set()
