# SPDX-License-Identifier: Apache-2.0
"""What passes between systemd and a service: sockets that it holds, sd_listen_fds(3), and sd_notify(3)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

_FIRST_PASSED = 3
"""SD_LISTEN_FDS_START: the first descriptor after standard input, output and error."""


def supervised() -> bool:
    """Tell whether there is a supervisor that wants to hear from this process."""
    return os.environ.get("NOTIFY_SOCKET", "").startswith(("/", "@"))


def notify(state: str) -> None:
    """Tell the supervisor something, such as `READY=1`; nothing happens where there is none.

    A supervisor that does not listen is no reason to fail.
    """
    if not supervised():
        return
    address = os.environ["NOTIFY_SOCKET"]
    if address.startswith("@"):  # a socket in the kernel's own name space
        address = f"\0{address[1:]}"
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), address)


def passed_sockets() -> list[socket.socket]:
    """Take the sockets that the supervisor holds for this process; empty if it holds none.

    They are taken once, and no program that this process starts inherits them.

    Raises:
        OSError: What was passed is no socket.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    descriptors = range(_FIRST_PASSED, _FIRST_PASSED + int(count))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - os has it so
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]


def watchdog_seconds() -> float | None:
    """Return how often the supervisor wants to hear that we are alive; None if it does not."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1_000_000
