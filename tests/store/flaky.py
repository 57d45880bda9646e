"""Losing EXEC: a proxy in front of the real server, a hook of the twin."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from holdfast_store.kv import Ambiguous, Cmd, Kv
from holdfast_store.memory_kv import MemoryKv, MemoryServer, Stage
from holdfast_store.redis_kv import RedisKv


class Flaky(Protocol):
    """``kv`` loses the next EXEC as told, once."""

    kv: Kv

    def lose_reply(self) -> None:
        """The server carries the next EXEC out, its answer is lost."""

    def lose_request(self) -> None:
        """The next EXEC never reaches the server."""


class FlakyMemory:
    def __init__(self, server: MemoryServer) -> None:
        self.kv = MemoryKv(server, self._hook)
        self._lose: Stage | None = None

    def lose_reply(self) -> None:
        self._lose = "committed"

    def lose_request(self) -> None:
        self._lose = "commit"

    async def _hook(self, stage: Stage, cmds: Sequence[Cmd]) -> None:
        await asyncio.sleep(0)
        if stage == self._lose:
            self._lose = None
            raise Ambiguous("lost on purpose")


class ExecProxy:
    """A TCP proxy that looks for EXEC. Transactions of the tests fit into one read."""

    def __init__(self, url: str) -> None:
        self._host, self._port = str(urlsplit(url).hostname), int(urlsplit(url).port or 0)
        self._lose = ""
        self._held: tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 22)
        port = self._server.sockets[0].getsockname()[1]
        self.kv: RedisKv = RedisKv(f"redis://127.0.0.1:{port}/0")

    async def stop(self) -> None:
        await self.kv.close()
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def lose_reply(self) -> None:
        self._lose = "reply"

    def lose_request(self) -> None:
        self._lose = "request"

    def delay_request(self) -> None:
        """The next EXEC breaks the connection, but reaches the server when :meth:`deliver` is called."""
        self._lose = "delay"

    async def deliver(self) -> bytes:
        """Hand the delayed EXEC to the server; what it answers."""
        assert self._held is not None
        up_reader, up_writer, data = self._held
        up_writer.write(data)
        return await asyncio.wait_for(up_reader.read(65536), 5)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        back = asyncio.create_task(_copy(up_reader, writer))
        try:
            while data := await reader.read(1 << 20):
                if b"EXEC\r\n" in data and self._lose:
                    lose, self._lose = self._lose, ""
                    back.cancel()
                    await asyncio.gather(back, return_exceptions=True)
                    if lose == "delay":
                        self._held = (up_reader, up_writer, data)
                    elif lose == "reply":
                        up_writer.write(data)
                        await up_reader.read(1 << 20)
                    writer.transport.abort()
                    if lose != "delay":
                        up_writer.close()
                    return
                up_writer.write(data)
                await up_writer.drain()
        finally:
            self._tasks.discard(task)
            back.cancel()
            writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 20):
        sink.write(data)
        await sink.drain()
