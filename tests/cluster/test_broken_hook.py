# SPDX-License-Identifier: Apache-2.0
"""A Python on the controller that does not work: who needs no QPU does not notice, who does is told."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qpu_slurm_devkit.lab import Lab

WHY = "The prolog of qpu_slurm failed on the controller: qpu-slurm ended with code 127."


@pytest.fixture
def broken(lab: Lab) -> Iterator[Lab]:
    """Return the lab with a prolog whose qpu-slurm is a link to nowhere, as after an upgrade of Python.

    With a gateway, its client goes on without: it takes a configuration that cannot be read, too.
    """
    with broken_prolog(
        lab, {str(lab.bin / "qpu-slurm"): "/no/such/qpu-slurm", str(lab.config): "/no/such.toml"}
    ):
        yield lab


@contextmanager
def broken_prolog(lab: Lab, values: Mapping[str, str]) -> Iterator[None]:
    """Write other values into the prolog."""
    prolog = Path(lab.cluster.settings["PrologSlurmctld"])
    text = changed = prolog.read_text()
    for old, new in values.items():
        assert f" = {old}\n" in changed
        changed = changed.replace(f" = {old}\n", f" = {new}\n")
    prolog.write_text(changed)
    yield
    prolog.write_text(text)


def test_a_job_behind_the_gateway_needs_no_python(lab: Lab) -> None:
    if lab.gateway is None:
        pytest.skip("without a gateway, Python does the hooks' work")
    with broken_prolog(lab, {str(lab.bin / "qpu-slurm"): "/no/such/qpu-slurm"}):
        done = lab.run(["srun", "--qpu=ibm_fez", "printenv", "QRMI_JOB_QPU_RESOURCES"])
    assert (done.returncode, done.stdout) == (0, "ibm_fez\n"), done.stderr


@pytest.mark.parametrize("partition", ["normal", "quantum"])
def test_a_job_without_a_qpu_runs(broken: Lab, partition: str) -> None:
    job = broken.submit([f"--partition={partition}", "--wrap=true"])
    assert broken.wait(job) == "COMPLETED"
    assert broken.run(["srun", f"--partition={partition}", "true"]).returncode == 0


def test_a_job_with_a_qpu_waits_with_the_reason_until_it_is_mended(broken: Lab) -> None:
    job = broken.submit(["--qpu=ibm_fez", "--wrap=echo $SLURM_RESTART_COUNT"])
    array = broken.submit(["--qpu=ibm_fez", "--array=1-2", "--wrap=true"])
    deadline = time.monotonic() + 30
    while [comment(broken, name) for name in (f"{job}", f"{array}_1", f"{array}_2")] != [waiting()] * 3:
        assert time.monotonic() < deadline
        time.sleep(0.2)

    prolog = Path(broken.cluster.settings["PrologSlurmctld"])
    text = prolog.read_text().replace("/no/such/qpu-slurm", str(broken.bin / "qpu-slurm"))
    prolog.write_text(text.replace("/no/such.toml", str(broken.config)))
    broken.cluster.wait_until_idle()
    time.sleep(4)  # a node takes a run that starts earlier for the last one
    for waits in (job, array):
        start = ["scontrol", "update", f"JobId={waits}", "StartTime=now"]
        assert broken.run(start, user=broken.cluster.slurm_user).returncode == 0
        assert broken.wait(waits) == "COMPLETED"
    assert broken.cluster.output(job) == "1\n"


@pytest.mark.parametrize("command", ["srun", "salloc"])
def test_who_waits_at_a_terminal_is_told(broken: Lab, command: str) -> None:
    done = broken.run([command, "--qpu=ibm_fez", "true"])
    assert done.returncode != 0
    assert f"qpu_slurm: {WHY} Tell your cluster's admin." in done.stderr


def waiting() -> dict[str, Any]:
    return {"qpu_slurm": {"waiting": WHY}}


def comment(lab: Lab, job: str) -> Any:  # noqa: ANN401 - JSON
    shown = lab.run(
        ["squeue", "--noheader", "--states=PENDING", f"--jobs={job}", "--Format=admin_comment:900"]
    )
    text = shown.stdout.strip()
    return json.loads(text) if text.startswith("{") else None
