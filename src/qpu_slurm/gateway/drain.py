# SPDX-License-Identifier: Apache-2.0
"""How the gateway stops without losing a request: it accepts no connection, and answers all that it has.

A client that keeps its connection may send the next request at the moment in which the gateway closes it.
Such a request would be lost. So a connection is closed by the answer to a request, which says so
(`Connection: close`), wherever possible. One on which nothing has come for a second is ended with a 503; see
`Connection.end`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from qpu_slurm.gateway.connections import ConnectionLimiter

SECONDS = 10.0
"""How long requests that are under way may take yet. Clients wait meanwhile, for the next gateway."""

_SILENCE = 1.0
"""Seconds without a request after which a connection is ended: many clients ask twice a second."""

_ON_ITS_WAY = 0.5
"""Seconds for a request to arrive that was sent as its connection was ended."""

_TURN = 0.02

_log = structlog.get_logger(__name__)


async def drain(limiter: ConnectionLimiter) -> None:
    """Answer what is under way or comes on open connections, until they are closed or `SECONDS` are over.

    Args:
        limiter: The connections; nothing accepts new ones any more.
    """
    limiter.draining = True
    begin = now = time.monotonic()
    while now < begin + SECONDS:
        # First, so that a connection that was accepted just now is one of the limiter's.
        await asyncio.sleep(_TURN)
        now = time.monotonic()
        # How long it was silent before does not count: its next request may be about to come.
        left = limiter.end_silent(now - _SILENCE) if now >= begin + _SILENCE else limiter.open
        # Something may be in the middle of a TLS handshake, of which a limiter knows no end if it fails.
        if not left and (now > begin + 2 * _SILENCE or not limiter.arriving):
            break
    else:
        _log.warning("requests are cut off: they took too long", connections=limiter.end_silent(now))
    if limiter.ended:
        await asyncio.sleep(_ON_ITS_WAY)
