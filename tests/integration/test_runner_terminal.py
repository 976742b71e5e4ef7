# SPDX-License-Identifier: Apache-2.0
"""What task_runner shows on a terminal, and how it waits in the service's queue."""

from __future__ import annotations

import os
import pty
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration.steps import Step, sampler_input

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

CLEAR = "\r\x1b[K"


class Terminal:
    """A terminal that somebody looks at."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        self.shown = ""

    def look_until(self, seen: Callable[[str], object]) -> None:
        """Read what is shown until it is as expected."""
        deadline = time.monotonic() + 60
        while not seen(self.look()):
            assert time.monotonic() < deadline, self.shown
            time.sleep(0.05)

    def look(self) -> str:
        """Read what has been shown."""
        try:
            while piece := os.read(self._ours, 1 << 16):
                self.shown += piece.decode()
        except OSError:  # nothing more for now, or for ever
            pass
        return self.shown

    def screen(self) -> list[str]:
        """Say what is left on the screen: each line as it was last written."""
        return [line.split(CLEAR)[-1] for line in self.look().replace("\r\n", "\n").split("\n")]

    def close(self) -> None:
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def start(step: Step, terminal: Terminal, *arguments: object, term: str = "xterm") -> subprocess.Popen[str]:
    return step.start(*arguments, stderr=terminal.theirs, environ=step.environ | {"TERM": term})


def test_one_line_shows_how_the_time_passes(slow_step: Step, terminal: Terminal) -> None:
    step = slow_step
    process = start(step, terminal, "ibm_fez", step.input, step.output)
    terminal.look_until(lambda text: "task_runner: running, 2 s" in text)
    step.emulator.advance(200)
    process.communicate(timeout=240)

    (task,) = step.tasks()
    assert process.returncode == 0
    assert f"{CLEAR}task_runner: running, 1 s{CLEAR}task_runner: running, 2 s" in terminal.look()
    first, last, rest = terminal.screen()
    assert first == f"task_runner: submitted task {task.id}"
    assert re.fullmatch(
        rf"task_runner: completed in \d+\.\d\d s, result in {re.escape(str(step.output))}", last
    )
    assert rest == ""


def test_several_tasks_share_the_line(slow_step: Step, terminal: Terminal) -> None:
    step = slow_step
    for name in ("a.json", "b.json", "c.json"):
        step.write(name, sampler_input())
    process = start(step, terminal, "ibm_fez", "--output-dir", "out", "a.json", "b.json", "c.json")
    terminal.look_until(lambda text: "task_runner: 0 of 3 done, a.json: running, 1 s, 1 queued" in text)
    step.emulator.advance(121)
    terminal.look_until(lambda text: "task_runner: 1 of 3 done, b.json: running, 1 s, 1 queued" in text)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=240)

    assert process.returncode == 6
    assert terminal.screen()[-2].endswith("is cancelled")
    assert terminal.screen()[-1] == ""


@pytest.mark.parametrize(("option", "term"), [("-q", "xterm"), (None, "dumb")])
def test_no_line_is_rewritten_where_that_is_not_wanted_or_cannot_be(
    step: Step, terminal: Terminal, option: str | None, term: str
) -> None:
    process = start(step, terminal, *filter(None, [option]), "ibm_fez", step.input, step.output, term=term)
    process.communicate(timeout=240)

    assert process.returncode == 0
    assert "\x1b" not in terminal.look()
    assert ("task_runner: running" in terminal.look()) is (option is None)


def test_a_long_line_is_cut_to_the_terminals_width(slow_step: Step, terminal: Terminal) -> None:
    step = slow_step
    name = f"{'long' * 40}.json"
    step.write(name, sampler_input())
    step.write("b.json", sampler_input())
    process = start(step, terminal, "ibm_fez", "--output-dir", "out", name, "b.json")
    terminal.look_until(lambda text: f"{CLEAR}task_runner: 0 of 2 done, long" in text)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=240)

    lines = terminal.look().split(CLEAR)
    assert max(len(line) for line in lines if line.startswith("task_runner: 0 of 2 done")) < 80


@pytest.mark.parametrize("live", [True, False], ids=["terminal", "file"])
def test_the_place_in_the_queue_is_told_if_the_service_tells(
    slow_step: Step,
    terminal: Terminal,
    live: bool,  # noqa: FBT001 - a parameter
) -> None:
    step = slow_step
    other = step.provider.open_session(600).id
    parameters = b'{"pubs": [["OPENQASM 3.0;"]], "version": 2}'
    step.provider.submit("sampler", parameters, session_id=other, tags=["other"])
    step.wait_until_it_runs()
    process = start(step, terminal, "ibm_fez", step.input) if live else step.start("ibm_fez", step.input)
    if live:
        terminal.look_until(lambda text: re.search(r"queued, place 1 in the queue, \d s", text))
    else:
        time.sleep(4)
    process.send_signal(signal.SIGINT)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == 6
    if not live:
        assert errors.splitlines()[1:3] == [
            "task_runner: queued",
            "task_runner: queued, place 1 in the queue",
        ]


def test_nobody_asks_for_the_place_where_nobody_is_told(slow_step: Step) -> None:
    step = slow_step
    other = step.provider.open_session(600).id
    step.provider.submit(
        "sampler", b'{"pubs": [["OPENQASM 3.0;"]], "version": 2}', session_id=other, tags=["other"]
    )
    step.wait_until_it_runs()
    process = step.start("-q", "ibm_fez", step.input)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=240)

    assert not [request for request in step.emulator.requests() if request.path.endswith("/metrics")]
