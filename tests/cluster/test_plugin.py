# SPDX-License-Identifier: Apache-2.0
"""The SPANK plugin in a real Slurm, between a hook and a helper that write down what they are given.

What qpu_slurm makes of it is tested elsewhere: here, no service and no gateway is behind the plugin.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest

from qpu_slurm.devkit.cluster import Cluster
from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm.job import STEP_NAME, HookJob
from tests.cluster.conftest import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOOK = "#!/bin/sh\n/usr/bin/env -0 >{directory}/hooks/$SLURM_JOB_ID\n"

HELPER = """\
#!/bin/sh
echo "$@" >>{directory}/asked
case $3 in
job-env)
    [ ! -e {directory}/answer ] || exec cat {directory}/answer
    echo SLURM_JOB_QPU_RESOURCES=ibm_fez
    ;;
step-end)
    [ ! -e {directory}/hangs ] || exec tail -f {directory}/hangs
    ;;
esac
"""


class Report(NamedTuple):
    """A call of the helper that says that a step starts or has ended."""

    command: str
    job_id: int
    step: str
    name: str
    at: float


class Stage:
    """A cluster with the plugin on it.

    Attributes:
        cluster: The cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._directory = cluster.directory / "stage"

    def set(self) -> None:
        """Put everything in its place, before the cluster starts."""
        hooks = self._directory / "hooks"
        hooks.mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(hooks, self.cluster.slurm_user)
        plugin = self._directory / "qpu_slurm.so"
        subprocess.run(
            ["/usr/bin/make", "--silent", f"BUILD={self._directory}", str(plugin)],
            cwd=CHECKOUT / "plugin",
            check=True,
            timeout=120,
        )
        hook, helper = self._program("hook", HOOK), self._program("helper", HELPER)
        self.cluster.settings["PrologSlurmctld"] = str(hook)
        self.cluster.plugstack.append(
            f"required {plugin} qpus=ibm_fez,ibm_torino gres_partitions=quantum helper={helper} config=/none"
        )

    def _program(self, name: str, text: str) -> Path:
        path = self._directory / name
        path.write_text(text.format(directory=self._directory))
        path.chmod(0o755)
        return path

    def hold(self, job_id: int) -> str | None:
        """Return what a job's PrologSlurmctld was told of --qpu-hold."""
        text = (self._directory / "hooks" / str(job_id)).read_text()
        return HookJob.from_environ(dict(entry.split("=", 1) for entry in text.split("\0") if entry)).hold

    def answer(self, said: bytes | None) -> None:
        """Have the helper say something else about the variables of steps."""
        path = self._directory / "answer"
        path.unlink(missing_ok=True)
        if said is not None:
            path.write_bytes(said)

    def hang(self) -> None:
        """Have telling that a step has ended take for ever, until `unhang`."""
        (self._directory / "hangs").touch()

    def unhang(self) -> None:
        (self._directory / "hangs").unlink(missing_ok=True)

    def hanging(self) -> list[psutil.Process]:
        """Return the processes that would tell for ever."""
        file = str(self._directory / "hangs")
        return [
            process for process in psutil.process_iter(["cmdline"]) if file in (process.info["cmdline"] or ())
        ]

    def asked(self, job_id: int) -> list[list[str]]:
        """Return the arguments of all calls of the helper for a job, without what is always the same."""
        path = self._directory / "asked"
        calls = [line.split()[2:] for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in calls if call[1] == str(job_id)]

    def reports(self, job_id: int) -> list[Report]:
        """Return what was told of a job's steps."""
        found = []
        for command, _, *rest in self.asked(job_id):
            if command == "job-env" and rest:
                option, step, name, at, seconds = rest
                assert (option, at) == ("--step", "--at")
                found.append(Report(command, job_id, step, name.removeprefix("--name="), float(seconds)))
            elif command == "step-end":
                step, at, seconds = rest
                assert at == "--at"
                found.append(Report(command, job_id, step, "", float(seconds)))
        return found

    def ended(self, job_id: int, count: int) -> list[Report]:
        """Wait until the end of so many steps was told; return all reports."""
        wait_for(lambda: sum(report.command == "step-end" for report in self.reports(job_id)) >= count)
        return self.reports(job_id)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def shared_stage() -> Iterator[Stage]:
    cluster = Cluster()
    stage = Stage(cluster)
    stage.set()
    with cluster:
        yield stage


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    """Return the stage; whatever a test does, no node is lost."""
    yield shared_stage
    shared_stage.answer(None)
    shared_stage.unhang()
    shared_stage.cluster.wait_until_idle()


# --qpu-hold


HET = "#SBATCH hetjob\n"

HOLDS = {
    "with --qpu": ("#SBATCH --qpu=ibm_fez --qpu-hold=task\n", ["task"]),
    "as it is anyway": ("#SBATCH --qpu=ibm_fez --qpu-hold=job\n", ["job"]),
    "not said": ("#SBATCH --qpu=ibm_fez\n", [None]),
    "with a gres alone": ("#SBATCH --gres=qpu:1 --partition=quantum --qpu-hold=task\n", ["task"]),
    "--export=NONE": ("#SBATCH --qpu=ibm_fez --qpu-hold=task --export=NONE\n", ["task"]),
    "the last one counts": ("#SBATCH --qpu-hold=task\n#SBATCH --qpu-hold=job\n", ["job"]),
    # As with every option of a plugin, what the first component says is said for those after it.
    "the first component": (f"#SBATCH --qpu=ibm_fez --qpu-hold=task\n{HET}", ["task", "task"]),
    "the second component": (f"#SBATCH --qpu=ibm_fez\n{HET}#SBATCH --qpu-hold=task\n", [None, "task"]),
    "the second component alone": (
        f"{HET}#SBATCH --qpu=ibm_fez --qpu-hold=task --gres=qpu:1 --partition=quantum\n",
        [None, "task"],
    ),
}


@pytest.mark.parametrize(("options", "holds"), HOLDS.values(), ids=HOLDS)
def test_the_hook_learns_how_long_a_session_is_open(
    stage: Stage, options: str, holds: list[str | None]
) -> None:
    job = stage.cluster.submit(f"#!/bin/sh\n{options}srun /bin/true\n")
    assert stage.cluster.wait(job) == "COMPLETED", stage.cluster.output(job)
    assert [stage.hold(job + offset) for offset in range(len(holds))] == holds


def test_so_it_does_from_the_command_line(stage: Stage) -> None:
    quantum = ["--partition=quantum", "--qpu=ibm_fez", "--qpu-hold=task"]
    job = stage.cluster.submit(["--partition=normal", "--wrap=true", ":", *quantum])
    assert stage.cluster.wait(job) == "COMPLETED"
    assert [stage.hold(job), stage.hold(job + 1)] == [None, "task"]
    for command in (["srun", *quantum], ["salloc", *quantum, "srun"]):
        done = stage.cluster.run([*command, "sh", "-c", "echo $SLURM_JOB_ID"])
        assert done.returncode == 0, done.stderr
        assert stage.hold(int(done.stdout)) == "task"


REFUSED = {
    "nothing": "",
    "no such way": "session",
    "in other letters": "Task",
    "both": "job,task",
    "a line more": "task\nx",
    "a terminal's": "\x1b[2J",
    "a format": "%n%s%n",
    "no text": "\udcff\udcfe",
    "as long as Linux lets it be": "task" * 32_000,
}


@pytest.mark.parametrize("option", ["--qpu-hold", "--qpu"])
@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("command", ["sbatch", "srun", "salloc"])
def test_a_value_that_is_none_is_refused_with_a_sentence(
    stage: Stage, command: str, value: str, option: str
) -> None:
    rest = ["--wrap=true"] if command == "sbatch" else ["true"]
    done = stage.cluster.run([command, f"{option}={value}", *rest])
    assert done.returncode != 0
    # What Slurm says besides is Slurm's.
    (said,) = (line for line in done.stderr.splitlines() if f"qpu_slurm: {option}: " in line)
    assert said.isprintable()
    assert len(said) < 300


@pytest.mark.parametrize("option", ["--qpu-hold", "--qpu"])
def test_a_script_may_hold_whatever(stage: Stage, option: str) -> None:
    with pytest.raises(SlurmError, match=f"qpu_slurm: {option}: "):
        stage.cluster.submit(f"#!/bin/sh\n#SBATCH {option}={'task' * 250_000}\ntrue\n")


def test_a_nested_submission_says_it_for_itself(stage: Stage) -> None:
    outer = stage.cluster.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez --qpu-hold=task\n"
        "sbatch --parsable --wrap 'env | grep SPANK' --qpu=ibm_torino\n"
        "sbatch --parsable --wrap 'env | grep SPANK'\n"
        "sbatch --parsable --wrap true --qpu-hold=job --qpu=ibm_torino\n"
    )
    assert stage.cluster.wait(outer) == "COMPLETED"
    own, none, other = (int(line) for line in stage.cluster.output(outer).split())
    for job in (own, none, other):
        stage.cluster.wait(job)
    assert [stage.hold(job) for job in (outer, own, none, other)] == ["task", None, None, "job"]
    assert "HOLD" not in stage.cluster.output(own)
    assert stage.cluster.output(none) == ""


def test_what_a_user_forges_is_forgotten_at_submission(stage: Stage) -> None:
    forged = {
        "SLURM_SPANK_QPU_SLURM_HOLD": "task",
        "SLURM_SPANK_QPU_SLURM_QPU": "ibm_torino",
        "SLURM_SPANK__SLURM_SPANK_OPTION_qpu_slurm_qpu_hold": "task",
        "SLURM_SPANK__SLURM_SPANK_OPTION_qpu_slurm_qpu": "ibm_torino",
        "_SLURM_SPANK_OPTION_qpu_slurm_qpu_hold": "task",
        "_SLURM_SPANK_OPTION_qpu_slurm_qpu": "ibm_torino",
        "SPANK_QPU_SLURM_HOLD": "task",
        "SPANK_QPU_SLURM_QPU": "ibm_torino",
    }
    for argv in (["sbatch", "--wait", "--wrap=true"], ["srun", "true"], ["salloc", "true"]):
        done = stage.cluster.run(argv, env=forged)
        assert done.returncode == 0, done.stderr
    newest = max(int(path.name) for path in (stage.cluster.directory / "stage" / "hooks").iterdir())
    for job in range(newest - 2, newest + 1):
        seen = (stage.cluster.directory / "stage" / "hooks" / str(job)).read_text()
        assert "QPU_SLURM" not in seen
        assert "OPTION_qpu_slurm" not in seen
        assert stage.asked(job) == []


def test_a_step_in_a_job_takes_its_jobs_options_or_its_own(stage: Stage) -> None:
    job = stage.cluster.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez --qpu-hold=task\n"
        "srun sh -c 'echo $SLURM_SPANK_QPU_SLURM_HOLD'\n"
        "srun --qpu-hold=job sh -c 'echo $SLURM_SPANK_QPU_SLURM_HOLD'\n"
        "srun --qpu-hold=perhaps echo ran || echo refused\n"
    )
    assert stage.cluster.wait(job) == "COMPLETED"
    first, second, *refusal = stage.cluster.output(job).splitlines()
    assert (first, second, refusal[-1]) == ("task", "task", "refused")
    assert any("qpu_slurm: --qpu-hold: 'perhaps'" in line for line in refusal)
    assert stage.hold(job) == "task"


# Steps


def test_each_step_is_told_of_once_with_its_program(stage: Stage) -> None:
    stage.cluster.home().joinpath("result.py").write_text("import time\ntime.sleep(0.2)\n")
    job = stage.cluster.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez --nodes=2\n"
        "srun hostname\n"
        "srun --nodes=1 --ntasks=1 --relative=1 /usr/bin/python3 result.py\n"
        "srun --ntasks=2 sh -c 'exit 1'\n"
        "true\n"
    )
    assert stage.cluster.wait(job) == "COMPLETED"
    reports = stage.ended(job, 4)
    starts = [(report.step, report.name) for report in reports if report.command == "job-env"]
    assert starts == [("batch", "batch"), ("0", "hostname"), ("1", "result.py"), ("2", "sh")]
    ends = [report.step for report in reports if report.command == "step-end"]
    assert sorted(ends) == ["0", "1", "2", "batch"]
    # The second node of the first and the last step asks, and has nothing to tell.
    assert [call for call in stage.asked(job) if len(call) == 2] == [["job-env", str(job)]] * 2
    time_of = {(report.command, report.step): report.at for report in reports}
    order = [
        ("job-env", "batch"),
        *((command, step) for step in "012" for command in ("job-env", "step-end")),
        ("step-end", "batch"),
    ]
    assert [time_of[key] for key in order] == sorted(time_of.values())
    assert time_of["step-end", "1"] - time_of["job-env", "1"] >= 0.2


def test_steps_of_all_components_have_numbers_of_their_own(stage: Stage) -> None:
    job = stage.cluster.submit(
        f"#!/bin/sh\n#SBATCH --qpu=ibm_fez\n{HET}#SBATCH --partition=quantum\n"
        "srun --het-group=0 hostname\nsrun --het-group=1 sleep 0\nsrun --het-group=0 true\n"
    )
    assert stage.cluster.wait(job) == "COMPLETED"
    leader, other = stage.ended(job, 3), stage.ended(job + 1, 1)
    assert {(report.step, report.name) for report in leader if report.name} == {
        ("batch", "batch"),
        ("0", "hostname"),
        ("2", "true"),
    }
    assert [(report.command, report.step, report.name) for report in other] == [
        ("job-env", "1", "sleep"),
        ("step-end", "1", ""),
    ]


def test_interactive_steps_are_told_of(stage: Stage) -> None:
    done = stage.cluster.run(["salloc", "--qpu=ibm_fez", "srun", "sh", "-c", "echo $SLURM_JOB_ID"])
    job = int(done.stdout)
    assert [(report.command, report.step, report.name) for report in stage.ended(job, 1)] == [
        ("job-env", "0", "sh"),
        ("step-end", "0", ""),
    ]


def test_a_step_that_is_cancelled_or_cannot_run_has_ended_too(stage: Stage) -> None:
    job = stage.cluster.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\nsrun ./nowhere\nsrun sleep 300\n")
    wait_for(lambda: "1" in [report.step for report in stage.reports(job)])
    stage.cluster.run(["scancel", str(job)])
    assert stage.cluster.wait(job) == "CANCELLED"
    ends = [report.step for report in stage.ended(job, 3) if report.command == "step-end"]
    assert sorted(ends) == ["0", "1", "batch"]


@pytest.mark.parametrize("answer", [b"", b"error: not this one\n", b"LD_PRELOAD=/x.so\n"])
def test_the_end_of_a_step_that_has_no_qpu_is_not_told(stage: Stage, answer: bytes) -> None:
    stage.answer(answer)
    job = stage.cluster.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\nsrun true\n")
    stage.cluster.wait(job)
    stage.answer(None)
    later = stage.cluster.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\ntrue\n")
    stage.cluster.wait(later)
    stage.ended(later, 1)
    assert [report.command for report in stage.reports(job) if report.command == "step-end"] == []


def test_nobody_waits_for_the_end_of_a_step_to_be_told(stage: Stage) -> None:
    stage.hang()
    job = stage.cluster.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\nsrun true\nsrun true\n")
    assert stage.cluster.wait(job) == "COMPLETED"
    stage.cluster.wait_until_idle()
    left = stage.hanging()
    # The job is over and its slurmstepd gone. The last one is there still, for some seconds.
    assert len(left) >= 1
    psutil.wait_procs(left, timeout=30)
    assert stage.hanging() == []


@pytest.mark.parametrize("name", ["x" * 300, "--step", "été $(touch pwned) ;", "a\nb"])
def test_a_program_of_any_name_has_one_that_harms_nobody(stage: Stage, name: str) -> None:
    program = stage.cluster.home() / name[:200]
    shutil.copy("/usr/bin/true", program)
    program.chmod(0o755)
    job = stage.cluster.submit(
        ["--qpu=ibm_fez", "--wrap", 'srun "./$PROGRAM"'], env={"PROGRAM": program.name}
    )
    assert stage.cluster.wait(job) == "COMPLETED", stage.cluster.output(job)
    (start,) = (report for report in stage.ended(job, 2) if report.step == "0" and report.name)
    assert STEP_NAME.fullmatch(start.name)
    assert not list(stage.cluster.home().glob("pwned"))


ANSWERS = {
    "too much": (b"IAM_URL=" + b"x" * 100_000 + b"\n", "it said too much"),
    "a megabyte of lines": (b"IAM_URL=x\n" * 100_000, "it said too much"),
    "no text": (b"\xff\xfe\n", "a line is neither"),
    "a NUL": (b"IAM_URL=\0\n", "a NUL is in it"),
}


@pytest.mark.parametrize(("answer", "sentence"), ANSWERS.values(), ids=ANSWERS)
def test_a_helper_that_says_nonsense_ends_the_job_with_a_sentence(
    stage: Stage, answer: bytes, sentence: str
) -> None:
    stage.answer(answer)
    job = stage.cluster.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho ran\n")
    assert stage.cluster.wait(job) == "FAILED"
    said = stage.cluster.output(job)
    assert said.startswith("qpu_slurm: the QPU cannot be used on ")
    assert sentence in said
    assert said.count("\n") == 1
