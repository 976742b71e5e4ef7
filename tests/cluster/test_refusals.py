# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, and what the user is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm.errors import SlurmError
from qpu_slurm_devkit.emulator import Fault
from tests.cluster.seen import forget_how_qpus_were

if TYPE_CHECKING:
    from qpu_slurm_devkit.lab import Lab

NOT_SUBMITTED = {
    "unknown QPU": (["--qpu=ibm_nowhere"], ["ibm_nowhere", "ibm_fez", "ibm_torino"]),
    "another spelling": (["--qpu=ibm-fez"], ["no QPU is called 'ibm-fez'", "this cluster has: ibm_fez"]),
    "no name": (["--qpu="], ["--qpu"]),
    "a name twice": (["--qpu=ibm_fez,ibm_fez"], ["ibm_fez"]),
    "no name at all": (["--qpu=$(reboot)"], ["--qpu"]),
}


@pytest.mark.parametrize(("arguments", "words"), NOT_SUBMITTED.values(), ids=NOT_SUBMITTED)
@pytest.mark.parametrize("command", ["sbatch", "srun", "salloc"])
def test_refused_at_submission(lab: Lab, command: str, arguments: list[str], words: list[str]) -> None:
    rest = ["--wrap=true"] if command == "sbatch" else ["true"]

    done = lab.run([command, *arguments, *rest])

    assert done.returncode != 0
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.credentials("user")
def test_no_key_in_the_submitting_shell(lab: Lab) -> None:
    with pytest.raises(SlurmError, match="export QISKIT_IBM_TOKEN"):
        lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\ntrue\n", env={"QISKIT_IBM_TOKEN": ""})


@pytest.mark.credentials("user")
def test_a_key_that_the_service_does_not_know(lab: Lab) -> None:
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho ran\n", env={"QISKIT_IBM_TOKEN": "wrong-key"})

    assert lab.wait(job) == "FAILED"
    output = lab.cluster.output(job)
    assert output.startswith("qpu_slurm: ")
    assert "ran" not in output
    assert "wrong-key" not in output
    assert output.count("\n") == 1


def test_a_gres_that_does_not_say_which_qpu(lab: Lab) -> None:
    job = lab.submit("#!/bin/sh\n#SBATCH --gres=qpu:1 --partition=quantum\necho ran\n")

    assert lab.wait(job) == "FAILED"
    sentence = "--gres=qpu:1 does not say which QPU. Add --qpu=NAME; known: ibm_fez, ibm_torino."
    assert lab.cluster.output(job) == f"qpu_slurm: {sentence}\n"
    for command in (["leases", str(job)], ["timeline", str(job)], ["report"]):
        assert sentence in lab.command(*command, config=lab.gateway_config).stdout


@pytest.mark.parametrize("command", ["srun", "salloc"])
def test_interactive_commands_end_with_the_reason(lab: Lab, command: str) -> None:
    lab.emulator.set_backend("ibm_fez", "paused", "Back on Monday.")
    forget_how_qpus_were(lab)

    done = lab.run([command, "--qpu=ibm_fez", "true"])

    assert done.returncode != 0
    assert "Back on Monday." in done.stderr, done.stderr


@pytest.mark.credentials("gateway", "user")
def test_an_outage_requeues_until_it_is_over(lab: Lab) -> None:
    lab.emulator.set_backend("ibm_fez", "paused", "Back on Monday.")
    forget_how_qpus_were(lab)
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho $SLURM_RESTART_COUNT\n")
    show = [str(lab.cluster.bin / "scontrol"), "show", "job", str(job)]
    waits = "Back on Monday"  # in the job's AdminComment
    lab.emulator.wait_for(lambda _: waits in lab.cluster.run(show).stdout, seconds=60)
    lab.emulator.set_backend("ibm_fez")

    assert lab.wait(job) == "COMPLETED"
    assert int(lab.cluster.output(job)) >= 1


def test_an_outage_that_does_not_end_is_given_up_on(lab: Lab) -> None:
    lab.emulator.inject(Fault(path="/sessions", status=503, times=None))
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho ran\n")

    assert lab.wait(job, timeout=240) == "FAILED"
    output = lab.cluster.output(job)
    assert output.startswith("qpu_slurm: ")
    assert "ran" not in output


def test_all_qpus_or_none(lab: Lab) -> None:
    lab.emulator.inject(Fault(method="POST", path="/sessions", skip=1, status=403, times=None))
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez,ibm_torino\necho ran\n")

    assert lab.wait(job) == "FAILED"
    assert lab.cluster.output(job).startswith("qpu_slurm: ")
    assert [session.state for session in lab.emulator.sessions()] == ["closed"]


def test_a_task_that_fails_ends_the_chain(lab: Lab) -> None:
    job = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez\n"
        """echo '{"program_id": "sampler", "parameters": {"pubs": [["OPENQASM 3.0; nonsense"]]}}' |\n"""
        "task_runner ibm_fez - never.json\n"
    )
    next_one = lab.submit(["--kill-on-invalid-dep=yes", f"--dependency=afterok:{job}", "--wrap=true"])

    assert lab.wait(job) == "FAILED"
    assert lab.wait(next_one) == "CANCELLED"
    assert not (lab.cluster.home() / "never.json").exists()


def test_cancelled_while_a_task_runs(lab: Lab) -> None:
    job = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez\npython map_optimize.py\n"
        "exec srun task_runner ibm_fez sampler_input_ibm_fez.json out.json\n"
    )
    lab.emulator.inject(Fault(path="/jobs/*/results", delay=20))
    lab.emulator.wait_for(lambda emulator: emulator.tasks(), seconds=30)
    lab.run(["scancel", str(job)])

    assert lab.wait(job) == "CANCELLED"
