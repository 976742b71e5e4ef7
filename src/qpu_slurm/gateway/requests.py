# SPDX-License-Identifier: Apache-2.0
"""What all routes share: a request is logged and counted, and its body read no faster than it comes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from qpu_slurm.gateway.answers import ApiError, too_large
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

SMALL = 1 << 16
"""Bytes up to which a body is held in memory: no more than a connection's buffers."""

_PATIENCE = 60.0
"""Seconds that a client may send nothing of a large body, or take nothing of a large answer."""

_SLOWEST = 1 << 14
"""Bytes a second that a client has to send or to take on the whole, else it keeps a connection for days."""

_LONGEST_PATH = 256

_log = structlog.get_logger(__name__)


def begin(request: web.Request, user_id: int) -> None:
    """Note and log a request as soon as it is known whose it is: whatever comes of it, the log has it.

    Raises:
        ApiError: The user has too many under way.
    """
    gateway = request.app[GATEWAY]
    gateway.limiter.use(request.protocol, user_id, limited=user_id not in gateway.trusted)
    _log.info("request begins", **described(request))


def described(request: web.Request) -> dict[str, object]:
    """Return what the log says of a request: who asks for what; neither queries nor headers nor bodies."""
    fields: dict[str, object] = {
        "request": request["number"],
        "method": request.method,
        "path": request.path[:_LONGEST_PATH],
        "peer": request.remote,
    }
    caller = request.get("caller")
    if caller is not None:
        lease = caller.lease
        fields |= {"job_id": lease.job_id, "user_id": lease.user_id, "qpu": lease.qpu, "lease": lease.id}
    return fields | {name: request[name] for name in ("user_id", "why") if name in request}


# Bodies that come in.


class Pace:
    """Follows how fast a client sends or takes a body."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._bytes = 0

    def passed(self, count: int) -> None:
        """Note that some more bytes have passed."""
        self._bytes += count

    def seconds_left(self) -> float:
        """Return how long the client has for the next piece."""
        slow = Deadline.after(_PATIENCE + self._bytes / _SLOWEST, since=self._begin)
        return min(_PATIENCE, slow.left)


def _never_came() -> ApiError:
    return ApiError(408, "The rest of the request did not arrive in time.", "Send it again.")


async def pieces(request: web.Request) -> AsyncIterator[bytes]:
    """Read a body piece by piece, as long as the client goes on sending.

    Raises:
        ApiError: It does not, or too slowly.
    """
    pace = Pace()
    while True:
        try:
            async with asyncio.timeout(pace.seconds_left()):
                piece = await request.content.readany()
        except TimeoutError:
            raise _never_came() from None
        if not piece:
            return
        pace.passed(len(piece))
        yield piece


async def small_body(request: web.Request, limit: int = SMALL) -> bytes:
    """Read a body that has to be small.

    Raises:
        ApiError: It is not, or does not come.
    """
    body = bytearray()
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    try:
        async with asyncio.timeout(request.app[GATEWAY].settings.request_timeout):
            while piece := await request.content.readany():
                body += piece
                if len(body) > limit:
                    raise too_large(limit)
    except TimeoutError:
        raise _never_came() from None
    return bytes(body)
