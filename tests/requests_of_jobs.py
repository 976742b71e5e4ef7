# SPDX-License-Identifier: Apache-2.0
"""The requests that jobs cause, apart from those that a gateway makes by itself, whenever it pleases."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator import Emulator, RequestRecord

_OF_THE_GATEWAY = re.compile(
    r"POST /identity/token"  # its token for all that follows
    r"|GET /backends"  # which QPUs are available
    r"|GET /workloads"  # which sessions the service has closed, and which came late
    r"|GET /sessions/[^/]+"  # what a session was used for, once it is over
    r"|GET /jobs/[^/]+/metrics"  # likewise its tasks
)


def requests_of_jobs(emulator: Emulator) -> list[RequestRecord]:
    """List what the service was asked, without the requests of a gateway's reaper and accountant."""
    return [
        request
        for request in emulator.requests()
        if not _OF_THE_GATEWAY.fullmatch(f"{request.method} {request.path}")
        # Which tasks a session had that is over.
        and not (request.path == "/jobs" and "session_id=" in request.query)
    ]
