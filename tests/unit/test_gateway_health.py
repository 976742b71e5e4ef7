# SPDX-License-Identifier: Apache-2.0
"""A gateway whose disk hangs is alive, and not ready; integration/test_gateway_process.py has the rest."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from qpu_slurm.gateway.gateway import GATEWAY, Gateway
from qpu_slurm.gateway.pools import Pools
from qpu_slurm.gateway.routes import watch

if TYPE_CHECKING:
    import pytest


def test_a_disk_that_hangs_is_reported_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_READ_SECONDS", 0.05)
    hangs = threading.Event()
    gateway = SimpleNamespace(
        limiter=SimpleNamespace(draining=False),
        observer=SimpleNamespace(find=lambda _: hangs.wait()),
        pools=Pools(),
        damage="",
    )

    async def ask() -> tuple[int, str, int]:
        app = web.Application()
        app[GATEWAY] = cast("Gateway", gateway)
        app.add_routes(watch.ROUTES)
        async with TestClient(TestServer(app)) as client:
            try:
                ready, live = await client.get("/healthz"), await client.get("/healthz/live")
                return ready.status, (await ready.json())["status"], live.status
            finally:
                hangs.set()
                await gateway.pools.stop(5)

    assert asyncio.run(ask()) == (503, "the journal could not be read within 0.05 s", 200)
