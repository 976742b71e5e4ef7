# SPDX-License-Identifier: Apache-2.0
"""Starting a program with a socket that it is to listen on, as systemd does for a socket unit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

_START = """\
import os, sys
held = int(sys.argv[1])
if held != 3:
    os.dup2(held, 3)
    os.close(held)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""
"""The protocol of sd_listen_fds(3): descriptor 3, and variables that name the process that it is for."""


def activated(argv: Sequence[str], held: socket.socket | None) -> tuple[list[str], tuple[int, ...]]:
    """Have a program started with a socket.

    Args:
        argv: The program and its arguments.
        held: The socket; None starts the program without one.

    Returns:
        What to start, and the descriptors that it has to inherit.
    """
    if held is None:
        return list(argv), ()
    return [sys.executable, "-I", "-c", _START, str(held.fileno()), *argv], (held.fileno(),)
