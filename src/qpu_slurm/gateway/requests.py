# SPDX-License-Identifier: Apache-2.0
"""What all routes share: they log and count requests, and read bodies as they arrive."""

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

ANSWER = "answer"
"""What a request has that speaks a dialect with errors of another shape than IBM's: what writes them."""

SMALL = 1 << 16
"""Bytes of a body that is held in memory: no more than a connection's buffers."""

_PATIENCE = 60.0
"""Seconds that a client may pause within a large body or a large answer."""

_SLOWEST = 1 << 14
"""Bytes per second that a client has to transfer on average. Slower ones would keep a connection for days."""

_LONGEST_PATH = 256

_log = structlog.get_logger(__name__)


def begin(request: web.Request, user_id: int) -> None:
    """Log a request as soon as its user is known, whatever its outcome.

    Raises:
        ApiError: The user has too many requests under way.
    """
    gateway = request.app[GATEWAY]
    gateway.limiter.use(request.protocol, user_id, limited=user_id not in gateway.trusted)
    gateway.metrics.note_client(request.headers)
    _log.info("request begins", **described(request))


def described(request: web.Request) -> dict[str, object]:
    """Return a request's fields for the log: the user and the path, but no query, header or body."""
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


# Bodies of requests.


class Pace:
    """Measures how fast a client transfers a body."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._bytes = 0

    def passed(self, count: int) -> None:
        """Count bytes that were transferred."""
        self._bytes += count

    def seconds_left(self) -> float:
        """Return how long the client has for the next piece."""
        slow = Deadline.after(_PATIENCE + self._bytes / _SLOWEST, since=self._begin)
        return min(_PATIENCE, slow.left)


def _never_came() -> ApiError:
    return ApiError(408, "The rest of the request did not arrive in time.", "Send it again.")


async def pieces(request: web.Request) -> AsyncIterator[bytes]:
    """Read a body in pieces.

    Raises:
        ApiError: The client stops sending, or sends too slowly.
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
    """Read a small body.

    Raises:
        ApiError: It is too large, or does not arrive in time.
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
