# SPDX-License-Identifier: Apache-2.0
"""The locks that processes and threads hold while they open sessions, or look for lost ones.

Sessions on one QPU of one account, in one mode, look alike. For each such account, there is a file of locks:

    gate     held for a moment by whoever goes in: it keeps one who looks from being overtaken for ever
    slots    one for each session that is being asked for: `starts_at_once` of them
    account  shared by all who ask for a session; held alone by who looks for lost ones

And there is one file for all jobs. A job's place for a QPU is held by the process that gives the job a
session there, so that two components of a job, or a job and its end, do it one after the other.

A process that dies gives its locks back. So a process that holds an account alone knows that no other is
asking: a session that was asked for, and is not in the journal, is lost or was never made.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from qpu_slurm.errors import JournalError, MustWaitError, UnavailableError
from qpu_slurm.system.files import LockFile, pauses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from qpu_slurm.config import QpuConfig
    from qpu_slurm.system.deadline import Deadline

_GATE, _ACCOUNT, _ASKS, _SLOTS = 0, 1, 2, 16

_PACE = struct.Struct("ddd")
"""What an account's file contains: until when nothing is asked, how many may ask at once, and since when."""

_EASE = 30.0
"""Seconds after which twice as many may ask at once again."""

_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
"""Seconds without asking, if a service is asked too much and does not say for how long; and at most."""


class Locks:
    """The locks beside one journal.

    Args:
        journal: The journal's file.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal

    def account(self, qpu: QpuConfig) -> str:
        """Name what a QPU's sessions have in common with those that look like them."""
        mode = getattr(qpu, "mode", "")  # some kinds of service have none
        account = f"{qpu.endpoint} {qpu.instance} {qpu.backend} {mode}"
        return hashlib.sha256(account.encode()).hexdigest()[:16]

    @contextmanager
    def job(self, job_id: int, qpus: Iterable[str], *, deadline: Deadline) -> Iterator[None]:
        """Be the one who gives a job sessions on some QPUs, or ends what it was given.

        Raises:
            MustWaitError: Somebody else was at it until the deadline.
            JournalError: The locks cannot be opened.
        """
        with self._open("jobs") as file:
            # In one order for all, so that two that want the same do not wait for each other.
            for place in sorted({_place(job_id, qpu) for qpu in qpus}):
                try:
                    file.wait(place, deadline=deadline)
                except TimeoutError:
                    raise MustWaitError(
                        f"A session has been opened or ended for job {job_id} for too long."
                    ) from None
            yield

    def is_free(self, job_id: int, qpu: str) -> bool:
        """Tell whether nobody is giving a job a session now."""
        with self._open("jobs") as file:
            return file.take(_place(job_id, qpu))

    @contextmanager
    def asking(self, qpu: QpuConfig, *, deadline: Deadline) -> Iterator[None]:
        """Be one of those who ask the service for a session, until it is recorded.

        Raises:
            MustWaitError: Others were, until the deadline.
            JournalError: The locks cannot be opened.
        """
        with self._open(self.account(qpu)) as file:
            try:
                for pause in pauses():
                    # The gate is left between two looks, so that who looks for lost sessions gets in.
                    file.wait(_GATE, deadline=deadline)
                    seconds = _until_next(file)
                    if not seconds and _has_slot(file, qpu.starts_at_once):
                        break
                    file.give_back(_GATE)
                    if not deadline.allows(seconds):
                        raise MustWaitError(_others(qpu, seconds))
                    time.sleep(min(max(seconds, pause), deadline.left))
                file.wait(_ACCOUNT, shared=True, deadline=deadline)
            except TimeoutError:
                raise MustWaitError(_others(qpu)) from None
            file.give_back(_GATE)
            yield

    @contextmanager
    def looking(self, qpu: QpuConfig, *, deadline: Deadline) -> Iterator[None]:
        """Have an account alone: nobody asks for a session meanwhile.

        Raises:
            UnavailableError: Others asked until the deadline.
            JournalError: The locks cannot be opened.
        """
        with self._open(self.account(qpu)) as file:
            try:
                file.wait(_GATE, deadline=deadline)
                file.wait(_ACCOUNT, deadline=deadline)
            except TimeoutError:
                raise UnavailableError(
                    f"Jobs keep opening sessions on {qpu.name}. One that was lost is looked for later."
                ) from None
            file.give_back(_GATE)
            yield

    @contextmanager
    def status(self, qpu: QpuConfig) -> Iterator[bool]:
        """Be the one who asks how a QPU is; the value says whether somebody else is asking already."""
        with self._open(self.account(qpu)) as file:
            yield not file.take(_ASKS)

    def slow_down(self, qpu: QpuConfig, *, asked_at: float, seconds: float | None) -> None:
        """Have fewer ask for a session at once, and none for a while: the service said that it is too much.

        Args:
            qpu: The QPU.
            asked_at: When the service was asked (`time.monotonic`).
            seconds: For how long the service does not want to be asked, if it says so.
        """
        with self._open(self.account(qpu)) as file:
            pause, at_once, since = _pace(file)
            now = time.monotonic()
            pause = max(pause, now + min(max(seconds or 0, _PAUSE), _LONGEST_PAUSE))
            if asked_at >= since:  # those who asked before are told the same thing once more
                at_once, since = max(1.0, _eased(at_once, since, qpu.starts_at_once) // 2), now
            os.pwrite(file.descriptor, _PACE.pack(pause, at_once, since), 0)

    @contextmanager
    def _open(self, name: str) -> Iterator[LockFile]:
        path = self._journal.with_name(f"{self._journal.name}.{name}.lock")
        with ExitStack() as stack:
            try:
                file = stack.enter_context(LockFile(path))
            except OSError as error:
                raise JournalError(f"The lock {path} cannot be opened: {error.strerror}.") from None
            yield file


def _place(job_id: int, qpu: str) -> int:
    """Return the place of a job's lock for a QPU: another one for others, as good as certainly."""
    digest = hashlib.sha256(f"{job_id} {qpu}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def _others(qpu: QpuConfig, seconds: float = 0) -> str:
    if seconds > 0:
        return f"The service of {qpu.name} wants no more sessions for {math.ceil(seconds)} seconds."
    return (
        f"Many jobs start on {qpu.name} at once, and its service is asked for {qpu.starts_at_once} sessions "
        "at a time."
    )


# How fast a service is asked: CLOCK_MONOTONIC is the same for all processes of a host.


def _pace(file: LockFile) -> tuple[float, float, float]:
    """Return until when nothing is asked, how many could ask at once from when on, and when that was."""
    content = os.pread(file.descriptor, _PACE.size, 0)
    pause, at_once, since = _PACE.unpack(content) if len(content) == _PACE.size else (0.0, 0.0, 0.0)
    now = time.monotonic()
    if not (since <= now and pause <= now + _LONGEST_PAUSE and at_once >= 1):  # from before a reboot; or none
        return 0.0, math.inf, 0.0
    return pause, at_once, since


def _eased(at_once: float, since: float, most: int) -> float:
    """Return how many may ask at once now."""
    steps = min((time.monotonic() - since) // _EASE, 10)
    return min(float(most), at_once * 2**steps)


def _until_next(file: LockFile) -> float:
    """Return the seconds until something may be asked."""
    return max(0.0, _pace(file)[0] - time.monotonic())


def _has_slot(file: LockFile, most: int) -> bool:
    """Take a slot, if one is free."""
    _, at_once, since = _pace(file)
    return any(file.take(_SLOTS + number) for number in range(int(_eased(at_once, since, most))))
