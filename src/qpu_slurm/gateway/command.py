# SPDX-License-Identifier: Apache-2.0
"""The command `qpu-slurm gateway`."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import resource
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from qpu_slurm.errors import ConfigError

if TYPE_CHECKING:
    from qpu_slurm.config import Config

_PR_SET_DUMPABLE = 4
"""Of prctl(2)."""

READY = "gateway listens on "

DESCRIPTION = """\
Serve the gateway until SIGTERM. It holds the service's keys and the journal, grants leases to Slurm's hooks,
and lets jobs use their QPUs without a key of the service. On SIGHUP, it reads its configuration, keys and
certificate again, and reopens its log. Run it under systemd (contrib/systemd/qpu-slurm-gateway.service), as
SlurmUser or as a user of its own (trusted_users in [gateway]).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="also end when standard input closes, as a child that must not outlive its parent",
    )


def serve(config: Config, arguments: argparse.Namespace) -> int:
    """Serve until a signal stops the gateway; return the exit code.

    Raises:
        ConfigError: It cannot be used.
        JournalError: The journal cannot be opened.
    """
    config.require_qpus()
    os.umask(0o077)
    forbid_dumps()
    asyncio.run(_serve(config, until_stdin_closes=arguments.until_stdin_closes))
    return 0


def forbid_dumps() -> None:
    """Protect this process's memory, which holds the services' keys, from core files and its user's debugger.

    Programs that it starts are not protected.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise ConfigError(f"This process cannot be protected from dumps: {os.strerror(ctypes.get_errno())}.")


async def _serve(config: Config, *, until_stdin_closes: bool) -> None:
    try:
        from qpu_slurm.gateway import server  # noqa: PLC0415 - its libraries belong to an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The gateway needs the Python package {error.name}. "
            "In qpu_slurm's sources: pip install '.[gateway]'."
        ) from None
    stop = asyncio.Event()
    server.stop_on_signals(stop)
    if until_stdin_closes:
        threading.Thread(target=_watch_stdin, args=(asyncio.get_running_loop(), stop), daemon=True).start()
    if not await server.serve(config, stop=stop, announce=_announce):
        logging.shutdown()
        os._exit(0)  # a thread waits for a service that may not answer for minutes


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    with suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(stop.set)


def _announce(url: str) -> None:
    with suppress(OSError):  # nobody may be there to read it
        sys.stdout.write(f"{READY}{url}\n")
        sys.stdout.flush()
