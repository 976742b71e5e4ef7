# SPDX-License-Identifier: Apache-2.0
"""Whoever executes what was transpiled for an older calibration is told so, and nothing else happens."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.emulator import Fault
from tests.integration.steps import sampler_input

if TYPE_CHECKING:
    from tests.integration.steps import Step

DAY = datetime(2026, 3, 5, 6, 0, tzinfo=UTC)

WRITE = """
from qiskit import QuantumCircuit, transpile
from qpu_slurm import Qpu, write_sampler_input
circuit = QuantumCircuit(1)
circuit.x(0)
circuit.measure_all()
write_sampler_input("input.json", [transpile(circuit, Qpu.of_job().backend())], shots=10)
"""

EXECUTE = """
from qpu_slurm import execute
print(execute("input.json")[0].data.meas.get_counts())
"""

WARNING = (
    "ibm_fez has been calibrated again, at 2026-03-05 07:30 UTC, since input.json was transpiled for it: "
    "transpile it again."
)


def python(step: Step, program: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=step.environ,
        cwd=step.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def said(step: Step) -> list[str]:
    """Execute the input with task_runner; return its warnings."""
    done = step.run("ibm_fez", "input.json", "output.json")
    assert done.returncode == 0, done.stderr
    return [line.removeprefix("task_runner: ") for line in done.stderr.splitlines() if "transpile" in line]


def asked(step: Step) -> int:
    return [request.path for request in step.emulator.requests()].count("/backends/ibm_fez/properties")


def test_an_input_says_what_it_was_transpiled_for(step: Step) -> None:
    step.emulator.calibrate("ibm_fez", DAY)

    python(step, WRITE)

    document = json.loads(step.input.read_text(encoding="utf-8"))
    assert document["qpu_slurm"] == {
        "backend": "ibm_fez",
        "calibrated_at": "2026-03-05T06:00:00+00:00",
        "qubits": 156,
        "gates": ["barrier", "measure", "x"],
    }
    assert said(step) == []
    (task,) = step.tasks()
    sent = python(step, f"from qpu_slurm import Qpu; print(*Qpu.of_job().service.job({task.id!r}).inputs)")
    assert set(sent.stdout.split()) == {"pubs", "options", "version", "support_qiskit"}


def test_a_newer_calibration_is_noticed(step: Step) -> None:
    step.emulator.calibrate("ibm_fez", DAY)
    python(step, WRITE)
    step.emulator.calibrate("ibm_fez", DAY + timedelta(minutes=90))

    assert said(step) == [WARNING]
    done = python(step, EXECUTE)
    assert (done.stdout, done.stderr) == ("{'1': 10}\n", WARNING + "\n")


def test_an_older_calibration_is_none_of_ours(step: Step) -> None:
    step.emulator.calibrate("ibm_fez", DAY)
    python(step, WRITE)
    step.emulator.calibrate("ibm_fez", DAY - timedelta(days=1))

    assert said(step) == []


def test_another_qpu_is_noticed_without_asking(step: Step) -> None:
    document = json.loads(sampler_input())
    document["qpu_slurm"] = {"backend": "ibm_torino", "calibrated_at": "2026-03-05T06:00:00Z"}
    step.write("input.json", json.dumps(document))

    assert said(step) == [
        "input.json was transpiled for ibm_torino, and is executed on ibm_fez: transpile it for ibm_fez."
    ]
    assert asked(step) == 0


def test_another_qpu_that_it_does_not_fit_is_refused(step: Step) -> None:
    document = json.loads(sampler_input())
    made_for = {"backend": "ibm_torino", "calibrated_at": "2026-03-05T06:00:00Z", "gates": ["ecr"]}
    step.write("input.json", json.dumps(document | {"qpu_slurm": made_for}))
    program = (
        "from qpu_slurm import execute, submit\n"
        "from qpu_slurm.errors import PayloadError\n"
        "try:\n    execute('input.json')\n"
        "except PayloadError as error:\n    print(error)\n"
        "submit('input.json', any_backend=True).job_id()\n"
    )

    done = python(step, program)

    assert "uses ecr, which ibm_fez has not" in done.stdout
    assert "any_backend=True" in done.stdout
    assert len(step.tasks()) == 1


def test_an_input_that_says_nothing_costs_no_request(step: Step) -> None:
    step.emulator.calibrate("ibm_fez", DAY)

    assert said(step) == []
    assert asked(step) == 0


def test_many_inputs_cost_one_request(step: Step) -> None:
    step.emulator.calibrate("ibm_fez", DAY)
    python(step, WRITE)
    step.emulator.calibrate("ibm_fez", DAY + timedelta(minutes=90))
    before = asked(step)
    for name in ("one.json", "two.json"):
        step.write(name, step.input.read_text(encoding="utf-8"))

    done = step.run("ibm_fez", "one.json", "two.json", "--output-dir", "results")

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("has been calibrated again") == 2
    assert "since two.json was transpiled" in done.stderr
    assert asked(step) - before == 1


@pytest.mark.parametrize(("status", "body"), [(403, None), (200, "Backend?"), (200, "{}")])
def test_a_calibration_that_cannot_be_had_is_no_error(step: Step, status: int, body: str | None) -> None:
    python(step, WRITE)
    step.emulator.calibrate("ibm_fez", datetime.now(UTC))
    step.emulator.inject(Fault(path="/backends/*/properties", status=status, body=body, times=None))

    assert said(step) == []
    step.emulator.clear_faults()
