"""A TCP proxy that misbehaves on request."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class Mode(Enum):
    PASS = auto()
    REFUSE = auto()
    """Connections are closed as they come."""
    BLACK_HOLE = auto()
    """Connections stay open and nothing comes through either way (a half-open socket)."""
    SWALLOW_REPLIES = auto()
    """Requests reach the server, its answers get lost."""


class TcpProxy:
    """Stands between a client and a server. Give the client :attr:`url`."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._mode = Mode.PASS
        self.delay = 0.0
        """Seconds that each piece of an answer takes longer, as over a long way."""
        self._links: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The target's URL with the proxy's address."""
        return urlunsplit(self._target._replace(netloc=f"127.0.0.1:{self._port}"))

    @property
    def connections(self) -> int:
        return len(self._links)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._close_links()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        self._mode = Mode.REFUSE
        self._close_links()

    def black_hole(self) -> None:
        """Let nothing through any more, without closing anything."""
        self._mode = Mode.BLACK_HOLE

    def swallow_replies(self) -> None:
        """Let requests through and drop the answers."""
        self._mode = Mode.SWALLOW_REPLIES

    def restore(self) -> None:
        """Behave. Connections that missed bytes are broken, as they could not go on."""
        if self._mode in (Mode.BLACK_HOLE, Mode.SWALLOW_REPLIES):
            self._close_links()
        self._mode = Mode.PASS

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.REFUSE:
            writer.close()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.close()
            return
        self._links[writer] = up_writer
        for source, sink, replies in ((reader, up_writer, False), (up_reader, writer, True)):
            task = asyncio.get_running_loop().create_task(self._pump(source, sink, replies=replies))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool) -> None:
        try:
            while data := await source.read(65536):
                if self._mode is Mode.BLACK_HOLE or (replies and self._mode is Mode.SWALLOW_REPLIES):
                    continue
                if replies and self.delay:
                    await asyncio.sleep(self.delay)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
            self._links.pop(sink, None)

    def _close_links(self) -> None:
        for down, up in list(self._links.items()):
            for writer in (down, up):
                writer.transport.abort()
        self._links.clear()
