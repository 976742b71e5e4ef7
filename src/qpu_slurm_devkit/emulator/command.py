# SPDX-License-Identifier: Apache-2.0
"""The emulator as a command: `qpu-slurm emulator` and `python -m qpu_slurm_devkit.emulator`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm_devkit.emulator.settings import Account, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

READY = "emulator listens on "

DESCRIPTION = """\
Emulates the IBM Quantum Platform API on this machine: IAM, Global Search and Catalog, backends,
sessions, jobs, and their execution with Aer. It prints its URL, and how to reach it, then serves
until it is interrupted. URL/system serves the IBM Quantum System API, with its object storage at
URL/s3/; URL itself serves IQM Server's API. Its own record and faults on demand are at
URL/emulator/, for this machine only and without a credential.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=0, help="port to listen on (default: a free one)")
    add(
        "--backends",
        type=lambda text: tuple(text.split(",")),
        default=("ibm_fez", "ibm_torino"),
        metavar="NAME[,NAME]",
        help="QPUs to have: any snapshot of qiskit-ibm-runtime (default: ibm_fez,ibm_torino)",
    )
    add(
        "--iqm-backends",
        type=lambda text: tuple(text.split(",")),
        default=("garnet", "spark"),
        metavar="NAME[,NAME]",
        help="QPUs behind IQM Server, with 20 and 5 qubits (default: garnet,spark)",
    )
    add(
        "--task-seconds",
        type=float,
        metavar="S",
        help="how long a task runs (default: as its simulation takes)",
    )
    add("--interactive-ttl", type=float, default=60, metavar="S", help="wait for a next task (default: 60)")
    add("--idle-ttl", type=float, default=1800, metavar="S", help="life without a task (default: 1800)")
    add("--max-ttl", type=int, default=28800, metavar="S", help="longest life of a session (default: 28800)")
    add("--token-ttl", type=int, default=3600, metavar="S", help="validity of an IAM token (default: 3600)")
    add(
        "--lanes",
        type=int,
        default=5,
        metavar="N",
        help="tasks of the IBM Quantum System API that a QPU holds at once (default: 5)",
    )
    add("--result-bytes", type=int, metavar="N", help="simulate nothing: answer with N bytes, made up")
    add("--any-circuit", action="store_true", help="run circuits that were not transpiled for the QPU")
    add(
        "--lenient",
        action="store_true",
        help="run inputs that IBM's client would refuse, and log no difference from IBM's schemas",
    )
    add("--seed", type=int, metavar="N", help="make outcomes repeatable")
    add(
        "--accounts",
        type=Path,
        metavar="FILE",
        help='JSON list of {"name", "api_key", "crn", "plan"} (default: one premium, one open, made up)',
    )
    add(
        "--directory",
        type=Path,
        metavar="DIR",
        help="where inputs and results lie (default: a temporary one)",
    )
    add(
        "--until-stdin-closes",
        action="store_true",
        help="end when standard input does, and remove the directory",
    )
    add("--url-only", action="store_true", help="print the URL, and not how to reach it")


def run(arguments: argparse.Namespace) -> int:
    """Run the emulator until SIGINT or SIGTERM; return the exit code."""
    with contextlib.ExitStack() as stack:
        try:
            settings = _settings(arguments, stack)
        except (OSError, msgspec.MsgspecError) as error:
            sys.stderr.write(f"emulator: {arguments.accounts or arguments.directory}: {error}\n")
            return 2
        try:
            return asyncio.run(
                _serve(settings, until_stdin_closes=arguments.until_stdin_closes, url_only=arguments.url_only)
            )
        except (LookupError, OSError) as error:
            sys.stderr.write(f"emulator: {error}\n")
            return 2


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="emulator")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def _settings(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Settings:
    """Gather the settings; a temporary directory goes with the stack."""
    directory = arguments.directory
    if directory is None:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-emulator-")))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if arguments.until_stdin_closes:
        # Whoever made the directory may be gone before it could remove it.
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
    accounts: tuple[Account, ...] = (Account.premium(), Account.open())
    if arguments.accounts is not None:
        accounts = msgspec.json.decode(arguments.accounts.read_bytes(), type=tuple[Account, ...])
    return Settings(
        directory=directory,
        accounts=accounts,
        **{
            name: getattr(arguments, name)
            for name in Settings.__struct_fields__
            if name not in {"directory", "accounts"}
        },
    )


async def _serve(settings: Settings, *, until_stdin_closes: bool, url_only: bool) -> int:
    """Serve until a signal comes, or until the parent has gone."""
    # aiohttp takes a while to import, and --help needs none of it.
    from qpu_slurm_devkit.emulator.app import build  # noqa: PLC0415
    from qpu_slurm_devkit.emulator.listener import Listener  # noqa: PLC0415
    from qpu_slurm_devkit.emulator.service import Service  # noqa: PLC0415

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:
        threading.Thread(target=_watch_stdin, args=(loop, stop), daemon=True).start()
    listener = Listener(build(Service(settings)), settings)
    try:
        _announce(await listener.start(), () if url_only else settings.accounts)
        await stop.wait()
    finally:
        await listener.stop()
    return 0


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Wait for the end of standard input: the parent has gone, or wants us to go."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(stop.set)


def _announce(url: str, accounts: Sequence[Account]) -> None:
    """Print the URL, first and alone on its line, then what clients of some accounts need besides."""
    lines = [f"{READY}{url}"]
    for account in accounts:
        lines += [f"\n# account {account.name} ({account.plan} plan)"]
        lines += [f"export {name}='{value}'" for name, value in environ(url, account).items()]
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()


def environ(url: str, account: Account) -> dict[str, str]:
    """Return the variables with which `QiskitRuntimeService()` finds an emulator.

    Its client rewrites a URL in which `experimental` does not stand.
    """
    return {
        "QISKIT_IBM_CHANNEL": "ibm_quantum_platform",
        "QISKIT_IBM_TOKEN": account.api_key,
        "QISKIT_IBM_INSTANCE": account.crn,
        "QISKIT_IBM_URL": f"{url}/experimental/api/v1",
        "IAM_URL": url,
        "GLOBAL_SEARCH_URL": url,
        "GLOBAL_CATALOG_URL": f"{url}/catalog",
    }


def iqm_environ(url: str, account: Account, backend: str) -> dict[str, str]:
    """Return the variables with which iqm-client and qrmi find one of an emulator's IQM QPUs."""
    return {
        "IQM_SERVER_URL": url,
        "IQM_TOKEN": account.api_key,
        "IQM_QUANTUM_COMPUTER": backend,
        f"{backend}_QRMI_IQM_ISA_ENDPOINT": url,
        f"{backend}_QRMI_IQM_ISA_TOKEN": account.api_key,
        "QRMI_JOB_QPU_RESOURCES": backend,
        "QRMI_JOB_QPU_TYPES": "iqm-server",
    }


def system_environ(url: str, account: Account, backend: str) -> dict[str, str]:
    """Return the variables with which qrmi finds one of an emulator's QPUs as an IBM Quantum System."""
    storage = account.storage
    settings = {
        "ENDPOINT": f"{url}/system",
        "IAM_ENDPOINT": url,
        "IAM_APIKEY": account.api_key,
        "SERVICE_CRN": account.crn,
        "S3_ENDPOINT": f"{url}/s3/",
        "S3_BUCKET": storage.bucket,
        "S3_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": storage.access_key_id,
        "AWS_SECRET_ACCESS_KEY": storage.secret,
    }
    return {
        **{f"{backend}_QRMI_IBM_QS_{name}": value for name, value in settings.items()},
        f"{backend}_QRMI_JOB_TIMEOUT_SECONDS": "300",
        "QRMI_JOB_QPU_RESOURCES": backend,
        "QRMI_JOB_QPU_TYPES": "ibm-quantum-system",
    }
