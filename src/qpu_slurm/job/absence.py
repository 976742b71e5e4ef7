# SPDX-License-Identifier: Apache-2.0
"""Why a process has no QPU: each way to get there has a remedy of its own.

The variables of a job's QPUs are there in its batch script and in its steps. A process that lacks them may be
elsewhere: in salloc's shell on a login host, in an environment that was cleared, outside of any job. One that
has them may have outlived its job.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from qpu_slurm.errors import NoLeaseError

if TYPE_CHECKING:
    from collections.abc import Mapping

ASKED: Final = "SLURM_SPANK_QPU_SLURM_QPU"
"""The value of `--qpu`, as the plugin published it: there whatever the hooks did."""

NODE: Final = "QPU_SLURM_NODE"
"""The node on which the plugin asked for the job's QPUs last (plugin/remote.c)."""

_LONGEST_SHOWN: Final = 64
_SQUEUE_SECONDS: Final = 5.0

_OVER: Final = re.compile("Invalid job id", re.IGNORECASE)
_GOES_ON: Final = frozenset({"RUNNING", "SUSPENDED", "CONFIGURING"})

_STEP_CGROUP: Final = re.compile(rb"/job_(\d{1,10})/step_")
"""A step's control group, with Slurm's cgroup plugin of either version."""

_STEPD: Final = re.compile(rb"slurmstepd: \[(\d{1,10})\D")
"""How slurmstepd calls itself: `slurmstepd: [4711.batch]`."""


def why_no_qpu(environ: Mapping[str, str]) -> str:
    """Say why an environment has no variables of QPUs, and what to do.

    Args:
        environ: The process's environment.
    """
    job_id, asked, node = environ.get("SLURM_JOB_ID"), environ.get(ASKED), environ.get("SLURMD_NODENAME")
    if not job_id:
        job = _surrounding_job()
        if job is None:
            return (
                "This is not in a Slurm job. Submit it with `sbatch --qpu=NAME …`, or run "
                "`srun --qpu=NAME task_runner …`."
            )
        return (
            f"This environment lacks the variables of job {job}: it was cleared, as by `env -i`, sudo "
            "or su. Keep the environment of the job's script, or of srun."
        )
    if node is None:
        return (
            f"This shell is not in a step of job {job_id}, and only the job's steps know its QPUs. "
            "Run `srun task_runner …`."
        )
    if not asked:
        return "This job has no QPU. Submit it with --qpu=NAME (and --gres=qpu:1 to execute on it)."
    asking = f"This job was submitted with --qpu={asked[:_LONGEST_SHOWN]}"
    if environ.get(NODE) != os.uname().nodename:
        return (
            f"{asking}, but Slurm's plugin qpu_slurm did not run on {node[:_LONGEST_SHOWN]}: it is missing "
            "there, or was built for another release of Slurm. Ask the cluster's admin to run "
            "`qpu-slurm check`."
        )
    return (
        f"{asking}, and nothing was acquired for it: the cluster's hooks did not run. Ask the cluster's "
        "admin to run `qpu-slurm check`."
    )


def make_sure_job_runs(environ: Mapping[str, str]) -> None:
    """Make sure that this process has not outlived its job: its session may be another job's by now.

    Slurm is only asked where nothing shows that this process is in a step: after `nohup`, in a container.

    Args:
        environ: The process's environment.

    Raises:
        NoLeaseError: The job is over.
    """
    job_id = environ.get("SLURM_JOB_ID", "")
    if not job_id.isdecimal() or "SLURMD_NODENAME" not in environ or _surrounding_job() is not None:
        return
    # A process in its job, which most are, has no use for them.
    import shutil  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    squeue = shutil.which("squeue", path=environ.get("PATH", os.defpath))
    if squeue is None:
        return
    try:
        listing = subprocess.run(
            [squeue, "--noheader", f"--jobs={job_id}", "--format=%T"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SQUEUE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return  # Slurm does not say, and the service will.
    states = frozenset(listing.stdout.split())
    over = not states & _GOES_ON if listing.returncode == 0 else _OVER.search(listing.stderr)
    if over:
        raise NoLeaseError(
            f"Job {job_id} is over, and so are its sessions. Submit another one with --qpu=NAME."
        )


def _surrounding_job() -> int | None:
    """Return the job whose step this process is in, as the kernel shows it; None if that cannot be seen."""
    try:
        with open("/proc/self/cgroup", "rb") as file:  # noqa: PTH123 - a file of a few bytes
            groups = file.read()
    except OSError:
        groups = b""
    return job_of_cgroups(groups) or _job_of_ancestors()


def job_of_cgroups(groups: bytes) -> int | None:
    """Return the job in whose step's control group a process is.

    Args:
        groups: The process's file `cgroup` (cgroups(7)).
    """
    found = _STEP_CGROUP.search(groups)
    return int(found[1]) if found else None


def _job_of_ancestors() -> int | None:
    """Return the job whose slurmstepd is among this process's parents; None if there is none."""
    pid = os.getpid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - a file of a few bytes, many times
                if found := _STEPD.match(file.read(_LONGEST_SHOWN)):
                    return int(found[1])
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - likewise
                # What is behind the name, which may hold anything: the state, the parent.
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None  # another user's, where /proc hides those
    return None
