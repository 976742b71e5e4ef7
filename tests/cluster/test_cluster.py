# SPDX-License-Identifier: Apache-2.0
"""The throw-away cluster: that it is real, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil
import pytest

from qpu_slurm.errors import SlurmError
from qpu_slurm_devkit.cluster import SEED_LAYOUT, Cluster, Node

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
AS_ROOT = os.geteuid() == 0


def test_every_node_is_idle(cluster: Cluster) -> None:
    cluster.wait_until_idle()
    assert cluster.node_states() == dict.fromkeys(("c1", "c2", "c3", "c4", "c5"), "idle")


@pytest.mark.parametrize("number", range(2 if AS_ROOT else 1))
def test_jobs_are_run_by_ordinary_users_in_their_homes(cluster: Cluster, number: int) -> None:
    user = cluster.users[number]
    job = cluster.submit("#!/bin/sh\nid -un; pwd; srun id -un\n", user=user)
    assert cluster.wait(job) == "COMPLETED"
    assert cluster.output(job).split() == [user, str(cluster.home(user)), user]
    if AS_ROOT:
        assert user not in {"root", cluster.slurm_user}


def test_a_user_reaches_neither_munges_key_nor_slurms_state_nor_another_home(cluster: Cluster) -> None:
    if not AS_ROOT:
        assert (cluster.directory / "munge" / "key").stat().st_mode & 0o077 == 0
        return
    for path in (
        cluster.directory / "munge/key",
        cluster.directory / "state",
        cluster.home(cluster.users[1]),
    ):
        refused = cluster.run(["ls" if path.is_dir() else "cat", str(path)])
        assert refused.returncode
        assert "Permission denied" in refused.stderr


def test_a_heterogeneous_job_runs_in_both_partitions(cluster: Cluster) -> None:
    script = "#!/bin/sh\nsrun --het-group=0,1 sh -c 'echo $SLURMD_NODENAME'\n"
    components = ["--ntasks=1", ":", "--ntasks=1", "--partition=quantum", "--gres=qpu:1"]
    script_path = cluster.home() / "het.sh"
    script_path.write_text(script)
    script_path.chmod(0o755)
    job = cluster.submit([*components, str(script_path)])
    assert cluster.wait(job) == "COMPLETED"
    assert "c5" in cluster.output(job).split()


def test_it_says_why_sbatch_refused(cluster: Cluster) -> None:
    with pytest.raises(SlurmError, match="invalid partition"):
        cluster.submit(["--partition=nowhere", "--wrap=true"])


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(cluster: Cluster) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        cluster.run(["sh", "-c", "sleep 1234.5 & wait"], timeout=0.5)
    assert not [process for process in psutil.process_iter() if "1234.5" in _arguments(process)]


def test_waiting_for_a_job_includes_its_epilog() -> None:
    cluster = Cluster(SEED_LAYOUT[:1])
    ended = cluster.directory / "run" / "ended"
    hook = cluster.directory / "epilog"
    hook.write_text(f"#!/bin/sh\nexport PATH=/usr/bin:/bin\nsleep 1\necho done > {ended}\n")
    hook.chmod(0o755)
    cluster.settings["EpilogSlurmctld"] = str(hook)
    with cluster:
        assert cluster.wait(cluster.submit("#!/bin/sh\n")) == "COMPLETED"
        assert ended.read_text() == "done\n"


def test_other_layouts_have_typed_gres() -> None:
    nodes = (Node("login", "cpu"), Node("q1", "qpu", "qpu:ibm_fez:1,qpu:ibm_torino:1"))
    with Cluster(nodes) as cluster:
        job = cluster.submit(["--partition=qpu", "--gres=qpu:ibm_torino:1", "--wrap=true"])
        assert cluster.wait(job) == "COMPLETED"
        with pytest.raises(SlurmError, match="node configuration is not available"):
            cluster.submit(["--partition=qpu", "--gres=qpu:ibm_kyiv:1", "--wrap=true"])


def test_daemons_can_be_killed_and_restarted() -> None:
    with Cluster(SEED_LAYOUT[:2]) as cluster:
        job = cluster.submit(["--wrap=sleep 2"])
        # In order: killed outright it forgets what it did not write down in the last five seconds.
        cluster.kill("slurmctld", signal.SIGTERM)
        cluster.restart("slurmctld")
        for daemon in ("c1", "munged"):
            cluster.kill(daemon)
            cluster.restart(daemon)
        cluster.restart("c2")
        assert cluster.wait(job) == "COMPLETED"
        cluster.wait_until_idle()


def test_nothing_is_left_after_a_job_that_hides_its_processes() -> None:
    with Cluster(SEED_LAYOUT[:1]) as cluster:
        job = cluster.submit("#!/bin/sh\nenv -i setsid sh -c 'sleep 1000 & echo $!' &\nsleep 1000\n")
        hidden = psutil.Process(int(_eventually(lambda: cluster.output(job).strip())))
        client = cluster.popen(["srun", "sleep", "1000"])
    _assert_gone([hidden])
    assert client.returncode is not None
    assert not cluster.directory.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("seconds", [0.0, 1.0], ids=["starting", "running"])
def test_nothing_is_left_when_its_user_is_killed(number: int, seconds: float) -> None:
    program = (
        "import time\n"
        "from qpu_slurm_devkit.cluster import *\n"
        "cluster = Cluster(SEED_LAYOUT[:2])\n"
        "print(cluster.directory, flush=True)\n"
        "with cluster:\n"
        "    cluster.submit(['--wrap=sleep 1000'])\n"
        "    cluster.popen(['srun', 'sleep', '1000'])\n"
        "    time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as user:
        assert user.stdout is not None
        directory = Path(user.stdout.readline().strip())
        _eventually((directory / "munge" / "socket").exists)
        time.sleep(seconds)
        processes = psutil.Process(user.pid).children(recursive=True)
        user.send_signal(number)
    assert processes
    _assert_gone(processes)
    _eventually(lambda: not directory.exists())


def test_a_daemon_that_cannot_start_is_named_with_its_last_words() -> None:
    # slurmd does not read this setting.
    cluster = Cluster(settings={"SchedulerType": "sched/imaginary"})
    with pytest.raises(SlurmError, match=r"(?s)slurmctld has ended.*imaginary"):
        cluster.start()
    assert not cluster.directory.exists()


def test_the_directory_is_kept_on_request() -> None:
    with Cluster(SEED_LAYOUT[:1], keep_directory=True) as cluster:
        pass
    assert "slurmctld version" in (cluster.directory / "log" / "slurmctld.log").read_text()
    cluster.keep_directory = False
    cluster.stop()
    assert not cluster.directory.exists()


def _eventually(happened: Callable[[], T], seconds: float = 20) -> T:
    deadline = time.monotonic() + seconds
    while not (answer := happened()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return answer


def _assert_gone(processes: list[psutil.Process]) -> None:
    _gone, alive = psutil.wait_procs(processes, timeout=240)
    # PID 1 of a container may leave the dead unburied.
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
