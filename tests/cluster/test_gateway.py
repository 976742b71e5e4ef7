# SPDX-License-Identifier: Apache-2.0
"""Jobs that use the QPU without ever holding a credential, and a gateway that may die at any time."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest

from qpu_slurm_devkit.emulator import Fault
from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, STEP_PATIENCE, check_nothing_left

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


AS_ROOT = os.geteuid() == 0
TAKES_ROOT = "What one user gets of another's takes two users: run this test as root."

SLEEPER = "#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho ready\nwhile [ ! -e go ]; do sleep 0.1; done\n"

LOOK_AROUND = """\
#!/bin/bash
#SBATCH --qpu=ibm_fez
look() {
    env
    cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline
    scontrol show job --details
    scontrol show config
    scontrol show step
    squeue --json
    find "$(dirname "$SLURM_CONF")/.." /run -xdev -type f -size -9M -not -name 'seen*' -exec cat {} +
}
look >seen_script 2>/dev/null
srun bash -c "$(declare -f look); look" >seen_step 2>/dev/null
python everything.py >seen_answers
echo over
"""


@pytest.fixture
def gone(lab: Lab) -> Iterator[Path]:
    """Return the file that lets `SLEEPER` end."""
    go = lab.cluster.home() / "go"
    go.unlink(missing_ok=True)
    yield go
    go.touch()


def wait_until_ready(lab: Lab, job: int) -> None:
    lab.emulator.wait_for(lambda _: "ready" in lab.cluster.output(job), seconds=120)


def only_session(lab: Lab) -> str:
    (session,) = lab.emulator.sessions()
    return session.id


def comment(lab: Lab, job: int) -> str:
    return lab.run(["scontrol", "show", "job", str(job)]).stdout


def holders_of(key: str, directory: Path) -> set[str]:
    """Name the files that hold a key in any of its forms."""
    forms = {key.encode(), base64.b64encode(key.encode()).rstrip(b"="), key.encode().hex().encode()}
    found = set()
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if any(form in content for form in forms):
                found.add(path.name)
    return found


def owners_of_tokens(text: str) -> set[str]:
    """Return what the tokens in a text say of whom they are: their payloads."""
    payloads = re.findall(r"eyJ[\w-]+\.([\w-]+)\.", text)
    return {base64.urlsafe_b64decode(f"{payload}==").decode() for payload in payloads}


def test_the_admins_key_is_nowhere_but_with_the_gateway(lab: Lab) -> None:
    assert AS_ROOT, TAKES_ROOT
    job = lab.submit(LOOK_AROUND)

    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    home = lab.cluster.home()
    for name in ("seen_script", "seen_step", "seen_answers"):
        seen = (home / name).read_text(errors="replace")
        assert "qpu-slurm-job-key-" in seen, name
        assert not [owner for owner in owners_of_tokens(seen) if lab.account.name in owner]
    assert owners_of_tokens((home / "seen_answers").read_text())
    # All that the user saw, wrote and was told; all logs, at debug level; Slurm's state; the journal.
    in_files = holders_of(lab.account.api_key, lab.cluster.directory)
    assert in_files == {"ibm.key"}
    assert "ibm.key" not in {path.name for path in home.iterdir()}
    refused = lab.run(["cat", str(lab.gateway_config.with_name("ibm.key"))])
    assert "Permission denied" in refused.stderr
    for config in (lab.config, lab.gateway_config):
        assert 'log_level = "debug"' in config.read_text()
    assert lab.gateway_log
    for log in (lab.gateway_log, lab.hook_log):
        assert "qpu-slurm-job-key-" not in log
        assert not owners_of_tokens(log)
    for process in psutil.process_iter(["environ", "cmdline"]):
        if process.pid != os.getpid():
            shown = f"{process.info['environ']} {process.info['cmdline']}"
            assert lab.account.api_key not in shown, process


def test_another_user_gets_nothing_of_it(lab: Lab, gone: Path) -> None:
    assert AS_ROOT, TAKES_ROOT
    assert lab.gateway is not None
    script = "python map_optimize.py\ntask_runner ibm_fez sampler_input_ibm_fez.json out.json\n"
    first = lab.submit(SLEEPER.replace("echo", f"{script}echo"))
    wait_until_ready(lab, first)
    session, (task,) = only_session(lab), lab.emulator.tasks()
    result = (lab.cluster.home() / "out.json").read_text()

    intruder = lab.cluster.users[-1]
    known = f"{lab.gateway.url} {first} {session} {task.id}"
    own = lab.submit(f"#!/bin/sh\n#SBATCH --qpu=ibm_torino\npython intruder.py {known}\n", user=intruder)
    assert lab.wait(own) == "COMPLETED", lab.cluster.output(own)
    tries = [json.loads(line) for line in lab.cluster.output(own).splitlines()]
    assert len(tries) > 50
    passed = [what for status, what in tries if status not in {401, 403, 404}]
    assert passed == []
    (held,) = (other for other in lab.emulator.sessions() if other.id == session)
    assert held.accepting_tasks
    assert [(other.id, other.session_id) for other in lab.emulator.tasks()] == [(task.id, session)]
    gone.touch()
    assert lab.wait(first) == "COMPLETED"
    assert (lab.cluster.home() / "out.json").read_text() == result


def steps(lab: Lab, job: int) -> dict[str, tuple[str, float]]:
    """Read the steps of a job that have ended: what each was called, and how many seconds it took."""
    took = "(julianday(ended_at) - julianday(started_at)) * 86400"
    query = f"SELECT step, name, {took} FROM steps WHERE job_id = ? AND ended_at IS NOT NULL"  # noqa: S608 - no input is in it
    with closing(sqlite3.connect(f"file:{lab.journal}?mode=ro", uri=True)) as journal:
        return {step: (name, seconds) for step, name, seconds in journal.execute(query, (job,))}


def test_the_journal_knows_the_jobs_steps(lab: Lab) -> None:
    job = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez\n#SBATCH hetjob\n#SBATCH --partition=quantum\n"
        "srun --het-group=0 sleep 0.5\nsrun --het-group=1 python everything.py >answers\n"
    )
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    lab.emulator.wait_for(lambda _: len(steps(lab, job)) == 3)
    seen = steps(lab, job)
    assert {step: name for step, (name, _) in seen.items()} == {
        "batch": "batch",
        "0": "sleep",
        "1": "everything.py",
    }
    # No more than a clock's tick may be lost between the two.
    assert seen["0"][1] > 0.49
    assert seen["batch"][1] > seen["0"][1] + seen["1"][1]


def test_a_step_in_both_components_has_ended_when_both_have(lab: Lab) -> None:
    short, long = "sleep 0.1", "sleep 1.5"
    job = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez\n#SBATCH hetjob\n#SBATCH --partition=quantum\n"
        f"srun --het-group=0 {short} : --het-group=1 {long}\n"
        f"srun --het-group=0 {long} : --het-group=1 {short}\n"
    )
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    # Each component tells of its end, and nobody waits for it.
    lab.emulator.wait_for(
        lambda _: {step for step, (_, took) in steps(lab, job).items() if took > 1.49} == {"batch", "0", "1"}
    )


def test_a_gateway_that_is_away_at_a_steps_end_holds_up_nothing(lab: Lab, gone: Path) -> None:
    assert lab.gateway is not None
    job = lab.submit(SLEEPER)
    wait_until_ready(lab, job)
    lab.gateway.stop()
    gone.touch()

    assert lab.wait(job) == "COMPLETED"
    lab.cluster.wait_until_idle()
    lab.gateway.start()


def test_a_key_is_worthless_when_the_job_is_over(lab: Lab) -> None:
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\nenv >variables\n")
    assert lab.wait(job) == "COMPLETED"
    lines = (lab.cluster.home() / "variables").read_text().splitlines()
    environ = dict(line.split("=", 1) for line in lines if re.match(r"(QISKIT|IAM|GLOBAL|ibm_fez)", line))

    again = lab.run(["python", "upstream_qrmi.py"], env=environ | {"QRMI_JOB_QPU_RESOURCES": "ibm_fez"})

    assert again.returncode != 0
    assert lab.emulator.tasks() == []


def test_a_gateway_that_is_down_at_the_start_requeues(lab: Lab) -> None:
    assert lab.gateway is not None
    lab.gateway.stop()
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho $SLURM_RESTART_COUNT\n")
    lab.emulator.wait_for(lambda _: "does not answer" in comment(lab, job), seconds=120)
    lab.gateway.start()

    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    assert int(lab.cluster.output(job)) >= 1


def test_who_waits_at_a_terminal_is_told_that_the_gateway_is_down(lab: Lab) -> None:
    assert lab.gateway is not None
    lab.gateway.stop()

    done = lab.run(["srun", "--qpu=ibm_fez", "true"])

    assert done.returncode != 0
    assert "does not answer" in done.stderr


def test_a_gateway_that_is_down_at_the_end_releases_when_it_is_back(lab: Lab, gone: Path) -> None:
    assert lab.gateway is not None
    job = lab.submit(SLEEPER)
    wait_until_ready(lab, job)
    session = only_session(lab)
    lab.gateway.kill()
    ended = time.monotonic()
    gone.touch()
    assert lab.wait(job) == "COMPLETED"
    lab.emulator.wait_for(lambda _: "released later" in lab.hook_log)
    assert time.monotonic() - ended < 40  # the epilog does not wait for it to come back
    assert [held.id for held in lab.emulator.sessions() if held.accepting_tasks] == [session]

    lab.gateway.start()
    lab.emulator.wait_for(lambda emulator: not any(held.accepting_tasks for held in emulator.sessions()))
    (lease,) = json.loads(lab.command("leases", str(job), "--all", "--json").stdout)
    assert (lease["state"], lease["session_id"]) == ("released", session)
    assert "does not run" in lease["reason"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_goes_on_when_the_gateway_was_started_again(lab: Lab, number: int) -> None:
    assert lab.gateway is not None
    job = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez\npython map_optimize.py\n"
        "task_runner ibm_fez sampler_input_ibm_fez.json first.json\n"
        "srun task_runner ibm_fez sampler_input_ibm_fez.json second.json\n"
    )
    lab.emulator.inject(Fault(path="/jobs/*/results", delay=1))
    lab.emulator.wait_for(lambda emulator: emulator.tasks(), seconds=120)
    lab.gateway.kill(number)
    time.sleep(1)
    lab.gateway.start()

    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    session = only_session(lab)
    assert [task.session_id for task in lab.emulator.tasks()] == [session, session]


def does_not_answer(lab: Lab) -> str:
    """Return what a step says about a gateway that is down."""
    assert lab.gateway is not None
    node = socket.gethostname().partition(".")[0]
    return f"qpu_slurm: {node}: The gateway {lab.gateway.url} does not answer: Connection refused."


def test_a_step_waits_for_a_gateway_that_is_down(lab: Lab, gone: Path) -> None:
    assert lab.gateway is not None
    job = lab.submit(f"{SLEEPER}srun sh -c 'echo step $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN'\n")
    wait_until_ready(lab, job)
    lab.gateway.stop()
    gone.touch()
    lab.emulator.wait_for(lambda _: does_not_answer(lab) in lab.cluster.output(job))
    lab.gateway.start()

    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    assert f"step {only_session(lab)}" in lab.cluster.output(job)


def test_a_step_whose_gateway_does_not_come_back_ends_with_a_sentence(lab: Lab, gone: Path) -> None:
    assert lab.gateway is not None
    job = lab.submit(f"{SLEEPER}srun echo ran\n")
    wait_until_ready(lab, job)
    lab.gateway.stop()
    gone.touch()

    assert lab.wait(job) == "FAILED"
    said = lab.cluster.output(job).splitlines()
    late = f"There was no answer for {STEP_PATIENCE} s. Submit the job again later."
    assert f"{does_not_answer(lab)} {late}" in said
    assert "ran" not in said


@pytest.mark.parametrize("before", [0.0, 0.4])
def test_a_gateway_that_is_killed_while_it_acquires_leaks_nothing(lab: Lab, before: float) -> None:
    assert lab.gateway is not None
    # The session comes into being while nobody listens any more, or never does.
    lab.emulator.inject(Fault(method="POST", path="/sessions", delay=before))
    lab.emulator.inject(Fault(path="/sessions/*", delay=1))
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN\n")
    lab.emulator.wait_for(
        lambda _: '"acquiring"' in lab.command("leases", "--json").stdout or "has its QPUs" in lab.gateway_log
    )
    lab.gateway.kill()
    lab.gateway.start()

    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    # A step that started while the gateway was away says so first.
    assert lab.cluster.output(job).split()[-1] == lab.emulator.sessions()[-1].id
    assert all(held.state == "closed" for held in lab.emulator.sessions()[:-1])


def test_reaping_beside_a_live_job_leaves_it_alone(lab: Lab, gone: Path) -> None:
    job = lab.submit(SLEEPER)
    wait_until_ready(lab, job)

    reaped = lab.command("reap", "--json", config=lab.gateway_config)

    assert reaped.returncode == 0, reaped.stderr
    nothing = {"reaped": [], "taken_over": [], "unended": [], "left": 0, "forgotten": 0, "trouble": ""}
    assert json.loads(reaped.stdout) == {"leases": 1} | nothing
    gone.touch()
    assert lab.wait(job) == "COMPLETED"


def test_everything_is_right_with_the_installation(lab: Lab) -> None:
    findings = json.loads(lab.command("check", "--json", config=lab.gateway_config).stdout)
    # The hooks and the plugin read the other configuration, the one without the key.
    about = {finding["about"]: finding for finding in findings if finding["level"] != "problem"}
    assert about["MUNGE"]["level"] == about["gateway"]["level"] == about["ibm_fez"]["level"] == "ok"
    assert about["key of ibm_fez, ibm_torino"]["level"] == "ok"
    on_a_node = json.loads(lab.command("check", "--json").stdout)
    (key,) = (finding for finding in on_a_node if finding["about"].startswith("key of"))
    assert key["level"] == "problem"


@pytest.fixture(scope="module")
def gres_lab() -> Iterator[Lab]:
    """Only a gres opens a session here; `--qpu` alone binds."""
    with Lab(CHECKOUT, top='acquire_on = "gres"') as lab:
        lab.put(CHECKOUT / "contrib" / "seed")
        yield lab
        check_nothing_left(lab)


def test_a_job_that_is_only_bound_transpiles_and_holds_nothing(gres_lab: Lab) -> None:
    submission = gres_lab.run(["bash", "submit.sh"])
    jobs = [int(line) for line in submission.stdout.split()]

    assert [gres_lab.wait(job) for job in jobs] == ["COMPLETED"] * 3, gres_lab.cluster.output(jobs[0])
    (session,) = gres_lab.emulator.sessions()
    assert [task.session_id for task in gres_lab.emulator.tasks()] == [session.id]
    leases = json.loads(gres_lab.command("leases", "--all", "--json").stdout)
    assert [(lease["job_id"], lease["session_id"]) for lease in leases] == [
        (jobs[0], None),
        (jobs[1], session.id),
    ]


def test_both_components_have_the_session_that_one_of_them_opened(gres_lab: Lab) -> None:
    job = gres_lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez\n#SBATCH hetjob\n#SBATCH --qpu=ibm_fez --gres=qpu:1\n"
        "#SBATCH --partition=quantum\n"
        "echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN\n"
        "srun --het-group=0 sh -c 'echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN'\n"
        "srun --het-group=1 sh -c 'echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN'\n"
    )

    assert gres_lab.wait(job) == "COMPLETED", gres_lab.cluster.output(job)
    session = gres_lab.emulator.sessions()[-1].id
    assert gres_lab.cluster.output(job).split() == [session] * 3
