# SPDX-License-Identifier: Apache-2.0
"""The locks that processes and threads hold while they open sessions, or look for lost ones.

Sessions on one QPU of one account, in one mode, look alike. For each such account, there is a file of locks:

    gate     held for a moment by each process that enters, so that a search for lost sessions gets its turn
    slots    one for each session that is being requested: `starts_at_once` of them
    account  shared by all processes that request a session; exclusive for one that searches for lost sessions

One more file has a lock for each job and QPU. The process that opens a session there for the job, or ends
one, holds it. So two components of a job, or a job's start and its end, take turns.

The locks of a process that dies are free again. So a process that holds an account exclusively knows that no
other process is requesting a session. If a requested session is not in the journal then, its answer was lost,
or it was never created.
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
"""The contents of an account's file: when requests may be sent again, how many at once, and since when."""

_EASE = 30.0
"""Seconds after which twice as many requests at once are allowed again."""

_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
"""Seconds without requests after a 429 that names no time; and at most."""


class Locks:
    """The locks beside one journal.

    Args:
        journal: The journal's file.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal

    def account(self, qpu: QpuConfig) -> str:
        """Return a name that all QPUs share whose sessions look alike."""
        mode = getattr(qpu, "mode", "")  # some kinds of service have none
        account = f"{qpu.endpoint} {qpu.instance} {qpu.backend} {mode}"
        return hashlib.sha256(account.encode()).hexdigest()[:16]

    @contextmanager
    def job(self, job_id: int, qpus: Iterable[str], *, deadline: Deadline) -> Iterator[None]:
        """Hold the locks of a job on some QPUs: to open sessions for it, or to end them.

        Raises:
            MustWaitError: Another process held one until the deadline.
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
        """Return whether no process is opening or ending a session for a job now."""
        with self._open("jobs") as file:
            return file.take(_place(job_id, qpu))

    @contextmanager
    def asking(self, qpu: QpuConfig, *, deadline: Deadline) -> Iterator[None]:
        """Hold a slot while a session is requested, until it is recorded.

        Raises:
            MustWaitError: All slots were taken until the deadline.
            JournalError: The locks cannot be opened.
        """
        with self._open(self.account(qpu)) as file:
            try:
                for pause in pauses():
                    # The gate is free between two tries, so that a search for lost sessions gets in.
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
        """Hold an account exclusively: no process requests a session meanwhile.

        Raises:
            UnavailableError: Other processes requested sessions until the deadline.
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
        """Hold the lock for requests of a QPU's status. The value is True if another process holds it."""
        with self._open(self.account(qpu)) as file:
            yield not file.take(_ASKS)

    def slow_down(self, qpu: QpuConfig, *, asked_at: float, seconds: float | None) -> None:
        """Allow fewer requests for sessions at once, and none for a while, since the service answered 429.

        Args:
            qpu: The QPU.
            asked_at: When the request was sent (`time.monotonic`).
            seconds: How long the service wants no requests, if it says so.
        """
        with self._open(self.account(qpu)) as file:
            pause, at_once, since = _pace(file)
            now = time.monotonic()
            pause = max(pause, now + min(max(seconds or 0, _PAUSE), _LONGEST_PAUSE))
            if asked_at >= since:  # the 429 of an earlier request changes nothing more
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
    """Read an account's file; see `_PACE`."""
    content = os.pread(file.descriptor, _PACE.size, 0)
    pause, at_once, since = _PACE.unpack(content) if len(content) == _PACE.size else (0.0, 0.0, 0.0)
    now = time.monotonic()
    if not (since <= now and pause <= now + _LONGEST_PAUSE and at_once >= 1):  # from before a reboot; or none
        return 0.0, math.inf, 0.0
    return pause, at_once, since


def _eased(at_once: float, since: float, most: int) -> float:
    """Return how many requests at once are allowed now."""
    steps = min((time.monotonic() - since) // _EASE, 10)
    return min(float(most), at_once * 2**steps)


def _until_next(file: LockFile) -> float:
    """Return the seconds until a request may be sent."""
    return max(0.0, _pace(file)[0] - time.monotonic())


def _has_slot(file: LockFile, most: int) -> bool:
    """Take a slot, if one is free."""
    _, at_once, since = _pace(file)
    return any(file.take(_SLOTS + number) for number in range(int(_eased(at_once, since, most))))
