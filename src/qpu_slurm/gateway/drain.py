# SPDX-License-Identifier: Apache-2.0
"""Stops the gateway without losing a request: it accepts no new connections, and answers all requests.

A client that keeps its connection may send its next request just when the gateway closes it, and that request
would be lost. So wherever possible, the answer to a request closes the connection (`Connection: close`). A
connection that was silent for a second is ended with a 503; see `Connection.end`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from qpu_slurm.gateway.connections import ConnectionLimiter

SECONDS = 10.0
"""How long requests under way may still take. Other clients wait for the next gateway meanwhile."""

_SILENCE = 1.0
"""Seconds without a request after which a connection is ended. Many clients poll twice a second."""

_ON_ITS_WAY = 0.5
"""Seconds in which a request may arrive that was sent while its connection was being ended."""

_TURN = 0.02

_log = structlog.get_logger(__name__)


async def drain(limiter: ConnectionLimiter) -> None:
    """Answer requests on open connections until all are closed, for at most `SECONDS`.

    Args:
        limiter: The connections. The gateway accepts no new ones any more.
    """
    limiter.draining = True
    silence, handshakes, end = (Deadline.after(seconds) for seconds in (_SILENCE, 2 * _SILENCE, SECONDS))
    while not end.passed:
        # First, so that a connection that was accepted just now is one of the limiter's.
        await asyncio.sleep(_TURN)
        # Silence before the drain does not count: a request may be on its way.
        left = limiter.end_silent(time.monotonic() - _SILENCE) if silence.passed else limiter.open
        # A connection may be in its TLS handshake. If that fails, the limiter is not notified.
        if not left and (handshakes.passed or not limiter.arriving):
            break
    else:
        cut_off = limiter.end_silent(time.monotonic())
        _log.warning("requests are cut off: they took too long", connections=cut_off)
    if limiter.ended:
        await asyncio.sleep(_ON_ITS_WAY)
