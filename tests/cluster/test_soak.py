# SPDX-License-Identifier: Apache-2.0
"""Random jobs and random faults on a real cluster: in the end nothing is open, drained or lost.

    make soak SEED=7 JOBS=300

What is submitted and what goes wrong, in which order, follows from the seed; when exactly it strikes does
not, so a failure may take more than one run to come back.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest

from qpu_slurm_devkit.emulator import Drop, Fault
from tests.cluster.matrix.jobs import FINAL, SAY, SAY_AND_TASK, TASK, batch, het, salloc, srun
from tests.cluster.matrix.play import OVER
from tests.cluster.matrix.scenario import Scenario
from tests.cluster.matrix.stage import BACKENDS, SHARED, Stage
from tests.cluster.matrix.storms import lock_journal, restart_gateway, wait_until_saved

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.cluster.matrix.play import Job
    from tests.cluster.matrix.scenario import Submit

SEED = int(os.environ.get("SEED") or 1)
JOBS = int(os.environ.get("JOBS") or 30)

QPUS = 6
AT_ONCE = 14
LONGEST = 170.0
"""Seconds that the last jobs may take, when nothing goes wrong any more."""

OFTEN = 0.5
"""How often something goes wrong when a job is submitted."""

KINDS: dict[str, tuple[Submit, ...]] = {
    "batch": (batch(SAY_AND_TASK), batch(f"{SAY}sleep 1\nexec {TASK}"), batch(f"{SAY}sleep 3\n")),
    "failing": (batch(f"{SAY}exit 3\n"), srun("exit 3"), batch("exec no-such-program\n")),
    "srun": (srun(SAY_AND_TASK), srun("sleep 2")),
    "salloc": (salloc(SAY_AND_TASK),),
    "array": (batch(SAY_AND_TASK, "--array=1-3"),),
    "het": (
        het("--qpu={qpu}", "", SAY_AND_TASK),
        het("", "--qpu={qpu}", f"sleep 1\n{SAY_AND_TASK}"),
        het("--qpu={qpu}", "--qpu={qpu}", SAY),
    ),
    "several nodes": (batch(f"srun sh -c '{SAY.strip()}'\n", "--nodes=2"),),
    "held for tasks": (
        batch(f"{TASK}sleep 1\nexec {TASK}", "--qpu-session=task"),
        batch(f"{FINAL}exec {TASK}"),
        srun(TASK.strip(), "--qpu-session=task"),
    ),
    "not to be requeued": (batch(SAY_AND_TASK, "--no-requeue"),),
    "nested": (batch(f'[ "$OUTER" ] || OUTER=yes sbatch --qpu={{qpu}} --time=5 {{qpu}}.sh\nexec {TASK}'),),
}

REQUESTS = (
    ("POST", "/identity/token"),
    ("GET", "/backends/*/status"),
    ("POST", "/sessions"),
    ("POST", "/jobs"),
    ("GET", "/jobs/*"),
    ("GET", "/jobs/*/results"),
    ("DELETE", "/sessions/*/close"),
    ("GET", "/jobs"),
    ("GET", "/workloads"),
)
TROUBLES = (
    *({"status": status} for status in (401, 403, 404, 429, 500, 503)),
    {"status": 429, "retry_after": "1"},
    {"drop": Drop.BEFORE},
    {"drop": Drop.AFTER},
    {"delay": 2.0},
    {"late": 2.0},
)


class Deed(NamedTuple):
    """Something that may go wrong, and how often among all that may."""

    weight: int
    do: Callable[[Soak], object]


class Soak:
    """A run: what was decided so far, what is under way, what was seen."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.chance = random.Random(seed)  # noqa: S311 - nothing secret
        self.clients: list[subprocess.Popen[str]] = []
        self.deeds: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.back_at: list[tuple[float, Callable[[], object]]] = []

    @property
    def qpu(self) -> str:
        """Choose a QPU."""
        return f"q{self.chance.randrange(QPUS)}"

    def alive(self) -> list[Job]:
        """List the jobs that are not over."""
        jobs = [job for jobs in self.stage.view.jobs.values() for job in jobs]
        return sorted(job for job in jobs if not OVER.fullmatch(job.state))

    def victim(self) -> str:
        """Choose one of them; its number, or that of no job.

        A heterogeneous job is chosen as a whole: where one component alone is cancelled while its prolog
        runs, Slurm neither launches nor ends what is left of the job (22.05).
        """
        chosen = self.chance.random()
        alive = self.alive()
        return str(alive[int(chosen * len(alive))].leader) if alive else "4000000"

    def submit(self) -> None:
        """Submit a job of some kind."""
        kind = self.chance.choice(list(KINDS))
        self.kinds[kind] += 1
        self.clients.append(self.stage.submit(self.chance.choice(KINDS[kind]), self.qpu))

    def disturb(self) -> None:
        """Have something go wrong."""
        names = list(DEEDS)
        [name] = self.chance.choices(names, [DEEDS[name].weight for name in names])
        self.deeds[name] += 1
        DEEDS[name].do(self)

    def look(self) -> None:
        """See what there is, and mend what was broken for a while."""
        now = time.monotonic()
        due = [mend for when, mend in self.back_at if when <= now]
        self.back_at = [(when, mend) for when, mend in self.back_at if when > now]
        for mend in due:
            mend()
        self.stage.look()
        self.stage.nudge()
        for client in [client for client in self.clients if client.poll() is not None]:
            client.communicate()
            self.clients.remove(client)

    def mend(self) -> None:
        """Have nothing go wrong any more."""
        for _, mend in self.back_at:
            mend()
        self.back_at.clear()
        self.stage.lab.emulator.clear_faults()

    def later(self, seconds: float, mend: Callable[[], object]) -> None:
        """Mend something in a while."""
        self.back_at.append((time.monotonic() + seconds, mend))


# What may go wrong


def _fault(soak: Soak) -> None:
    method, path = soak.chance.choice(REQUESTS)
    trouble = soak.chance.choice(TROUBLES)
    fault = Fault(method=method, path=path, times=soak.chance.choice((1, 1, 2, 5)), **trouble)  # type: ignore[arg-type]
    soak.stage.inject(fault, soak.stage.accounts[soak.qpu])


def _kill_hook(soak: Soak) -> None:
    kind, wait = soak.chance.choice(("prolog", "epilog")), soak.chance.random() / 2
    deadline = time.monotonic() + 3
    while (hook := soak.stage.hook(kind)) is None and time.monotonic() < deadline:
        soak.look()
    time.sleep(wait)
    try:
        if hook is not None:
            hook.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        soak.deeds["hook killed, too late"] += 1


def _restart_slurmctld(soak: Soak) -> None:
    wait_until_saved(soak.stage)
    soak.stage.lab.cluster.kill("slurmctld")
    soak.stage.lab.cluster.restart("slurmctld")


def _kill_slurmd(soak: Soak) -> None:
    node = soak.chance.choice(soak.stage.lab.cluster.nodes).name
    soak.stage.lab.cluster.kill(node)
    soak.stage.lab.cluster.launch(node)


def _maintain(soak: Soak) -> None:
    backend = soak.chance.choice(BACKENDS[:SHARED])
    soak.stage.lab.emulator.set_backend(backend, "paused", "Back soon.")
    soak.later(3, lambda: soak.stage.lab.emulator.set_backend(backend))


def _close_session(soak: Soak) -> None:
    chosen = soak.chance.random()
    sessions = [one for found in soak.stage.view.sessions.values() for one in found if one.state != "closed"]
    if sessions:
        soak.stage.lab.emulator.close_session(sessions[int(chosen * len(sessions))].id)


def _refuse(soak: Soak) -> None:
    soak.stage.lab.emulator.refuse(2)
    time.sleep(2.2)  # it refuses us, too


def _suspend(soak: Soak) -> None:
    job = soak.victim()
    soak.stage.admin("scontrol", "suspend", job)
    soak.later(2, lambda: soak.stage.admin("scontrol", "resume", job))


DEEDS = {
    "fault of the service": Deed(30, _fault),
    "scancel": Deed(20, lambda soak: soak.stage.admin("scancel", soak.victim())),
    "requeue": Deed(8, lambda soak: soak.stage.admin("scontrol", "requeue", soak.victim())),
    "suspend": Deed(5, _suspend),
    "hook killed": Deed(12, _kill_hook),
    "session closed by the service": Deed(6, _close_session),
    "maintenance": Deed(4, _maintain),
    "gateway killed": Deed(4, lambda soak: restart_gateway(soak.stage)),
    "slurmctld killed": Deed(2, _restart_slurmctld),
    "slurmd killed": Deed(3, _kill_slurmd),
    "connections refused": Deed(3, _refuse),
    "journal locked": Deed(3, lambda soak: lock_journal(soak.stage, 2)),
}


@pytest.mark.timeout(3600)  # as long as that takes
def test_soak() -> None:
    slots = [Scenario(way=f"QPU {number}", submit=batch(""), told="") for number in range(QPUS)]
    with Stage("gateway", slots) as stage:
        soak = Soak(stage, SEED)
        print(f"\nsoak: {JOBS} jobs; repeat with: make soak SEED={SEED} JOBS={JOBS}")  # noqa: T201 - progress for who runs it
        submit_all(soak)
        finish(soak)
        faults = faults_of(soak)
        assert faults == [], "\n".join(
            [
                f"repeat with: make soak SEED={SEED} JOBS={JOBS}",
                story(soak),
                stage.what_slurm_says(soak.alive()),
            ]
        )


def submit_all(soak: Soak) -> None:
    """Submit the jobs, as many at once as there is room, and have things go wrong."""
    for number in range(1, JOBS + 1):
        while len(soak.alive()) + len(soak.clients) > AT_ONCE:
            soak.look()
            time.sleep(0.2)
        soak.submit()
        if soak.chance.random() < OFTEN:
            soak.disturb()
        soak.look()
        if number % 10 == 0:
            print(f"soak: {number} submitted, {len(soak.alive())} not over; {story(soak)}")  # noqa: T201 - progress for who runs it


def finish(soak: Soak) -> None:
    """Have nothing go wrong any more, and wait until the last job is over and a reaper has looked."""
    soak.mend()
    deadline = time.monotonic() + LONGEST
    while (soak.alive() or soak.clients) and time.monotonic() < deadline:
        soak.look()
        time.sleep(0.2)
    while (faults_of(soak)) and time.monotonic() < deadline:
        time.sleep(1)


def faults_of(soak: Soak) -> list[str]:
    """Say what is not as it has to be, in the end."""
    stage = soak.stage
    stage.look()
    sessions = {one.id: (one.account, one.state) for found in stage.view.sessions.values() for one in found}
    answer = stage.lab.command("leases", "--all", "--json", config=stage.lab.gateway_config)
    leases = json.loads(answer.stdout)
    held = Counter(session for lease in leases for session in lease["sessions"])
    nodes = stage.lab.cluster.node_states()
    return [
        *(f"{job} is not over" for job in soak.alive()),
        *(
            f"session {one} of {account} is {state}"
            for one, (account, state) in sessions.items()
            if state != "closed"
        ),
        *(f"session {one} is in no lease" for one in sessions.keys() - held.keys()),
        *(f"session {one} is not the service's" for one in held.keys() - sessions.keys()),
        *(f"session {one} is in {times} leases" for one, times in held.items() if times > 1),
        *(f"lease {lease} is not over" for lease in leases if lease["state"] not in {"released", "failed"}),
        *(
            f"lease {lease} is not of the account of its session"
            for lease in leases
            for one in lease["sessions"]
            if one in sessions and sessions[one][0] != stage.accounts[lease["qpu"]].name
        ),
        *(f"node {node} is {state}" for node, state in nodes.items() if state != "idle"),
    ]


def story(soak: Soak) -> str:
    """Say what has happened so far."""
    ended = Counter(job.state for jobs in soak.stage.view.jobs.values() for job in jobs)
    parts = {"jobs": soak.kinds, "ended": ended, "went wrong": soak.deeds}
    return "; ".join(f"{what}: {json.dumps(counts)}" for what, counts in parts.items())
