# SPDX-License-Identifier: Apache-2.0
"""The words that scenarios are written in: moments, and what happens in them."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from qpu_slurm.system.deadline import Deadline
from tests.cluster.matrix.scenario import Event, What, When
from tests.cluster.seen import note_that_a_qpu_is_away

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpu_slurm_devkit.emulator import Fault
    from tests.cluster.matrix.play import Play

_CANCEL_SECONDS = 60.0
"""How long a task is looked for that is not over."""

# Moments


def state(*words: str) -> When:
    """One of its jobs is in one of these states (squeue(1))."""
    text = f"when it is {' or '.join(words)}"
    return When(text, lambda play: any(job.state in words for job in play.jobs))


def told(words: str) -> When:
    """Its user can read these words somewhere."""
    return When("when its user was told", lambda play: any(words in text for text in play.heard.values()))


def hook_since(kind: str, number: float) -> When:
    """One of its hooks has been at work for so long, or is over already."""

    def come(play: Play) -> bool:
        process = play.stage.hook(kind, play.jobs)
        return play.over if process is None else time.time() - process.create_time() >= number

    return When(f"{number * 1000:.0f} ms into its {kind}", come)


def seconds(number: float) -> When:
    """Some time has passed since the last thing happened to it."""
    return When(f"after {number:g} s", lambda play: play.since >= number)


def restarted(times: int) -> When:
    """It was put back into the queue so often."""
    return When("when it was requeued", lambda play: any(job.restarts >= times for job in play.jobs))


SUBMITTED = When("when it is submitted", lambda play: bool(play.jobs))
RUNS = When("when it runs", lambda play: "ready" in play.output)


def ready(number: int) -> When:
    """So many of its elements have started."""
    return When(
        f"when {number} of its elements have started", lambda play: play.output.count("ready") >= number
    )


HELD = When(
    "when it has its session, and has not started",
    lambda play: (play.stage.home / f"{play.qpu}.start.held").exists(),
)
"""For those that are submitted with `jobs.STARTS_LATER`."""

WAITS = When("while it waits", lambda play: play.stage.waits(play.jobs))

RUNS_AGAIN = When("when it runs again", lambda play: play.output.count("ready") > 1)
FAULTY = When("while that request waits", lambda play: bool(play.jobs) and play.faults_left() == 0)
CLOSED = When("when its session was closed", lambda play: bool(play.sessions) and not play.open_sessions)
OVER = When("when it is over", lambda play: play.over)
AT_ONCE = When("at once", lambda _: True)

# What happens to a job


def command(*words: str, text: str = "") -> What:
    """Its user types something; `{job}` stands for its (first) job."""

    def do(play: Play) -> None:
        play.also(*_about(play, words))

    return What(text or " ".join(words).replace("{job}", "ID"), do)


def _about(play: Play, words: Sequence[str]) -> list[str]:
    job = str(play.jobs[0].id) if play.jobs else "its job"
    return [word.replace("{job}", job) for word in words]


def admin(*words: str) -> What:
    """The admin types something; `{job}` stands for its (first) job."""

    def do(play: Play) -> None:
        play.stage.admin(*_about(play, words))

    return What(f"the admin's {' '.join(words).replace('{job}', 'ID')}", do)


def kill_hook(kind: str, number: signal.Signals = signal.SIGKILL, *, may_be_gone: bool = False) -> What:
    """A hook gets a signal; where the moment was left to chance, it may have ended before."""

    def do(play: Play) -> None:
        process = play.stage.hook(kind, play.jobs)
        with suppress(psutil.NoSuchProcess):
            if process is not None:
                process.send_signal(number)
                return
        if not may_be_gone:
            play.problem = f"its {kind} was not there any more"

    return What(f"its {kind} gets {number.name}", do)


def kill_node(node: str) -> What:
    """A node dies, with all that runs there."""

    def do(play: Play) -> None:
        play.stage.lab.cluster.kill(node)
        for job in play.jobs:
            play.stage.kill_job_processes(job.id)

    return What("its node dies", do)


def kill_slurmd(node: str) -> What:
    """A node's slurmd dies, and its jobs go on."""
    return What("its slurmd dies", lambda play: play.stage.lab.cluster.kill(node))


def start_slurmd(node: str) -> What:
    """A node's slurmd is started; nobody waits for it."""
    return What("slurmd is started again", lambda play: play.stage.lab.cluster.launch(node))


def _go(play: Play) -> None:
    (play.stage.home / f"{play.qpu}.go").touch(mode=0o644)


def _close_session(play: Play) -> None:
    # What was seen last may be from before it had one.
    sessions = [one for one in play.sessions_now() if one.state != "closed"]
    for session in sessions:
        play.stage.lab.emulator.close_session(session.id)
    if not sessions:
        play.problem = "it had no session that could be closed"


def _cancel_task(play: Play) -> None:
    """Cancel a task of its: the next one, where the last is over."""
    emulator, sessions = play.stage.lab.emulator, {session.id for session in play.sessions_now()}
    deadline = Deadline.after(_CANCEL_SECONDS)
    while not (deadline.passed or play.over):
        for task in emulator.tasks():
            mine = task.session_id in sessions and task.status in {"Queued", "Running"}
            if mine and emulator.cancel_task(task.id):
                return
    play.problem = "it had no task that could be cancelled"


def _mend(play: Play) -> None:
    play.stage.mend(play.qpu)


def inject(fault: Fault) -> What:
    """Something goes wrong with its requests from now on."""
    return What(
        f"{fault.method} {fault.path} fails: {fault}",
        lambda play: play.stage.inject(fault, play.stage.accounts[play.qpu]),
    )


def close(reason: str) -> What:
    """The admin closes its QPU."""
    return What(
        "the admin closes its QPU", lambda play: play.stage.command("drain", play.qpu, "--reason", reason)
    )


def let_go(*elements: str) -> What:
    """Some elements of its array may go on: nothing that a row has to mention."""

    def do(play: Play) -> None:
        for element in elements:
            (play.stage.home / f"{play.qpu}.go-{element}").touch(mode=0o644)

    return What("", do)


def _interrupt(play: Play) -> None:
    for _ in range(2):
        play.signal(signal.SIGINT)
        time.sleep(0.2)


CTRL_C = What("Ctrl-C, twice", _interrupt)

SCANCEL = command("scancel", "{job}", text="scancel")
GO = What("", _go)
"""It may go on: nothing that a row has to mention."""

SERVICE_CLOSES = What("the service closes its session", _close_session)
CANCEL_TASK = What("a task of its is cancelled at the service", _cancel_task)
REOPEN = What("the admin opens it again", lambda play: play.stage.command("resume", play.qpu))
MEND = What("the service is well again", _mend)


def pause(backend: str, message: str) -> What:
    """A QPU goes into maintenance."""

    def do(play: Play) -> None:
        play.stage.lab.emulator.set_backend(backend, "paused", message)
        # What was seen before is current for a while, and a look at all QPUs of the stage takes seconds.
        note_that_a_qpu_is_away(play.stage.lab, play.qpu, message)

    return What("its QPU goes into maintenance", do)


def resume(backend: str) -> What:
    """A QPU comes back from it."""
    return What("its QPU is back", lambda play: play.stage.lab.emulator.set_backend(backend))


LET_GO = Event(RUNS, GO)
