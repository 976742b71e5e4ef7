# SPDX-License-Identifier: Apache-2.0
"""Steps and batch scripts that start while nobody has an answer for them: they wait, and nothing else does.

The stage's steps wait for an hour: what ends before was not their patience.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from qpu_slurm_devkit.cluster import Cluster
from tests.cluster.stage import Stage, wait_for, waiting_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qpu_slurm_devkit.lab import Lab

HOUR = 3600

TOLD = re.compile(
    r"qpu_slurm: The gateway is away\. This step waits for an answer until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\."
)

SAY = "echo ran $SLURM_JOB_QPU_RESOURCES"
BATCH = "#!/bin/sh\n#SBATCH --qpu=ibm_fez\n"
PAUSE = "echo ready\nwhile [ ! -e go ]; do sleep 0.1; done\n"


@pytest.fixture(scope="module")
def shared_stage() -> Iterator[Stage]:
    settings = {
        "PrologFlags": "contain",  # jobs have an extern step
        "LaunchParameters": "use_interactive_step",
        "KillWait": "5",
    }
    stage = Stage(Cluster(settings=settings))
    stage.set(patience=HOUR)
    with stage.cluster:
        yield stage


@pytest.fixture
def away(stage: Stage) -> Iterator[Stage]:
    """Return the stage, where there is no answer; whatever a test does, nothing waits after it."""
    (stage.cluster.home() / "go").unlink(missing_ok=True)
    stage.leave()
    yield stage
    (stage.cluster.home() / "go").touch()
    stage.come_back()
    wait_for(lambda: waiting_tasks(stage.cluster) == [])


def submit(stage: Stage, script: str = f"{SAY}\n", options: str = "") -> int:
    """Submit a batch job, and wait until its script waits."""
    job = stage.cluster.submit(f"#!/bin/sh\n#SBATCH --qpu=ibm_fez {options}\n{script}")
    wait_for(lambda: TOLD.search(stage.cluster.output(job)) is not None)
    return job


def start(stage: Stage, *argv: str, tasks: int = 1) -> subprocess.Popen[str]:
    """Start a command, and wait until so many tasks wait."""
    process = stage.cluster.popen(argv, stdin=subprocess.PIPE)
    wait_for(lambda: len(waiting_tasks(stage.cluster)) == tasks)
    return process


def on_a_terminal(stage: Stage, command: str) -> subprocess.Popen[str]:
    """Start a command on a terminal of its own: what it is typed comes from stdin."""
    return start(stage, "script", "--quiet", "--return", "--command", command, "/dev/null")


def finish(process: subprocess.Popen[str], typed: str = "") -> tuple[str, str]:
    return process.communicate(typed, timeout=120)


def newest(stage: Stage) -> str:
    return max(stage.cluster.ask("squeue", "--noheader", "--format=%A").split(), key=int)


# They go on when there is an answer.


def test_a_batch_script_and_its_steps_go_on_when_there_is_an_answer(away: Stage) -> None:
    job = submit(away, f"{SAY}\n{PAUSE}srun sh -c '{SAY}'\n")
    away.come_back()
    wait_for(lambda: "ready" in away.cluster.output(job))
    away.leave()
    (away.cluster.home() / "go").touch()
    wait_for(lambda: len(TOLD.findall(away.cluster.output(job))) == 2)
    away.come_back()

    assert away.cluster.wait(job) == "COMPLETED"
    said = TOLD.sub("told", away.cluster.output(job)).splitlines()
    assert said == ["told", "ran ibm_fez", "ready", "told", "ran ibm_fez"]
    # Its steps are known to have begun, and to have ended.
    ends = [report.step for report in away.ended(job, 2) if report.command == "step-end"]
    assert sorted(ends) == ["0", "batch"]


def test_the_tasks_of_a_node_share_an_answer(away: Stage) -> None:
    before, again = len(away.askers()), away.asked_again()
    srun = start(away, "srun", "--qpu=ibm_fez", "-N2", "-n8", "sh", "-c", f"{SAY} $QPU_SLURM_STEP", tasks=8)
    # On each node, one was told that there is no answer yet.
    wait_for(lambda: away.asked_again() == again + 2)
    away.come_back()
    back = len(away.askers())

    said, told = finish(srun)
    assert srun.returncode == 0, told
    lines = said.splitlines()
    assert len(lines) == 8
    # The step's end is reported by its first node, whose tasks all know by which mark.
    assert sorted(set(map(len, map(str.split, lines)))) == [2, 3]
    assert len({line.split()[2] for line in lines if len(line.split()) == 3}) == 1
    assert len(TOLD.findall(told)) == 2
    asked = away.askers()[before:]
    if os.geteuid() == 0:
        # On each node slurmstepd asks first, and then one task at a time, as its user.
        assert (asked[0], asked.count(0)) == (0, 2)
        assert set(asked) == {0, 65534}
    # On each node one that was under way, and one that got the answer.
    assert len(asked) - (back - before) <= 2 * 2, "eight tasks would have asked"


def test_what_tasks_share_is_out_of_their_programs_reach(away: Stage) -> None:
    srun = start(away, "srun", "--qpu=ibm_fez", "sh", "-c", "cat /proc/self/maps; ls -l /proc/self/fd")
    away.come_back()

    seen, told = finish(srun)
    assert srun.returncode == 0, told
    assert "[stack]" in seen
    assert "/dev/zero" not in seen
    assert "memfd" not in seen


def test_a_heterogeneous_step_waits_in_each_component(away: Stage) -> None:
    away.come_back()
    job = away.cluster.submit(
        f"{BATCH}#SBATCH hetjob\n#SBATCH --partition=quantum\n{PAUSE}srun --het-group=0,1 sh -c '{SAY}'\n"
    )
    wait_for(lambda: "ready" in away.cluster.output(job))
    away.leave()
    (away.cluster.home() / "go").touch()
    wait_for(lambda: len(waiting_tasks(away.cluster)) == 2)
    away.come_back()

    assert away.cluster.wait(job) == "COMPLETED"
    assert away.cluster.output(job).count("ran ibm_fez") == 2
    assert len(TOLD.findall(away.cluster.output(job))) == 2


def test_a_step_on_a_terminal_waits_there(away: Stage) -> None:
    srun = on_a_terminal(away, f"srun --qpu=ibm_fez --pty sh -c 'tty; {SAY}'")
    away.come_back()

    said, _ = finish(srun)
    assert srun.returncode == 0, said
    assert TOLD.search(said)
    assert "/dev/pts/" in said
    assert "ran ibm_fez" in said


def test_the_shell_of_an_allocation_waits(away: Stage) -> None:
    salloc = on_a_terminal(away, "salloc --qpu=ibm_fez")
    away.come_back()
    wait_for(lambda: waiting_tasks(away.cluster) == [])

    said, _ = finish(salloc, f"{SAY}; exit\n")
    assert salloc.returncode == 0, said
    assert TOLD.search(said)
    assert "ran ibm_fez" in said


def test_the_extern_step_asks_nobody(away: Stage) -> None:
    job = submit(away)
    away.come_back()
    assert away.cluster.wait(job) == "COMPLETED"
    assert "extern" in "".join(away.cluster.log(f"c{number}") for number in range(1, 5))
    asked = {tuple(call[2:4]) for call in away.asked(job) if call[0] == "job-env"}
    assert asked == {("--step", "batch")}


def test_a_job_without_a_qpu_does_not_wait(away: Stage) -> None:
    job = away.cluster.submit("#!/bin/sh\necho ran\n")
    assert away.cluster.wait(job) == "COMPLETED"


def test_a_job_that_is_suspended_while_it_waits_goes_on(away: Stage) -> None:
    job = submit(away)
    away.cluster.ask("scontrol", "suspend", str(job))
    wait_for(lambda: [task.status() for task in waiting_tasks(away.cluster)] == [psutil.STATUS_STOPPED])
    away.come_back()
    time.sleep(1)
    assert "ran" not in away.cluster.output(job)
    away.cluster.ask("scontrol", "resume", str(job))
    assert away.cluster.wait(job) == "COMPLETED"
    assert "ran ibm_fez" in away.cluster.output(job)


# They end when they are told to.


def test_a_batch_script_that_waits_is_cancelled(away: Stage) -> None:
    job = submit(away)
    away.cluster.run(["scancel", str(job)])

    assert away.cluster.wait(job) == "CANCELLED"
    wait_for(lambda: waiting_tasks(away.cluster) == [])
    assert "ran" not in away.cluster.output(job)


def interrupt(stage: Stage, srun: subprocess.Popen[str]) -> None:
    assert waiting_tasks(stage.cluster)
    os.killpg(srun.pid, signal.SIGINT)
    time.sleep(0.2)
    os.killpg(srun.pid, signal.SIGINT)


def terminate(stage: Stage, srun: subprocess.Popen[str]) -> None:
    assert waiting_tasks(stage.cluster)
    os.killpg(srun.pid, signal.SIGTERM)


def cancel(stage: Stage, srun: subprocess.Popen[str]) -> None:
    assert srun.poll() is None
    stage.cluster.run(["scancel", newest(stage)])


@pytest.mark.parametrize("end", [interrupt, terminate, cancel])
@pytest.mark.parametrize(("options", "tasks"), [((), 1), (("-N2", "-n6"), 6)], ids=["task", "tasks"])
def test_a_step_that_waits_ends_when_it_is_told_to(
    away: Stage,
    end: Callable[[Stage, subprocess.Popen[str]], None],
    options: tuple[str, ...],
    tasks: int,
) -> None:
    srun = start(away, "srun", "--qpu=ibm_fez", *options, "echo", "ran", tasks=tasks)
    end(away, srun)

    said, told = finish(srun)
    assert srun.returncode != 0, told
    assert said == ""
    wait_for(lambda: waiting_tasks(away.cluster) == [])


@pytest.mark.parametrize("command", ["srun --qpu=ibm_fez --pty echo ran", "salloc --qpu=ibm_fez"])
def test_ctrl_c_on_a_terminal_ends_what_waits_there(away: Stage, command: str) -> None:
    process = on_a_terminal(away, command)
    assert process.stdin is not None
    process.stdin.write("\x03")
    process.stdin.flush()

    process.wait(120)
    said, _ = finish(process)
    assert process.returncode != 0
    assert "ran" not in said.replace("Granted", "")
    wait_for(lambda: waiting_tasks(away.cluster) == [])


def test_the_time_limit_ends_what_waits(away: Stage) -> None:
    job = submit(away, options="--time=1")
    assert away.cluster.wait(job) == "TIMEOUT"
    wait_for(lambda: waiting_tasks(away.cluster) == [])
    assert "ran" not in away.cluster.output(job)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_slurmd_that_is_started_again_finds_what_waits(away: Stage, number: int) -> None:
    first, second = submit(away, options="--nodelist=c1"), submit(away, options="--nodelist=c1")
    away.cluster.kill("c1", number)
    away.cluster.restart("c1")
    assert len(waiting_tasks(away.cluster)) == 2
    away.cluster.run(["scancel", str(first)])
    assert away.cluster.wait(first) == "CANCELLED"
    away.come_back()
    assert away.cluster.wait(second) == "COMPLETED"
    assert "ran ibm_fez" in away.cluster.output(second)


# Their patience has an end.


@pytest.fixture(scope="module")
def hasty_stage() -> Iterator[Stage]:
    """One cluster where a step waits for three seconds."""
    stage = Stage(Cluster())
    stage.set(patience=3)
    with stage.cluster:
        stage.leave()
        yield stage


LATE = "qpu_slurm: The gateway is away. There was no answer for 3 s. Submit the job again later.\n"


def test_a_batch_script_that_waits_too_long_ends_with_a_sentence(hasty_stage: Stage) -> None:
    job = hasty_stage.cluster.submit(f"{BATCH}{SAY}\n")
    assert hasty_stage.cluster.wait(job) == "FAILED"
    said = hasty_stage.cluster.output(job)
    assert TOLD.match(said)
    assert said.endswith(LATE)
    assert "ExitCode=1:0" in hasty_stage.cluster.ask("scontrol", "show", "job", str(job))
    hasty_stage.cluster.wait_until_idle()


def test_a_step_that_waits_too_long_fails(hasty_stage: Stage) -> None:
    done = hasty_stage.cluster.run(["srun", "--qpu=ibm_fez", "-n4", "echo", "ran"])
    assert (done.returncode, done.stdout) == (1, "")
    assert len(TOLD.findall(done.stderr)) == 1
    assert done.stderr.count(LATE) == 1
    hasty_stage.cluster.wait_until_idle()


# With the real helper: a gateway that is down, and a slurmctld.

SESSION = "echo session $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN"
WAITS = r"qpu_slurm: .*This step waits for an answer until"


@pytest.fixture
def held(lab: Lab) -> Iterator[Path]:
    """Return the file that lets a job start that was submitted with `--comment=held:start`."""
    start = lab.cluster.home() / "start"
    for path in (start, start.with_name("start.held")):
        path.unlink(missing_ok=True)
    yield start
    start.touch()


def wait_until_held(lab: Lab, held: Path) -> None:
    """Wait until the job has its session, and is about to start."""
    lab.emulator.wait_for(lambda _: held.with_name("start.held").exists(), seconds=120)
    assert [session.accepting_tasks for session in lab.emulator.sessions()] == [True]


def read_until_told(process: subprocess.Popen[str], *, nodes: int) -> str:
    """Read what a command's user is told, until a task of each node has said what it waits for."""
    assert process.stderr is not None
    told = ""
    while len(re.findall(WAITS, told)) < nodes and (line := process.stderr.readline()):
        told += line
    return told


def outage_of_the_gateway(lab: Lab) -> tuple[Callable[[], object], Callable[[], object]]:
    assert lab.gateway is not None
    return lab.gateway.kill, lab.gateway.start


def outage_of_slurmctld(lab: Lab) -> tuple[Callable[[], object], Callable[[], object]]:
    def go_away() -> None:
        if lab.gateway is not None:
            # One that knows the job from its start asks nobody.
            lab.gateway.stop()
            lab.gateway.start()
        # It has to know of the job when it is back.
        lab.cluster.kill("slurmctld", signal.SIGTERM)

    return go_away, lambda: lab.cluster.restart("slurmctld")


OUTAGES = {"gateway": outage_of_the_gateway, "slurmctld": outage_of_slurmctld}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_a_batch_script_waits_for_who_is_down(
    lab: Lab, held: Path, outage: Callable[[Lab], tuple[Callable[[], object], Callable[[], object]]]
) -> None:
    go_away, come_back = outage(lab)
    output = lab.cluster.home() / "held.out"
    output.unlink(missing_ok=True)
    options = "#SBATCH --qpu=ibm_fez --comment=held:start --output=held.out\n"
    job = lab.submit(f"#!/bin/sh\n{options}{SESSION}\nsrun sh -c '{SESSION}'\n")
    wait_until_held(lab, held)
    go_away()
    held.touch()
    try:
        lab.emulator.wait_for(lambda _: output.exists() and re.search(WAITS, output.read_text()), seconds=120)
    finally:
        come_back()

    assert lab.wait(job) == "COMPLETED", output.read_text()
    (session,) = lab.emulator.sessions()
    assert output.read_text().count(f"session {session.id}") == 2


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_a_step_on_several_nodes_waits_for_who_is_down(
    lab: Lab, held: Path, outage: Callable[[Lab], tuple[Callable[[], object], Callable[[], object]]]
) -> None:
    go_away, come_back = outage(lab)
    argv = ["srun", "--qpu=ibm_fez", "-N2", "-n4", "--comment=held:start", "sh", "-c", SESSION]
    srun = lab.cluster.popen(argv, env=lab.environ)
    wait_until_held(lab, held)
    go_away()
    held.touch()
    try:
        wait_for(lambda: len(waiting_tasks(lab.cluster)) == 4)
        told = read_until_told(srun, nodes=2)
    finally:
        come_back()

    said, rest = srun.communicate(timeout=180)
    told += rest
    assert srun.returncode == 0, told
    (session,) = lab.emulator.sessions()
    assert said.split("\n").count(f"session {session.id}") == 4, lab.gateway_log[-6000:]
    assert len(re.findall(WAITS, told)) == 2
