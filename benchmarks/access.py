# SPDX-License-Identifier: Apache-2.0
"""Measures what rules of who may use a QPU cost a start: `python -m benchmarks.access`.

One broker has no rules, the other has ten thousand users and accounts in them, and all groups of this
machine. Both start jobs in turns, on one journal and one emulated service. The aim is at most 1.1 times the
time without rules; the exit code says whether it is met.
"""

from __future__ import annotations

import grp
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.broker import configuration
from benchmarks.step import HOURS, QPU
from qpu_slurm.config.access import AccessRule, AccessRules, Place
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseRequest
from qpu_slurm.leases.broker import Broker
from qpu_slurm.providers import Connections
from qpu_slurm.system import logs
from qpu_slurm_devkit.emulator import Emulator

_NAMES = 10_000
_ROUNDS, _WARM_UP = 200, 20
_AIM = 1.1


def rules() -> AccessRules:
    """Return rules of which the last one allows the job, so that all others are compared before."""
    strangers = tuple(group.gr_name for group in grp.getgrall() if group.gr_gid != os.getgid())
    return AccessRules(
        deny=(
            AccessRule(accounts=_names("denied")),
            AccessRule(groups=strangers, partitions=("debug",)),
        ),
        allow=(
            AccessRule(users=_names("user")),
            AccessRule(users=(os.getuid(),), groups=strangers, accounts=("no-account",)),
            AccessRule(accounts=_names("account"), partitions=("quantum",)),
        ),
        default="deny",
    )


def measure() -> tuple[float, float]:
    """Return the medians of a start in ms: without rules, and with them."""
    with tempfile.TemporaryDirectory() as directory, Emulator() as emulator:
        config = configuration(Path(directory), emulator.url, emulator.accounts[0])
        # Each start is in the audit, which is not to be read here.
        logs.configure("error", Path(directory) / "log")
        ruled = msgspec.structs.replace(config.qpus[QPU], access_rules=rules())
        with Journal(config.journal) as journal:
            brokers = [
                Broker(one, journal, Connections().connect)
                for one in (config, msgspec.structs.replace(config, qpus={QPU: ruled}))
            ]
            took: list[list[float]] = [[], []]
            for job_id in range(1, 2 * (_ROUNDS + _WARM_UP) + 1):
                # Neither always follows the other.
                which = (job_id + job_id // 2) % 2
                seconds = _start(brokers[which], job_id)
                if job_id > 2 * _WARM_UP:
                    took[which].append(seconds)
    without, with_ = (statistics.median(times) * 1000 for times in took)
    return without, with_


def _start(broker: Broker, job_id: int) -> float:
    place = Place(f"account{_NAMES - 1}", "quantum", "normal")
    request = LeaseRequest(
        job_id=job_id, user_id=os.getuid(), qpus=(QPU,), seconds_left=HOURS, places=(place,)
    )
    began = time.perf_counter()
    broker.acquire(request)
    seconds = time.perf_counter() - began
    broker.release(job_id, "The job ended.")
    return seconds


def _names(kind: str) -> tuple[str, ...]:
    return tuple(f"{kind}{number}" for number in range(_NAMES))


def main() -> int:
    """Be the command."""
    without, with_ = measure()
    ratio = with_ / without
    Console(highlight=False).print(
        f"A start takes {with_:.2f} ms with rules and {without:.2f} ms without: {ratio:.2f} times as long "
        f"(aim: {_AIM})."
    )
    return int(ratio > _AIM)


if __name__ == "__main__":
    sys.exit(main())
