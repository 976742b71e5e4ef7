# SPDX-License-Identifier: Apache-2.0
"""The socket that the emulator listens on; it may be gone for a while, so that connections are refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator.settings import Settings


class Listener:
    """Serves an application on an address.

    Args:
        app: What is served.
        settings: Where.
    """

    def __init__(self, app: web.Application, settings: Settings) -> None:
        # Answers that are under way, maybe delayed by a fault, are not waited for.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        self._host = settings.host
        self._port = settings.port
        self._site: web.TCPSite | None = None
        self._return: asyncio.Task[None] | None = None
        app[LISTENER] = self

    async def start(self) -> str:
        """Begin to listen; returns the URL."""
        await self._runner.setup()
        await self._listen()
        # A free port was found: it is ours from now on.
        self._port = self._runner.addresses[0][1]
        return f"http://{self._host}:{self._port}"

    async def stop(self) -> None:
        """Stop for good."""
        if self._return is not None:
            self._return.cancel()
        await self._runner.cleanup()

    async def refuse(self, seconds: float, spare: asyncio.BaseTransport | None) -> None:
        """Refuse connections for a while, and cut those that there are.

        Args:
            seconds: How long, in real time: nobody could move the clock meanwhile.
            spare: The connection over which this was asked for.
        """
        if self._site is None:
            return
        site, self._site = self._site, None
        await site.stop()
        for connection in self._runner.server.connections if self._runner.server else ():
            if connection.transport is not None and connection.transport is not spare:
                connection.transport.abort()
        self._return = asyncio.create_task(self._come_back(seconds))

    async def _come_back(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._listen()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
        await self._site.start()


LISTENER = web.AppKey("listener", Listener)
