# SPDX-License-Identifier: Apache-2.0
"""Each element of a job array waits for its QPU by itself: the others run on, and none runs twice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from qpu_slurm_devkit.lab import Lab

ELEMENT = """\
#!/bin/sh
#SBATCH --qpu=ibm_fez
#SBATCH --output=%A_%a.out
#SBATCH --open-mode=append
echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN
while [ ! -e go-$SLURM_ARRAY_TASK_ID ]; do sleep 0.2; done
"""
"""An element says which session it has, as often as it runs, and waits until it may end."""


@pytest.fixture
def elements(lab: Lab) -> Iterator[Elements]:
    yield Elements(lab)
    admin(lab, "resume", "ibm_fez")
    for path in lab.cluster.home().glob("go-*"):
        path.unlink()


class Elements:
    """What the elements of arrays say and do."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._home = lab.cluster.home()

    def let_go(self, *elements: int) -> None:
        for element in elements:
            (self._home / f"go-{element}").touch(mode=0o644)

    def sessions(self, array: int) -> dict[int, list[str]]:
        """Return the sessions of each element that has run, one for each time that it ran."""
        outputs = self._home.glob(f"{array}_*.out")
        return {int(path.stem.partition("_")[2]): path.read_text().split() for path in outputs}

    def states(self, array: int) -> dict[str, str]:
        """Return the state of each element."""
        lines = self._lab.run(
            ["squeue", "--noheader", "--array", "--states=all", f"--jobs={array}", "--format=%K %T"]
        ).stdout.splitlines()
        return dict(line.split() for line in lines)

    def waiting(self, array: int) -> str:
        """Return the AdminComments of the array's elements that wait for their QPU."""
        shown = ["squeue", "--noheader", "--array", f"--jobs={array}", "--Format=admin_comment:900"]
        return "\n".join(line for line in self._lab.run(shown).stdout.splitlines() if "waiting" in line)


def admin(lab: Lab, *arguments: str) -> None:
    done = lab.command(*arguments, config=lab.gateway_config)
    assert done.returncode == 0, done.stderr


def wait_until(happened: Callable[[], object], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_last_element_waits_for_a_closed_qpu_by_itself(lab: Lab, elements: Elements) -> None:
    array = lab.submit(["--array=1-3%2", str(script(lab))])
    wait_until(lambda: elements.sessions(array).keys() == {1, 2})
    admin(lab, "drain", "ibm_fez", "--reason", "New fridge until noon.")
    elements.let_go(1)
    wait_until(lambda: "New fridge" in elements.waiting(array))
    time.sleep(5)  # it is put back once more meanwhile
    assert elements.states(array).items() >= {("1", "COMPLETED"), ("2", "RUNNING")}

    admin(lab, "resume", "ibm_fez")
    wait_until(lambda: 3 in elements.sessions(array))
    assert elements.states(array)["2"] == "RUNNING"
    elements.let_go(2, 3)
    assert lab.wait(array) == "COMPLETED"
    check_each_ran_once(lab, elements.sessions(array))


def test_timeline_knows_a_waiting_array_by_its_number_and_its_elements_by_their_names(
    lab: Lab, elements: Elements
) -> None:
    admin(lab, "drain", "ibm_fez", "--reason", "New fridge until noon.")
    array = lab.submit(["--array=1-3", str(script(lab))])
    # Each was put back, and has a number of its own: the array's number is one of them.
    wait_until(
        lambda: (
            elements.waiting(array).count("New fridge") == 3
            and set(elements.states(array).values()) == {"PENDING"}
        )
    )

    for job in (f"{array}", f"{array}_1", f"{array}_2", f"{array}_3"):
        # An element that tries once more just now does not wait.
        wait_until(lambda job=job: "ibm_fez is closed: New fridge until noon." in timeline(lab, job).stdout)  # type: ignore[misc]

    unknown = timeline(lab, f"{array}_9")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert f"{array}_9" in unknown.stderr
    admin(lab, "resume", "ibm_fez")
    elements.let_go(1, 2, 3)
    assert lab.wait(array) == "COMPLETED"


def timeline(lab: Lab, job: str) -> subprocess.CompletedProcess[str]:
    return lab.run(["qpu-slurm", "timeline", job], env={"QPU_SLURM_CONFIG": str(lab.config)})


def script(lab: Lab) -> object:
    path = lab.cluster.home() / "element.sh"
    path.write_text(ELEMENT)
    path.chmod(0o755)
    return path


def check_each_ran_once(lab: Lab, sessions: dict[int, list[str]]) -> None:
    assert sessions.keys() == {1, 2, 3}
    assert all(len(held) == 1 for held in sessions.values()), sessions
    assert {held[0] for held in sessions.values()} == {session.id for session in lab.emulator.sessions()}
