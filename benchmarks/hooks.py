# SPDX-License-Identifier: Apache-2.0
"""What hooks and plugin cost those who use no QPU.

Throw-away clusters run at once and take turns: the same batch of small jobs on one, then on the other. One
has our hooks in slurm.conf and the plugin in plugstack.conf, one has neither, and one has hooks that are
/bin/true: what Slurm itself takes for having any.

And what the hooks take for a job with a QPU, from their start to their end: run as slurm.conf names them, by
SlurmUser, for a job that is there, behind the gateway; beside a process that sends the bare requests.
"""

from __future__ import annotations

import pwd
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import limit
from benchmarks.figures import Figure
from benchmarks.processes import Pairs, rounded
from benchmarks.step import QPU
from qpu_slurm import config
from qpu_slurm.gateway.client import GatewayBroker
from qpu_slurm.journal.model import LeaseRequest
from qpu_slurm_devkit.cluster import Cluster
from qpu_slurm_devkit.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_JOBS = 100
_SRUNS = 10
_ROUNDS = 5
_LONGEST_SECONDS = 60
_CHECKOUT = Path(__file__).parents[1]
_EMPTY = {"PrologSlurmctld": "/bin/true", "EpilogSlurmctld": "/bin/true"}

_BATCH = """\
for number in $(seq {count}); do sbatch --quiet --output=/dev/null --wrap=true >/dev/null; done
while [ -n "$(squeue --noheader)" ]; do sleep 0.01; done
"""
"""A job is in the queue until its EpilogSlurmctld is over."""

_UNTIL_IT_RUNS = 'until [ -n "$(squeue --noheader --states=running)" ]; do sleep 0.05; done'

_HOOK_ROUNDS = 11
_DOES = {"prolog": "acquire", "epilog": "release"}
_NOTE_HOOK = {
    "prolog": "The hook asks Slurm for the job, and writes the session into its AdminComment.",
    "epilog": "",
}

_SRUN = "for number in $(seq {count}); do srun --quiet true; done\n"

_NOTE = "{ours:.1f} a second against {other:.1f}: {more:+.1f} ms a job. "
_NOTE_BATCH = (
    f"Each run submits {_JOBS} jobs with `sbatch --wrap=true`. "
    "The cost of hooks that do nothing is Slurm's own: two more processes a job, on the one machine that the "
    "whole cluster shares here. The hook's script takes no longer than `sh -c ''`."
)
_NOTE_SRUN = (
    "With any PrologSlurmctld, an srun that makes its own allocation polls every 0.1 s until the "
    "prolog has ended: see the next row. Steps of a running job do not wait like this, nor does sbatch."
)


def measure() -> Iterator[Figure]:
    """Run batches of small jobs with hooks, without, and with hooks that do nothing."""
    with ExitStack() as stack:
        ours = stack.enter_context(Lab(_CHECKOUT, credentials="user")).cluster
        plain = stack.enter_context(Cluster())
        empty = stack.enter_context(Cluster(settings=_EMPTY))
        batches = _take_turns((ours, plain, empty), _BATCH, _JOBS)
        yield _figure(
            "cost.throughput_with_hooks",
            "jobs a second without a QPU, with hooks, against none",
            Pairs(batches[0], batches[1]),
            _JOBS,
            at_least=0.95,
            note=_NOTE_BATCH,
        )
        yield _figure(
            "cost.throughput_vs_empty_hooks",
            "the same, against hooks that are /bin/true",
            Pairs(batches[0], batches[2]),
            _JOBS,
        )
        sruns = _take_turns((ours, plain, empty), _SRUN, _SRUNS)
        yield _figure(
            "cost.srun_with_hooks",
            f"the same, {_SRUNS} times `srun true` in sequence",
            Pairs(sruns[0], sruns[1]),
            _SRUNS,
            note=_NOTE_SRUN,
        )
        yield _figure(
            "cost.srun_vs_empty_hooks",
            "the same, against hooks that are /bin/true",
            Pairs(sruns[0], sruns[2]),
            _SRUNS,
        )

        lab = stack.enter_context(Lab(_CHECKOUT, credentials="gateway"))
        for hook, found in _hooks(lab).items():
            mine, bare = found.medians
            yield Figure(
                key=f"{_DOES[hook]}.hook_vs_limit",
                what=f"{hook} through the gateway, against a process with bare requests",
                value=found.ratio,
                details={"seconds": rounded(found.one), "limit_seconds": rounded(found.other)},
                note=f"{mine:.3f} s against {bare:.3f} s. {_NOTE_HOOK[hook]}".rstrip(),
            )


def _hooks(lab: Lab) -> dict[str, Pairs]:
    """Run the prolog of a job that runs and the epilog of one that is over, again and again."""
    running = lab.submit("#!/bin/sh\nsleep 600\n")
    _sh(lab.cluster, _UNTIL_IT_RUNS)
    over = lab.submit("#!/bin/sh\ntrue\n")
    lab.wait(over)
    user_id = pwd.getpwnam(lab.cluster.users[0]).pw_uid
    broker = GatewayBroker(config.load(lab.config))
    found = {hook: Pairs([], []) for hook in _DOES}
    for number in range(_HOOK_ROUNDS + 1):
        taken, session = _beside_its_limit(lab, "prolog", running, user_id, (QPU, "3600"))
        broker.release(running, "It was measured.")
        broker.acquire(LeaseRequest(job_id=over, user_id=user_id, qpus=(QPU,), seconds_left=3600))
        ended, _ = _beside_its_limit(lab, "epilog", over, user_id, (session,))
        if len(lab.emulator.sessions()) != 3 * (number + 1) or any(
            session.state != "closed" for session in lab.emulator.sessions()
        ):
            raise RuntimeError(f"the hooks did not do their work: {lab.hook_log}")
        if number:
            for hook, seconds in (("prolog", taken), ("epilog", ended)):
                found[hook].one.append(seconds[0])
                found[hook].other.append(seconds[1])
    return found


def _beside_its_limit(
    lab: Lab, hook: str, job: int, user_id: int, rest: tuple[str, ...]
) -> tuple[tuple[float, float], str]:
    """Run a hook, then its bare requests; return the seconds of both, and what the latter printed."""
    environ = {
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_UID": str(user_id),
        "SLURM_JOB_PARTITION": "normal",
        "SPANK_QPU_SLURM_QPU": QPU,
    }
    way = (lab.emulator.url, lab.account.api_key, lab.account.crn)
    begin = time.perf_counter()
    script = lab.cluster.settings[f"{hook.capitalize()}Slurmctld"]
    done = lab.cluster.run([script], user=lab.cluster.slurm_user, env=environ)
    between = time.perf_counter()
    bare = subprocess.run(
        [sys.executable, limit.__file__, _DOES[hook], *way, *rest],
        capture_output=True,
        text=True,
        check=True,
        timeout=_LONGEST_SECONDS,
    )
    end = time.perf_counter()
    if done.returncode:
        raise RuntimeError(f"the {hook} failed: {done.stderr}\n{lab.hook_log}")
    return (between - begin, end - between), bare.stdout.strip()


def _take_turns(clusters: Sequence[Cluster], text: str, count: int) -> list[list[float]]:
    """Measure each cluster in turn, after a first time of each that does not count."""
    taken: list[list[float]] = [[] for _ in clusters]
    for number in range(_ROUNDS + 1):
        for cluster, seconds in zip(clusters, taken, strict=True):
            begin = time.perf_counter()
            _sh(cluster, text.format(count=count))
            if number:
                seconds.append(time.perf_counter() - begin)
            cluster.wait_until_idle(_LONGEST_SECONDS)
    return taken


def _sh(cluster: Cluster, text: str) -> None:
    done = cluster.run(["/bin/sh", "-ec", text], timeout=_LONGEST_SECONDS)
    if done.returncode:
        raise RuntimeError(done.stderr)


def _figure(
    key: str, what: str, found: Pairs, count: int, *, at_least: float | None = None, note: str = ""
) -> Figure:
    ours, other = found.medians
    said = _NOTE.format(ours=count / ours, other=count / other, more=(ours - other) / count * 1e3)
    return Figure(
        key=key,
        what=what,
        value=1 / found.ratio,
        at_least=at_least,
        details={"seconds": rounded(found.one), "other_seconds": rounded(found.other)},
        note=(said + note).rstrip(),
    )
