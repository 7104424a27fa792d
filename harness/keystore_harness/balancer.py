"""A load balancer as customers put before a cluster: it leads every connection to the active node."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from keystore_harness.ports import free_port

_PIECE = 1 << 16
_INTERVAL_S = 0.2


class Balancer:
    """Passes TCP connections to a port that is chosen again and again. Use it as a context manager.

    Args:
        choose: Returns the port on 127.0.0.1 to lead to, or None for none; it may block.
        port: Where it listens, a free port by default.

    """

    def __init__(self, choose: Callable[[], int | None], port: int = 0) -> None:
        self.port = port or free_port()
        self.target: int | None = None
        self._choose = choose
        self._links: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Balancer:
        self._thread.start()
        self._call(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _begin(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            target = await asyncio.to_thread(self._choose)
            if target != self.target:
                self.target = target
                self._cut()
            await asyncio.sleep(_INTERVAL_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back: asyncio.StreamWriter | None = None
        self._links.add(writer)
        try:
            if self.target is not None:
                back_reader, back = await asyncio.open_connection("127.0.0.1", self.target)
                self._links.add(back)
                await asyncio.gather(_pass(reader, back), _pass(back_reader, writer))
        except OSError:
            pass
        finally:
            for link in (writer, back):
                if link is not None:
                    self._links.discard(link)
                    link.close()

    def _cut(self) -> None:
        for link in list(self._links):
            link.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        self._watcher.cancel()
        self._cut()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    writer.close()
