# SPDX-License-Identifier: Apache-2.0
"""Where scenarios are played: one cluster, on which each has a QPU and an account of its own.

So that a hundred of them run beside each other, and each has faults of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec
import psutil
import requests

from qpu_slurm.errors import SlurmError
from qpu_slurm_devkit.cluster import Node
from qpu_slurm_devkit.emulator import Account, Emulator, Fault, SessionRecord, TaskRecord
from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, HOLD
from tests.cluster.matrix.disk import small_disk
from tests.cluster.matrix.jobs import DOWN, FRAIL, LOOP_PROGRAM
from tests.cluster.matrix.play import Job, Lease
from tests.cluster.matrix.scenario import ACQUIRE_TIMEOUT, STEP_PATIENCE
from tests.cluster.stage import waiting_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.cluster.matrix.scenario import Keys, Scenario, Submit

NODES = (
    *(Node(f"n{number}", "normal") for number in range(1, 9)),
    Node("q1", "quantum", "qpu:4"),
    *(Node(f"f{number}", FRAIL) for number in range(1, 4)),
    *(Node(f"d{number}", DOWN) for number in range(1, 5)),
)
"""Room for many at once; a node in which there is a gres; some that die, and some that are set DOWN."""

BACKENDS = (
    "ibm_fez",
    "ibm_torino",
    "ibm_brisbane",
    "ibm_kyiv",
    "ibm_osaka",
    "ibm_quebec",
    "ibm_belem",
    "ibm_bogota",
    "ibm_lima",
    "ibm_manila",
    "ibm_quito",
    "ibm_nairobi",
    "ibm_oslo",
    "ibm_perth",
)
SHARED = 6
"""So many of them, the first, are for everybody; the others are for those who put them into maintenance."""

OUTAGE = (
    f"[outage]\ntries = 2\ndelay = 8\nmax_delay = 8\nacquire_timeout = {ACQUIRE_TIMEOUT}\n"
    f"step_patience = {STEP_PATIENCE}\n"
)
"""Short, and yet long enough for a requeued job's first run to be cleaned up while this machine is busy."""

REAP_EVERY = "6s"
"""Each look asks about every scenario's account: hundreds of requests."""

HOOK_TIMEOUT = 60
"""Slurm's PrologEpilogTimeout, in seconds: above what hold.sh takes."""

INPUT = {
    "program_id": "sampler",
    "parameters": {
        "pubs": [['OPENQASM 3.0; include "stdgates.inc"; bit[1] c; x $0; c[0] = measure $0;', None, 10]],
        "version": 2,
    },
}

_FIELDS = (
    "JobID:12,HetJobID:12,Partition:12,State:20,Reason:40,StartTime:24,RestartCnt:6,Name:40,admin_comment:900"
)
"""What squeue is to show of a job: none of these has a blank in it but the last."""

_NUDGE = 20.0
"""Seconds that a requeued job may wait yet; no test waits for longer."""

_LEASES_SECONDS = 1.0
_REST_SECONDS = 40.0


class View(NamedTuple):
    """What is seen of everything at once: jobs by their names, the rest by their accounts' names.

    Tasks are seen where a service without sessions keeps them.
    """

    jobs: Mapping[str, list[Job]]
    sessions: Mapping[str, list[SessionRecord]]
    tasks: Mapping[str, list[TaskRecord]]
    faults: Sequence[Fault]


class Stage:
    """A cluster for scenarios.

    Args:
        keys: Who opens the sessions.
        scenarios: What will be played: each gets a QPU and an account.

    Attributes:
        lab: The cluster with all that is on it.
        accounts: Each QPU's account.
        qpus: Each scenario's QPU.
        view: What was seen last.
        leases: What the journal held last, by QPU.
        private: Where the journal is: on a disk of its own.
    """

    def __init__(self, keys: Keys, scenarios: Sequence[Scenario]) -> None:
        self.qpus = {scenario: f"q{number}" for number, scenario in enumerate(scenarios)}
        plans = {qpu: scenario.plan for scenario, qpu in self.qpus.items()}
        self.accounts = {
            qpu: msgspec.structs.replace(Account.premium(f"matrix-{qpu}"), plan=plan)
            for qpu, plan in plans.items()
        }
        self.view = View({}, {}, {}, ())
        self.leases: dict[str, list[Lease]] = {}
        self.private = Path()
        self._keys = keys
        self._exit = ExitStack()
        self._emulator = Emulator(
            accounts=tuple(self.accounts.values()),
            backends=BACKENDS,
            result_bytes=1000,
            task_seconds=0.05,
        )
        self._directory = Path()
        self._leases_read = 0.0

    def __enter__(self) -> Self:
        with ExitStack() as on_failure:
            self._directory = Path(
                on_failure.enter_context(tempfile.TemporaryDirectory(prefix="qpu_slurm-matrix-"))
            )
            self._directory.chmod(0o755)
            self.private = self._directory / "private"
            self.private.mkdir(mode=0o700)
            on_failure.enter_context(small_disk(self.private))
            on_failure.enter_context(self._emulator)
            self.lab = Lab(
                CHECKOUT,
                credentials=self._keys,
                emulator=self._emulator,
                qpus=(),
                tables=OUTAGE + "".join(self._table(scenario) for scenario in self.qpus),
                nodes=(*NODES, *self._typed_gres()),
                private=self.private,
                reap_every=REAP_EVERY,
                settings={
                    **HOLD,
                    "SlurmdTimeout": "15",
                    "PrologEpilogTimeout": str(HOOK_TIMEOUT),
                    # All are judged when all are over: on a busy machine, Slurm's five minutes may be.
                    "MinJobAge": "7200",
                },
            )
            on_failure.enter_context(self.lab)
            (self.home / "input.json").write_text(json.dumps(INPUT))
            (self.home / "loop.py").write_text(LOOP_PROGRAM)
            for name in ("input.json", "loop.py"):
                (self.home / name).chmod(0o644)
            self._exit = on_failure.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _typed_gres(self) -> tuple[Node, ...]:
        """Return a node that has the QPUs as a gres with a type, for those who ask for one in this way."""
        asked = [qpu for one, qpu in self.qpus.items() if "--gres=qpu:{qpu}:1" in one.submit.command]
        return (Node("q2", "quantum", ",".join(f"qpu:{qpu}:1" for qpu in asked)),) if asked else ()

    def _table(self, scenario: Scenario) -> str:
        qpu = self.qpus[scenario]
        account = self.accounts[qpu]
        table: dict[str, object] = {"instance": account.crn}
        if self._keys == "gateway":
            table["key_file"] = self._key(qpu, account.api_key)
        if scenario.kind == "ibm-quantum-system":
            table |= {
                "type": scenario.kind,
                "endpoint": f"{self._emulator.url}/system",
                "s3_endpoint": f"{self._emulator.url}/s3",
                "s3_bucket": account.storage.bucket,
                "s3_access_key_id": account.storage.access_key_id,
                "s3_key_file": self._key(f"{qpu}-s3", account.storage.secret),
            }
        if scenario.limit is not None:
            table["max_leases"] = scenario.limit
        common = "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
        if scenario.access:
            common += f"access = {scenario.access}\n"
        backend = scenario.backend or BACKENDS[int(qpu[1:]) % SHARED]
        backends = {qpu: backend} | ({f"{qpu}b": scenario.second} if scenario.second else {})
        return "".join(
            f'[[qpu]]\nname = "{name}"\nbackend = "{backend}"\n{common}' for name, backend in backends.items()
        )

    def _key(self, name: str, key: str) -> str:
        """Write a key into a file of its own; return its path."""
        path = self._directory / f"{name}.key"
        path.touch(mode=0o600)
        path.write_text(f"{key}\n")
        if os.geteuid() == 0:
            shutil.chown(path, "slurm")
        return str(path)

    # What users do

    @property
    def home(self) -> Path:
        """Where jobs start."""
        return self.lab.cluster.home()

    def user_environ(self, qpu: str) -> dict[str, str]:
        """Return what a scenario's user has exported: whatever he types, his jobs have the QPU's name."""
        environ = {
            "SBATCH_JOB_NAME": qpu,
            "SLURM_JOB_NAME": qpu,
            "SBATCH_OUTPUT": f"{qpu}-%j.out",
            "SBATCH_OPEN_MODE": "append",
        }
        if self._keys == "user":
            environ["QISKIT_IBM_TOKEN"] = self.accounts[qpu].api_key
        return environ

    def submit(self, submit: Submit, qpu: str) -> subprocess.Popen[str]:
        """Type a scenario's command, as its user."""
        script = self.home / f"{qpu}.sh"
        if submit.script:
            script.write_text(submit.script.replace("{qpu}", qpu))
            script.chmod(0o755)
        argv = [part.replace("{qpu}", qpu).replace("{script}", str(script)) for part in submit.command]
        return self.lab.cluster.popen(argv, env=self.lab.environ | self.user_environ(qpu))

    def admin(self, *argv: str) -> str:
        """Have the admin type something, and read what it says, be it that it failed."""
        try:
            return self.lab.cluster.ask(*argv)
        except SlurmError as error:
            return str(error)

    def command(self, *arguments: str) -> None:
        """Have the admin run `qpu-slurm` where the journal is."""
        done = self.lab.command(*arguments, config=self.lab.gateway_config if self.lab.gateway else None)
        if done.returncode:
            raise SlurmError(done.stderr)

    # What goes wrong

    def inject(self, fault: Fault, account: Account) -> None:
        """Have something go wrong with one scenario's requests."""
        self.lab.emulator.inject(msgspec.structs.replace(fault, account=account.name))

    def mend(self, qpu: str) -> None:
        """Have nothing go wrong any more with one scenario's requests."""
        name = self.accounts[qpu].name
        left = [fault for fault in self.lab.emulator.faults() if fault.account != name]
        self.lab.emulator.clear_faults()
        for fault in left:
            self.lab.emulator.inject(fault)

    def hook(self, kind: str, jobs: Sequence[Job] | None = None) -> psutil.Process | None:
        """Find the process of a hook of this cluster, of one of some jobs or of any."""
        known = [job for found in self.view.jobs.values() for job in found] if jobs is None else jobs
        ids = {str(job.id) for job in known}
        # With a gateway, a child of the client waits; without one, what the client has started does the work.
        ends_with = ["--config", str(self.lab.config), "hook", kind]
        if self.lab.gateway is not None:
            ends_with = [self.lab.cluster.settings[f"{kind.capitalize()}Slurmctld"]]
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                if words[-len(ends_with) :] != ends_with or process.environ().get("SLURM_JOB_ID") not in ids:
                    continue
                if self.lab.gateway is None or words == _cmdline(process.parent()):
                    return process
            except psutil.Error:
                continue
        return None

    def waits(self, jobs: Sequence[Job]) -> bool:
        """Tell whether a step of one of some jobs waits for an answer."""
        marks = tuple(f"[{job.id}." for job in jobs)
        return any(
            mark in " ".join(task.cmdline()) for task in waiting_tasks(self.lab.cluster) for mark in marks
        )

    def kill_job_processes(self, job: int) -> None:
        """Kill a job's slurmstepd and all that it started, as a node that loses power does."""
        for process in psutil.process_iter():
            try:
                if process.name().startswith("slurmstepd") and f"[{job}." in " ".join(process.cmdline()):
                    # First who would tell of the others' end.
                    for victim in [process, *process.children(recursive=True)]:
                        victim.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue

    # What is seen

    def look(self) -> View:
        """Look at everything; what does not answer now is as it was.

        Raises:
            SlurmError: The cluster is lost: a daemon has ended that was not told to.
        """
        lost = self.lab.cluster.lost() or (self.lab.gateway.lost() if self.lab.gateway else "")
        if lost:
            raise SlurmError(lost)
        try:
            squeue = self.admin("squeue", "--noheader", "--array", "--states=all", f"--Format={_FIELDS}")
            jobs: dict[str, list[Job]] = {}
            for line in squeue.splitlines():
                number, het, partition, state, reason, starts, restarts, name, *comment = line.split(
                    maxsplit=8
                )
                leader = number if het == "N/A" else het
                said = " ".join(comment).strip()
                job = Job(int(number), int(leader), partition, state, reason, starts, int(restarts), said)
                jobs.setdefault(name, []).append(job)
            for found in jobs.values():
                found.sort()
            self.view = self.view._replace(jobs=jobs)
        except ValueError:
            pass  # it says why it cannot tell
        try:
            sessions: dict[str, list[SessionRecord]] = {}
            for session in self.lab.emulator.sessions():
                sessions.setdefault(session.account, []).append(session)
            self.view = self.view._replace(
                sessions=sessions, tasks=self._tasks(), faults=self.lab.emulator.faults()
            )
        except requests.RequestException:
            pass
        return self.view

    def _tasks(self) -> dict[str, list[TaskRecord]]:
        """Ask for the tasks of accounts whose service has no sessions."""
        tasks: dict[str, list[TaskRecord]] = {
            self.accounts[qpu].name: [] for one, qpu in self.qpus.items() if not one.has_sessions
        }
        for task in self.lab.emulator.tasks() if tasks else ():
            if task.account in tasks:
                tasks[task.account].append(task)
        return tasks

    def nudge(self) -> None:
        """Have jobs start that Slurm makes wait for two minutes, which it does after a prolog has failed.

        Not those whose node has failed: as it comes back, slurmctld repeats what that node did not hear,
        which was the end of the job's first run, and would end a second one (22.05).
        """
        for job in (job for jobs in self.view.jobs.values() for job in jobs):
            waits = job.state == "PENDING" and job.reason == "BeginTime" and job.starts != "N/A"
            if waits and job.partition != FRAIL:
                starts = datetime.fromisoformat(job.starts).timestamp()  # the cluster's clock is ours
                if starts - time.time() > _NUDGE:
                    self.admin("scontrol", "update", f"JobId={job.id}", "StartTime=now+1")

    def settle(self) -> None:
        """Wait until the cluster is at rest, as far as it will be, and look at everything once more.

        Raises:
            SlurmError: The cluster is lost.
        """
        self.lab.cluster.start_what_is_down()  # by a storm that could not be played to its end
        with suppress(SlurmError):  # nodes that are lost are counted, see `nodes_drained`
            self.lab.cluster.wait_until_idle(_REST_SECONDS)
        self._leases_read = 0.0
        self.read_journal()
        self.look()

    def nodes_drained(self) -> int:
        """Count the nodes that do not take jobs.

        Raises:
            SlurmError: Slurm does not answer.
        """
        states = self.lab.cluster.node_states().values()
        return sum(1 for state in states if state not in {"idle", "mixed", "allocated", "completing"})

    def what_slurm_says(self, jobs: Sequence[Job]) -> str:
        """Return what Slurm shows of some jobs and has logged of them, for those who look why it failed."""
        names = {f"JobId={job.id}" for job in jobs}
        log = self.lab.cluster.log("slurmctld").splitlines()
        return "\n".join(
            [
                *(self.admin("scontrol", "--oneliner", "show", "job", str(job.id)) for job in jobs),
                self.admin("scontrol", "--oneliner", "show", "reservation"),
                *(line for line in log if not names.isdisjoint(line.split())),
            ]
        )

    def read_journal(self, *, reap: bool = True) -> None:
        """Read the journal, not too often; without a gateway, have the reaper look first if it may."""
        if time.monotonic() - self._leases_read < _LEASES_SECONDS:
            return
        self._leases_read = time.monotonic()
        config = self.lab.gateway_config if self.lab.gateway else self.lab.config
        try:
            if not self.lab.gateway and reap:
                self.lab.command("reap", config=config)
            answer = self.lab.command("leases", "--all", "--json", config=config)
        except subprocess.TimeoutExpired:
            return  # the journal is locked, say; it is read again
        if answer.returncode:
            return
        leases: dict[str, list[Lease]] = {}
        for lease in json.loads(answer.stdout):
            found = Lease(lease["job_id"], lease["state"], tuple(lease["sessions"]))
            leases.setdefault(lease["qpu"], []).append(found)
        self.leases = leases


def _cmdline(process: psutil.Process | None) -> list[str]:
    return [] if process is None else process.cmdline()
