"""A TCP relay in front of a server, to break the network between it and its clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from keystore_harness.ports import free_port

_PIECE = 1 << 16
# Closing with this sends RST instead of FIN: the peer sees a reset connection.
_RESET = struct.pack("ii", 1, 0)


class Relay:
    """Passes TCP connections from a port of its own to a server's. Use it as a context manager.

    Args:
        target: The server's port on 127.0.0.1.

    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self._losing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Reset every connection there is now; new ones are let through."""
        self._call(self._reset())

    @contextlib.contextmanager
    def losing_answers(self) -> Iterator[None]:
        """Let requests through and lose what is answered; at the end those connections are reset."""
        self._losing = True
        try:
            yield
        finally:
            self.cut()
            self._losing = False

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, back_writer}
        try:
            await asyncio.gather(
                self._pass(reader, back_writer, answers=False), self._pass(back_reader, writer, answers=True)
            )
        finally:
            self._writers -= {writer, back_writer}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE):
                if not (answers and self._losing):
                    writer.write(piece)
                    await writer.drain()
        writer.close()

    async def _reset(self) -> None:
        for writer in list(self._writers):
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        await self._reset()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
