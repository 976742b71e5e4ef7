# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/python-api.md, run as they stand there, one after the other in one job."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.steps import Step

TEXT = (Path(__file__).parents[2] / "docs" / "python-api.md").read_text(encoding="utf-8")


def test_the_examples_do_what_they_say(step: Step) -> None:
    said = []
    for example in re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        if 'read_result("output.json")' in example:
            command = re.search(r"`srun task_runner (.*?)`", TEXT)
            assert command
            assert step.run(*command[1].split()).returncode == 0
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", example],
            env=step.environ,
            cwd=step.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert (done.returncode, done.stderr) == (0, ""), example
        said.append(done.stdout.split("\n")[:-1])

    wrote, read, executed, sampled, estimated, program, gathered, last = said
    assert wrote == []
    for (counts,) in (read, executed):
        assert set(re.findall(r"'(\d\d)'", counts)) == {"00", "11"}
    assert sampled == ["{'1': 100}"]
    assert abs(float(estimated[0]) + 1) < 0.1
    assert estimated[1] == "In progress, accepting new jobs"
    assert program == ["1.0"]
    assert gathered == ["10", "20", "30"]
    assert (last[0], last[-1]) == ("queued", "completed")
    assert not step.provider.session(step.session_id).accepting_tasks


def test_a_program_on_the_job_without_a_qpu_is_told_how(step: Step) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import qpu_slurm; qpu_slurm.execute('input.json')"],
        env={"PATH": step.environ["PATH"]},
        cwd=step.directory,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr.strip().endswith(
        "NoLeaseError: This is not in a Slurm job. Submit it with `sbatch --qpu=NAME …`, or run "
        "`srun --qpu=NAME task_runner …`."
    )
