# SPDX-License-Identifier: Apache-2.0
"""One scenario as it is played: its job, and what has been seen of it so far."""

from __future__ import annotations

import os
import re
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import psutil
import requests

from qpu_slurm.errors import SlurmError
from tests.cluster.matrix.scenario import BEFORE

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator import SessionRecord, TaskRecord
    from tests.cluster.matrix.scenario import Scenario, When
    from tests.cluster.matrix.stage import Stage, View

LONGEST = 420.0
"""Seconds after which a scenario that has not ended never will, on a busy machine either."""

TROUBLE = (
    AssertionError,
    OSError,
    SlurmError,
    psutil.Error,
    requests.RequestException,
    subprocess.SubprocessError,
)
"""What may come of doing something to a job or a cluster: it costs its own scenarios, not the others."""

SETTLE = 40.0
"""Seconds that may pass from a job's end until a reaper has looked, and its service was asked."""

OVER = re.compile(
    "BOOT_FAIL|CANCELLED|COMPLETED|DEADLINE|FAILED|NODE_FAIL|OUT_OF_MEMORY|PREEMPTED|REVOKED|TIMEOUT"
)


class Job(NamedTuple):
    """What Slurm shows of a job, or of one component or task of it; the leader is the whole job's number."""

    id: int
    leader: int
    partition: str
    state: str
    reason: str
    starts: str
    restarts: int
    admin_comment: str


class Lease(NamedTuple):
    """What the journal shows of a lease."""

    job_id: int
    state: str
    sessions: tuple[str, ...]


class Play:
    """One scenario as it is played.

    Args:
        scenario: What is played.
        qpu: The QPU, and the account, that no other scenario of the stage has.
        stage: Where.

    Attributes:
        scenario: As above.
        qpu: Likewise.
        stage: Likewise.
        view: What was seen last of the whole stage.
        problem: Why it could not be played to its end.
        shown: What squeue has shown of its jobs, in order.
        comments: Likewise, their AdminComments.
        said: What its commands printed, and complained of.
        exit_code: Of the command that submitted it.
        struck: Whether the storm has broken, if there is one.
        on_stage: Whether it has begun, and not ended.
    """

    def __init__(self, scenario: Scenario, qpu: str, stage: Stage) -> None:
        self.scenario = scenario
        self.qpu = qpu
        self.stage = stage
        self.view: View = stage.view
        self.problem = ""
        self.shown: dict[str, None] = {}
        self.comments: dict[str, None] = {}
        self.said: tuple[str, str] = ("", "")
        self.exit_code: int | None = None
        self._client: subprocess.Popen[str] | None = None
        self._left = list(scenario.happens)
        self._began = time.monotonic()
        self._moment = self._began
        self._over_since: float | None = None
        self.struck = scenario.storm is None
        self.on_stage = False

    # What happens

    def begin(self) -> None:
        """Submit the job."""
        self.on_stage = True
        self._began = self._moment = time.monotonic()
        account = self.stage.accounts[self.qpu]
        for fault in self.scenario.faults:
            self.stage.inject(fault, account)
        while self._left and self._left[0].when is BEFORE:
            self._left.pop(0).what.do(self)
        self._client = self.stage.submit(self.scenario.submit, self.qpu)

    def also(self, *command: str) -> None:
        """Have the user type something besides."""
        words = [word.replace("{qpu}", self.qpu) for word in command]
        done = self.stage.lab.run(words, env=self.stage.user_environ(self.qpu))
        self.said = (self.said[0] + done.stdout, self.said[1] + done.stderr)

    def next_is(self, when: When) -> bool:
        """Tell whether this is the moment that it waits for."""
        return bool(self._left) and self._left[0].when is when

    def signal(self, number: int) -> None:
        """Send a signal to the command that submitted it, as its terminal does."""
        if self._client is not None:
            os.killpg(self._client.pid, number)

    @property
    def at_its_moment(self) -> bool:
        """Whether the storm may break, as far as this one is concerned."""
        return self.scenario.struck is None or self.scenario.struck.come(self)

    def break_storm(self) -> None:
        """Go on, after what happened to the whole cluster."""
        self.struck = True
        self._moment = time.monotonic()

    def step(self, view: View) -> bool:
        """Look at what there is, and do what is due; tell whether it has ended."""
        self.on_stage = not self._step(view)
        return not self.on_stage

    def _step(self, view: View) -> bool:
        self.view = view
        self._listen()
        self.shown |= dict.fromkeys(f"{job.state} {job.reason}" for job in self.jobs)
        self.comments |= dict.fromkeys(job.admin_comment for job in self.jobs)
        if self.problem:
            return True
        if time.monotonic() - self._began > LONGEST:
            moment = [] if self.struck else [self.scenario.struck]
            self.give_up(f"it did not end; what was to come: {[*moment, *self._left]}; {self.jobs}")
            return True
        if not self.struck:
            return False
        while self._left and self._left[0].when.come(self):
            event = self._left.pop(0)
            try:
                event.what.do(self)
            except TROUBLE as error:
                self.give_up(f"{event}: {type(error).__name__}: {error}")
                return True
            self._moment = time.monotonic()
        if self._left or not self.over:
            self._over_since = None
            return False
        self._over_since = self._over_since or time.monotonic()
        settled = not self.left_open and not self.open_leases and time.monotonic() - self._over_since > 1
        return settled or time.monotonic() - self._over_since > SETTLE

    def give_up(self, problem: str) -> None:
        """Say why it cannot be played to its end, and be in no other's way."""
        self.problem = problem
        with suppress(SlurmError):  # then the cluster is lost, which the next look finds
            self.stage.lab.cluster.start_what_is_down()
        if self.jobs:
            self.stage.admin("scancel", *(str(job.id) for job in self.jobs))

    # What is seen

    @property
    def jobs(self) -> list[Job]:
        """Its jobs, in the order of their submission."""
        return self.view.jobs.get(self.qpu, [])

    @property
    def sessions(self) -> list[SessionRecord]:
        """The sessions that were ever opened for it, by the service's own record."""
        return self.view.sessions.get(self.stage.accounts[self.qpu].name, [])

    def sessions_now(self) -> list[SessionRecord]:
        """The same, asked just now: what was seen last may be older than what it has printed."""
        name = self.stage.accounts[self.qpu].name
        return [one for one in self.stage.lab.emulator.sessions() if one.account == name]

    @property
    def open_sessions(self) -> list[SessionRecord]:
        """Those of them that are open."""
        return [session for session in self.sessions if session.state != "closed"]

    @property
    def tasks(self) -> list[TaskRecord]:
        """The tasks that its service keeps, where that has no sessions."""
        return self.view.tasks.get(self.stage.accounts[self.qpu].name, [])

    @property
    def opened(self) -> set[str]:
        """What was ever opened for it: sessions, by the service's own record; gates, by the journal."""
        if self.scenario.has_sessions:
            return {session.id for session in self.sessions}
        return {session for lease in self.leases for session in lease.sessions}

    @property
    def left_open(self) -> int:
        """How many sessions are open; where there are none, how many tasks the service keeps."""
        return len(self.open_sessions if self.scenario.has_sessions else self.tasks)

    @property
    def leases(self) -> list[Lease]:
        """Its leases, by the journal."""
        return self.stage.leases.get(self.qpu, []) + self.stage.leases.get(f"{self.qpu}b", [])

    @property
    def open_leases(self) -> list[Lease]:
        """Those of them that are not over."""
        return [lease for lease in self.leases if lease.state not in {"released", "failed"}]

    @property
    def since(self) -> float:
        """Seconds since the last thing happened to it."""
        return time.monotonic() - self._moment

    @property
    def over(self) -> bool:
        """Whether all that was submitted has ended."""
        return (
            self._client is None
            and (bool(self.jobs) or bool(self.exit_code) or not self.scenario.ends)
            and all(OVER.fullmatch(job.state) for job in self.jobs)
        )

    @property
    def output(self) -> str:
        """What its batch jobs wrote so far."""
        paths = sorted(self.stage.home.glob(f"{self.qpu}-*.out"))
        return "".join(path.read_text(errors="replace") for path in paths)

    @property
    def heard(self) -> dict[str, str]:
        """All that its user could see so far, by where."""
        return {
            "output": self.output,
            "terminal": "".join(self.said),
            "squeue": "\n".join(self.shown),
            "AdminComment": "\n".join(self.comments),
            "exit code": "" if self.exit_code is None else f"exit code {self.exit_code}",
        }

    @property
    def logged(self) -> str:
        """What hooks have logged of its jobs."""
        ids = "|".join(str(job.id) for job in self.jobs) or "none"
        of_them = re.compile(rf'"job_id":"?({ids})\b')
        return "\n".join(line for line in self.stage.lab.hook_log.splitlines() if of_them.search(line))

    def faults_left(self) -> int:
        """Count what is to go wrong yet."""
        name = self.stage.accounts[self.qpu].name
        return sum(1 for fault in self.view.faults if fault.account == name)

    def _listen(self) -> None:
        if self._client is not None and self._client.poll() is not None:
            said = self._client.communicate()
            self.said = (self.said[0] + said[0], self.said[1] + said[1])
            self.exit_code = self._client.returncode
            self._client = None
