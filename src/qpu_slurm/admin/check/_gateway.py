# SPDX-License-Identifier: Apache-2.0
"""What `qpu-slurm check` looks at on the way to the gateway."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from qpu_slurm.admin.check._finding import Finding, Level
from qpu_slurm.errors import QpuSlurmError
from qpu_slurm.system import munge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config, GatewayConfig

_ANSWER_SECONDS = 5


def is_here(config: Config) -> bool:
    """Tell whether this is the host of keys and journal: the gateway's, or, without one, the controller."""
    if config.gateway is None:
        return True
    host = urlsplit(config.gateway.url).hostname
    with suppress(OSError):
        for family, *_, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
                # Only an address of this machine can be bound.
                probe.bind(address)
                return True
    return False


def check(config: Config) -> Iterator[Finding]:
    """Look at MUNGE, and at whether the gateway answers."""
    if config.gateway is None:
        return
    yield _munge(config)
    yield _answer(config.gateway)


def _munge(config: Config) -> Finding:
    try:
        caller = munge.decode(
            munge.encode(b"", socket=config.slurm.munge_socket), socket=config.slurm.munge_socket
        )
    except QpuSlurmError as error:
        return Finding(Level.PROBLEM, "MUNGE", f"{error} Start munged; see `munge_socket` in [slurm].")
    if caller.uid != os.geteuid():
        return Finding(Level.PROBLEM, "MUNGE", f"takes user {os.geteuid()} for user {caller.uid}.")
    return Finding(Level.OK, "MUNGE", "makes and reads credentials")


def _answer(gateway: GatewayConfig) -> Finding:
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(
                f"{gateway.url}/healthz",
                timeout=_ANSWER_SECONDS,
                verify=str(gateway.ca) if gateway.ca else True,
            )
    except OSError as error:  # requests' errors are OSErrors
        # Without urllib3's words on which of its objects it was.
        why = str(error).rpartition(": ")[2].rstrip("\"')")
        text = f"{gateway.url} does not answer: {why}. Is qpu-slurm-gateway up?"
        return Finding(Level.PROBLEM, "gateway", text)
    if not answer.ok:
        text = f"{gateway.url} answers that it is not well: {answer.status_code} {answer.text[:200].strip()}"
        return Finding(Level.PROBLEM, "gateway", text)
    return Finding(Level.OK, "gateway", f"{gateway.url} answers")
