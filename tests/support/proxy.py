"""A TCP proxy between a client and a server, for tests of what happens when the line is cut or goes silent."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from urllib.parse import parse_qs, urlsplit


class CuttingProxy:
    """Listens on a loopback port and forwards to `target`: (host, port), or the path of a Unix socket.

    `cut` drops every open connection by reset, `cut_after` in the middle of what is being said; `refuse` makes new ones fail; `pause`
    stops all bytes both ways, connections stay and new ones are taken.
    """

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._left: dict[str, int] = {}
        self.cuts = 0
        """Times that `cut_after` has cut."""
        self.accepted = 0
        """Connections taken so far."""

    @classmethod
    def before_postgres(cls, dsn: str) -> CuttingProxy:
        """A proxy before the Unix socket that a connection string names."""
        query = parse_qs(urlsplit(dsn).query)
        return cls(f"{query['host'][0]}/.s.PGSQL.{query.get('port', ['5432'])[0]}")

    @classmethod
    def before_redis(cls, url: str) -> CuttingProxy:
        """A proxy before the Unix socket that a `unix://` URL names."""
        return cls(urlsplit(url).path)

    @property
    def port(self) -> int:
        assert self._server is not None, "enter the proxy first"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def postgres_dsn(self, dsn: str) -> str:
        """`dsn`, but through this proxy."""
        parts = urlsplit(dsn)
        return f"postgresql://{parts.username}@127.0.0.1:{self.port}{parts.path}?sslmode=disable"

    def redis_url(self) -> str:
        """A URL that leads through this proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Reset every open connection, on both sides; what was on its way is lost."""
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()

    def cut_after(self, *, asked: int | None = None, answered: int | None = None) -> None:
        """Cut once so many further bytes have gone to the server, or so many from it: the last of them still arrives, the next not."""
        given = {"asked": asked, "answered": answered}
        self._left = {way: count for way, count in given.items() if count is not None}

    def refuse(self, yes: bool = True) -> None:
        """Drop new connections at once (or take them again)."""
        self._refusing = yes

    def pause(self) -> None:
        """Hold all bytes back: the line is silent, nobody is told."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let what was held back go on."""
        self._flowing.set()

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.resume()
        self.cut()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            if self._refusing:
                writer.transport.abort()
                return
            self.accepted += 1
            await self._join(reader, writer)
        finally:
            self._handlers.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if isinstance(self._target, str):
                far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            else:
                far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump("asked", reader, far_writer), self._pump("answered", far_reader, writer))
        finally:
            self._pairs.discard(pair)
            for end in pair:
                end.transport.abort()

    async def _cut_within(self, sink: asyncio.StreamWriter, data: bytes) -> None:
        """Send the beginning, end this direction in order so that it arrives, then cut everything."""
        self._left = {}
        self.cuts += 1
        sink.write(data)
        sink.write_eof()
        await sink.drain()
        self.cut()

    async def _pump(self, way: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._flowing.wait()
                left = self._left.get(way)
                if left is not None:
                    self._left[way] = left - len(data)
                    if left < len(data):
                        await self._cut_within(sink, data[:left])
                        return
                sink.write(data)
                await sink.drain()
        with contextlib.suppress(OSError, RuntimeError):
            sink.write_eof()
