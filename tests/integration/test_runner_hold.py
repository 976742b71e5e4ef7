# SPDX-License-Identifier: Apache-2.0
"""task_runner where it has to see to the session itself: none before the first task, another after the last.

Here steps talk to the service directly; at the end, the same through the gateway.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.job.variables import find
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.runner.exit_codes import Exit
from qpu_slurm.tasks.session import JobSession
from qpu_slurm_devkit.emulator import Fault
from tests.integration.gateway_site import run
from tests.integration.steps import TASK_RUNNER, Step, sampler_input

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm_devkit.emulator import SessionRecord
    from tests.integration.gateway_site import Job, Site


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a node's directory for what is temporary."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture
def later(step: Step, temporary: Path) -> Step:
    """Return a step of a job that has no session yet."""
    step.emulator.reset()
    step.environ = step.variables(session_id=None, hold="task") | {"TMPDIR": str(temporary)}
    return step


@pytest.fixture
def slow_later(slow_step: Step, temporary: Path) -> Step:
    """Return the same, where tasks run until the clock is moved."""
    slow_step.emulator.reset()
    slow_step.environ = slow_step.variables(session_id=None, hold="task") | {"TMPDIR": str(temporary)}
    return slow_step


def sessions(step: Step) -> list[SessionRecord]:
    return step.emulator.sessions()


def where(step: Step) -> list[str | None]:
    """Name the sessions of the tasks, in their order."""
    return [task.session_id for task in step.tasks()]


def the_note(temporary: Path) -> Path:
    """Find what a step has left for others."""
    (note,) = temporary.glob("qpu_slurm-*/*-session")
    return note


def test_a_session_is_opened_for_the_first_task_and_used_by_the_next(later: Step) -> None:
    first = later.run("ibm_fez", later.input, later.output)
    second = later.run("ibm_fez", later.input, later.output)

    (session,) = sessions(later)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert where(later) == [session.id] * 2
    assert first.stderr.startswith(f"task_runner: opened session {session.id}\ntask_runner: submitted task ")
    assert "opened session" not in second.stderr
    assert later.files() == {"input.json", "output.json"}


def test_a_step_on_another_node_finds_it_by_the_jobs_tasks(
    later: Step, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = later.environ | {"TMPDIR": str(tmp_path_factory.mktemp("other"))}
    assert later.run("ibm_fez", later.input, later.output).returncode == 0
    assert later.run("ibm_fez", later.input, later.output, environ=other).returncode == 0

    (session,) = sessions(later)
    assert where(later) == [session.id] * 2


def test_steps_that_begin_at_once_share_one(later: Step) -> None:
    started = [later.start("ibm_fez", later.input, f"{number}.json") for number in range(5)]
    for process in started:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors

    (session,) = sessions(later)
    assert where(later) == [session.id] * 5


def test_another_job_of_the_user_has_a_session_of_its_own(later: Step) -> None:
    later.run("ibm_fez", later.input, later.output)
    later.emulator.advance(60)  # until then, that session has the QPU for itself
    later.run("ibm_fez", later.input, later.output, environ=later.environ | {"SLURM_JOB_ID": "43"})

    assert where(later) == [session.id for session in sessions(later)]
    assert len(sessions(later)) == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["ibm_fez", "bad.json", "out.json"], Exit.BAD_INPUT),
        (["ibm_fez", "missing.json", "out.json"], Exit.BAD_INPUT),
        (["ibm_fez", "input.json", "no/such/directory/out.json"], Exit.OUTPUT),
        (["--dry-run", "ibm_fez", "input.json"], Exit.COMPLETED),
        (["--final", "ibm_fez", "bad.json", "out.json"], Exit.BAD_INPUT),
    ],
)
def test_none_is_opened_for_nothing(later: Step, arguments: list[str], code: Exit) -> None:
    later.write("bad.json", sampler_input()[:-1])

    assert later.run(*arguments).returncode == code

    assert sessions(later) == []


@pytest.mark.parametrize(("left", "ttl"), [(300, 300), (100_000, 28_800), (-5, 28_800), (None, 28_800)])
def test_it_lives_no_longer_than_the_job_can(later: Step, left: int | None, ttl: int) -> None:
    ends = {} if left is None else {"SLURM_JOB_END_TIME": str(int(time.time()) + left)}

    done = later.run("ibm_fez", later.input, later.output, environ=later.environ | ends)

    (session,) = sessions(later)
    assert done.returncode == 0
    assert ttl - 5 <= session.max_ttl <= ttl


def test_the_last_tasks_session_closes_and_a_later_task_opens_another(slow_later: Step) -> None:
    step = slow_later
    process = step.start("--final", "ibm_fez", step.input, step.output)
    step.wait_until_it_runs()
    step.emulator.wait_for(lambda emulator: not emulator.sessions()[0].accepting_tasks)
    assert sessions(step)[0].state == "active"
    later = step.start("--json", "-", "ibm_fez", step.input, "second.json")
    step.emulator.wait_for(lambda emulator: len(emulator.sessions()) == 2)
    step.emulator.advance(120)
    step.emulator.advance(120)

    _, first_said = process.communicate(timeout=240)
    summary, said = later.communicate(timeout=240)

    first, second = sessions(step)
    assert (process.returncode, later.returncode) == (0, 0), first_said + said
    assert first.locked_seconds == pytest.approx(120, abs=1)  # the task's own: nothing else locked the QPU
    assert where(step) == [first.id, second.id]
    assert f"task_runner: opened session {second.id}, since {first.id} takes no more tasks\n" in said
    assert json.loads(summary)["session_id"] == second.id
    assert [task["session_id"] for task in json.loads(summary)["tasks"]] == [second.id]


@pytest.mark.parametrize("hold", ["job", "task"])
@pytest.mark.parametrize("how", ["by an operator", "for want of tasks", "at the end of its life"])
def test_a_session_that_the_service_has_closed_is_replaced(
    step: Step, temporary: Path, hold: str, how: str
) -> None:
    environ = step.variables(session_id=step.session_id, hold=hold) | {"TMPDIR": str(temporary)}
    assert step.run("ibm_fez", step.input, step.output, environ=environ).returncode == 0
    if how == "by an operator":
        step.emulator.close_session(step.session_id)
    else:
        step.emulator.advance(60)
        step.emulator.advance(1800 if how == "for want of tasks" else 540)
    assert sessions(step)[0].state == "closed"

    done = step.run("--json", "-", "--final", "ibm_fez", step.input, step.output, environ=environ)

    first, second = sessions(step)
    assert done.returncode == 0, done.stderr
    assert where(step) == [first.id, second.id]
    assert f"opened session {second.id}, since {first.id} takes no more tasks" in done.stderr
    assert f"session {second.id} takes no more tasks, and closes when it has none" in done.stderr
    assert json.loads(done.stdout)["session_closing"] is True
    step.emulator.wait_for(lambda emulator: emulator.sessions()[1].state == "closed")


def test_a_session_that_the_service_has_forgotten_is_replaced(step: Step, temporary: Path) -> None:
    environ = step.variables(session_id="6b1c9d1e", hold="job") | {"TMPDIR": str(temporary)}
    done = step.run("ibm_fez", step.input, step.output, environ=environ)

    assert done.returncode == 0, done.stderr
    assert where(step) == [sessions(step)[1].id]


def test_many_inputs_go_on_in_another_session(slow_later: Step) -> None:
    step = slow_later
    for name in ("a.json", "b.json", "c.json"):
        step.write(name, sampler_input(seed=name))
    names = ("a.json", "b.json", "c.json")
    process = step.start("--json", "-", "ibm_fez", "--jobs", "1", "--output-dir", "out", *names)
    step.wait_until_it_runs()
    step.emulator.close_session(sessions(step)[0].id)
    step.emulator.advance(120)
    step.emulator.wait_for(lambda emulator: len(emulator.tasks()) == 2)
    step.emulator.advance(120)
    step.emulator.wait_for(lambda emulator: len(emulator.tasks()) == 3)
    step.emulator.advance(120)

    output, errors = process.communicate(timeout=240)

    first, second = sessions(step)
    assert process.returncode == 0, errors
    assert where(step) == [first.id, second.id, second.id]
    assert errors.count("opened session") == 2
    summary = json.loads(output)
    assert [task["session_id"] for task in summary["tasks"]] == where(step)
    assert summary["session_id"] == second.id
    record = json.loads((step.directory / "out" / "b.json.task").read_text())
    assert record["session_id"] == second.id


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (Fault(method="POST", path="/sessions", status=403, times=None), Exit.REFUSED, ""),
        (Fault(method="POST", path="/jobs", status=400, times=None), Exit.REFUSED, ""),
    ],
    ids=["no session", "no task"],
)
def test_a_refusal_is_not_asked_again_and_again(later: Step, fault: Fault, code: Exit, words: str) -> None:
    later.emulator.inject(fault)

    done = later.run("ibm_fez", later.input, later.output)

    assert done.returncode == code
    assert done.stderr.endswith("task_runner: nothing was submitted\n")
    assert words in done.stderr
    asked = [request for request in later.emulator.requests() if request.method == "POST"]
    assert [request.path for request in asked if request.path == fault.path] == [fault.path]


def test_steps_that_each_have_a_last_task_are_not_in_each_others_way(step: Step, temporary: Path) -> None:
    environ = step.variables(session_id=step.session_id, hold="job") | {"TMPDIR": str(temporary)}
    step.emulator.close_session(step.session_id)
    other = JobSession(find(environ), step.provider, environ)
    assert other.get() == step.session_id
    assert step.run("--final", "ibm_fez", step.input, step.output, environ=environ).returncode == 0

    # The session that it has opened instead was closed at once; so the note of it is of no use, either.
    assert other.usable() == sessions(step)[2].id


def test_a_session_that_takes_nothing_is_replaced_once(step: Step, temporary: Path) -> None:
    step.emulator.close_session(step.session_id)
    environ = step.variables(session_id=step.session_id, hold="job") | {"TMPDIR": str(temporary)}
    # Whoever opens one finds it closed again at once.
    step.emulator.inject(Fault(method="POST", path="/jobs", status=400, times=None))
    done = step.run("ibm_fez", step.input, step.output, environ=environ)

    assert done.returncode == Exit.REFUSED
    assert len(sessions(step)) == 2
    submissions = [request for request in step.emulator.requests() if request.path == "/jobs"]
    assert len([request for request in submissions if request.method == "POST"]) == 2
    assert done.stderr.endswith("task_runner: nothing was submitted\n")


def test_one_more_input_is_tried_after_a_session_could_not_be_had(later: Step) -> None:
    """What keeps one from having a session keeps all of them."""
    later.write("a.json", sampler_input())
    later.write("b.json", sampler_input())
    later.emulator.inject(Fault(method="POST", path="/sessions", status=403, times=None))

    done = later.run("ibm_fez", "--output-dir", "out", "--json", "-", "a.json", "b.json")

    reasons = [task["exit_reason"] for task in json.loads(done.stdout)["tasks"]]
    assert (done.returncode, reasons) == (Exit.REFUSED, ["refused", "not_executed"])


def test_final_without_anything_to_do_closes_what_the_job_has(later: Step) -> None:
    later.write("a.json", sampler_input())
    arguments = ("ibm_fez", "--output-dir", "out", "a.json")
    assert later.run(*arguments).returncode == 0
    assert sessions(later)[0].state == "active"

    assert later.run("--final", *arguments).returncode == 0
    assert later.run("--final", *arguments).returncode == 0

    assert [session.state for session in sessions(later)] == ["closed"]


@pytest.mark.parametrize("content", ["../../x", "", "\x00", "s" * 200])
def test_a_note_that_makes_no_sense_is_passed_over(later: Step, temporary: Path, content: str) -> None:
    later.run("ibm_fez", later.input, later.output)
    note = the_note(temporary)
    note.write_text(content)

    assert later.run("ibm_fez", later.input, later.output).returncode == 0

    assert where(later) == [sessions(later)[0].id] * 2


def test_a_directory_that_others_may_write_to_is_not_used(later: Step, temporary: Path) -> None:
    later.run("ibm_fez", later.input, later.output)
    note = the_note(temporary)
    note.write_text("somebody-elses")
    note.parent.chmod(0o777)

    assert later.run("ibm_fez", later.input, later.output).returncode == 0

    assert where(later) == [sessions(later)[0].id] * 2
    assert note.read_text() == "somebody-elses"


@pytest.mark.parametrize(
    "odd",
    [
        {"SLURM_JOB_END_TIME": "²"},
        {"SLURM_JOB_END_TIME": "-1"},
        {"SLURM_JOB_START_TIME": "\udcff"},
        {"TMPDIR": "/no/such\udcff"},
        {"TMPDIR": "/proc"},
    ],
)
def test_variables_that_make_no_sense_keep_no_task_from_its_session(later: Step, odd: dict[str, str]) -> None:
    done = later.run("--final", "ibm_fez", later.input, later.output, environ=later.environ | odd)

    assert done.returncode == 0, done.stderr
    assert where(later) == [sessions(later)[0].id]


@pytest.mark.parametrize("changed", ["SLURM_RESTART_COUNT", "SLURM_JOB_START_TIME", "SLURM_CLUSTER_NAME"])
def test_another_run_of_the_job_has_a_note_of_its_own(later: Step, temporary: Path, changed: str) -> None:
    later.run("ibm_fez", later.input, later.output)
    the_note(temporary).write_text("of-the-first-run")

    later.run("ibm_fez", later.input, later.output, environ=later.environ | {changed: "1"})

    assert where(later) == [sessions(later)[0].id] * 2
    assert len(list(temporary.glob("qpu_slurm-*/*"))) == 4


def test_who_submits_by_other_means_gets_a_session_that_takes_tasks(step: Step, temporary: Path) -> None:
    environ = step.variables(session_id=step.session_id, hold="job") | {"TMPDIR": str(temporary)}
    session = JobSession(find(environ), step.provider, environ)
    assert session.usable() == step.session_id
    step.emulator.close_session(step.session_id)
    another = session.usable()

    assert another == session.usable() == session.get() == sessions(step)[1].id
    # Another step, which has asked nobody yet, knows of it.
    assert JobSession(find(environ), step.provider, environ).get() == another


# Through the gateway.


@pytest.fixture
def job(site: Site) -> Iterator[Job]:
    with site.job(site.later()) as job:
        yield job


def execute(job: Job, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (directory / "in.json").write_text(sampler_input())
    return run(job, TASK_RUNNER, "ibm_fez", *arguments, cwd=directory)


def test_through_the_gateway_it_is_the_leases_session(site: Site, job: Job, tmp_path: Path) -> None:
    first = execute(job, tmp_path, "in.json", "out.json")
    assert first.returncode == 0, first.stderr
    (session,) = site.emulator.sessions()
    assert f"opened session {session.id}\n" in first.stderr
    assert site.journal.lease(job.lease.id).session_id == session.id

    last = execute(job, tmp_path, "--final", "in.json", "out.json")

    assert last.returncode == 0, last.stderr
    assert site.emulator.sessions()[0].state == "closed"
    lease = site.journal.lease(job.lease.id)
    assert (lease.state, lease.session_id) == (LeaseState.BOUND, None)

    more = execute(job, tmp_path, "in.json", "out.json")

    assert more.returncode == 0, more.stderr
    _, second = site.emulator.sessions()
    assert f"opened session {second.id}, since {session.id} takes no more tasks\n" in more.stderr
    site.release(job.lease)
    assert [session.state for session in site.emulator.sessions()] == ["closed", "closed"]


def test_what_an_earlier_run_of_the_job_submitted_is_submitted_anew(
    site: Site, job: Job, tmp_path: Path
) -> None:
    site.emulator.set_backend("ibm_fez", "paused")
    (tmp_path / "in.json").write_text(sampler_input())
    stopped = run(
        job,
        "timeout",
        "-s",
        "KILL",
        "3",
        TASK_RUNNER,
        "ibm_fez",
        "--output-dir",
        "out",
        "in.json",
        cwd=tmp_path,
    )
    assert stopped.returncode != 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"in.json.task"}
    site.release(job.lease)
    site.emulator.set_backend("ibm_fez")

    with site.job(site.later(job_id=job.lease.job_id)) as again:
        done = execute(again, tmp_path, "--output-dir", "out", "in.json")

    assert done.returncode == 0, done.stderr
    assert [task.status for task in site.emulator.tasks()][1:] == ["Completed"]


def test_a_note_of_a_job_that_had_the_same_number_is_none(site: Site, tmp_path: Path) -> None:
    with site.job(site.later(job_id=900)) as first:
        assert execute(first, tmp_path, "in.json", "out.json").returncode == 0
    site.release(first.lease)
    with site.job(site.later(job_id=900)) as second:
        second.temporary = first.temporary
        done = execute(second, tmp_path, "in.json", "out.json")

    assert done.returncode == 0, done.stderr
    assert len(site.emulator.sessions()) == 2


def test_a_note_of_a_session_that_is_not_the_jobs_is_passed_over(
    site: Site, job: Job, tmp_path: Path
) -> None:
    assert execute(job, tmp_path, "in.json", "out.json").returncode == 0
    with site.job(site.acquire()) as other:
        the_note(job.temporary).write_text(other.session_id)

        done = execute(job, tmp_path, "in.json", "out.json")

    assert done.returncode == 0, done.stderr
    first, theirs = site.emulator.sessions()
    assert theirs.id == other.session_id
    assert [task.session_id for task in site.emulator.tasks()] == [first.id] * 2
