# SPDX-License-Identifier: Apache-2.0
"""Inputs written from Python come back from task_runner as what Qiskit would have made of them."""

from __future__ import annotations

import json
from math import pi
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, transpile
from qiskit.circuit import Parameter, ParameterVector
from qiskit.primitives import BitArray
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime import Executor, QuantumProgram
from qiskit_ibm_runtime.fake_provider import FakeFez

from qpu_slurm import (
    read_executor_result,
    read_result,
    write_estimator_input,
    write_executor_input,
    write_sampler_input,
)
from qpu_slurm.errors import OutputError, PayloadError

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.api.inputs import CircuitFormat
    from tests.integration.steps import Step

FORMATS: tuple[CircuitFormat, ...] = ("qpy", "qasm3")


@pytest.fixture(scope="module")
def backend() -> FakeFez:
    """Return what the emulator's ibm_fez was made of."""
    return FakeFez()


def executed(step: Step) -> Any:  # noqa: ANN401 - Qiskit's
    done = step.run("ibm_fez", step.input, step.output)
    assert done.returncode == 0, done.stderr
    return read_result(step.output)


@pytest.mark.parametrize("format_", FORMATS)
def test_several_registers(step: Step, backend: FakeFez, format_: CircuitFormat) -> None:
    circuit = QuantumCircuit(QuantumRegister(3), ClassicalRegister(2, "low"), ClassicalRegister(1, "high"))
    circuit.x([1, 2])
    circuit.measure([0, 1, 2], [0, 1, 2])
    write_sampler_input(step.input, [(transpile(circuit, backend), None, 20)], format=format_)

    data = executed(step)[0].data

    assert data.low.get_counts() == {"10": 20}
    assert data.high.get_counts() == {"1": 20}


@pytest.mark.parametrize("format_", FORMATS)
def test_parameters_are_bound_by_their_place(step: Step, backend: FakeFez, format_: CircuitFormat) -> None:
    circuit = QuantumCircuit(12, 12)
    for qubit in range(12):
        circuit.rx(Parameter(f"θ{qubit}"), qubit)  # sorted by name, θ10 comes before θ2
    circuit.measure(range(12), range(12))
    isa = transpile(circuit, backend, optimization_level=1)
    values = {(parameter,): [pi if parameter.name == "θ2" else 0.0, 0.0] for parameter in isa.parameters}
    write_sampler_input(step.input, [(isa, values)], shots=50, format=format_)

    bits = executed(step)[0].data.c

    assert bits.shape == (2,)
    assert bits.get_counts(0) == {"000000000100": 50}
    assert bits.get_counts(1) == {"0" * 12: 50}


@pytest.mark.parametrize("format_", FORMATS)
def test_an_estimator(step: Step, backend: FakeFez, format_: CircuitFormat) -> None:
    angles = ParameterVector("a[b]", 2)
    circuit = QuantumCircuit(2)
    circuit.ry(angles[0], 0)
    circuit.ry(angles[1], 1)
    isa = transpile(circuit, backend)
    observables = [[SparsePauliOp(label).apply_layout(isa.layout)] for label in ("IZ", "ZI")]
    write_estimator_input(
        step.input,
        [(isa, observables, [[0, pi], [pi, 0], [0, 0]])],
        precision=0.01,
        resilience_level=0,
        format=format_,
    )

    data = executed(step)[0].data

    assert data.shape == (2, 3)
    np.testing.assert_allclose(data.evs, [[1, -1, 1], [-1, 1, 1]], atol=0.1)
    assert data.stds.shape == (2, 3)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_dynamic_circuit(step: Step, backend: FakeFez, format_: CircuitFormat) -> None:
    circuit = QuantumCircuit(QuantumRegister(2), ClassicalRegister(1, "first"), ClassicalRegister(2, "all"))
    circuit.x(0)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.cregs[0], 1)):
        circuit.x(1)
    circuit.measure([0, 1], [1, 2])
    write_sampler_input(step.input, [transpile(circuit, backend)], shots=20, format=format_)

    assert executed(step)[0].data.all.get_counts() == {"11": 20}


@pytest.mark.parametrize("format_", FORMATS)
def test_values_without_parameters_are_as_many_runs(
    step: Step, backend: FakeFez, format_: CircuitFormat
) -> None:
    circuit = QuantumCircuit(1)
    circuit.measure_all()
    pub = (transpile(circuit, backend), np.zeros((3, 0)))
    write_sampler_input(step.input, [pub], shots=5, format=format_)

    assert executed(step)[0].data.meas.shape == (3,)


def test_openqasm_is_text_that_everybody_reads(step: Step, backend: FakeFez) -> None:
    circuit = QuantumCircuit(1)
    circuit.x(0)
    circuit.measure_all()
    isa = transpile(circuit, backend, initial_layout=[7])
    write_sampler_input(step.input, [(isa, None, 3)], format="qasm3")

    (pub,) = json.loads(step.input.read_text(encoding="utf-8"))["parameters"]["pubs"]

    assert pub[0].startswith('OPENQASM 3.0;\ninclude "stdgates.inc";\n')
    assert "x $7;\nmeas[0] = measure $7;" in pub[0].replace("\nbarrier $7;", "")
    assert (pub[1]["__type__"], pub[2]) == ("ndarray", 3)


def test_what_openqasm_has_no_words_for(tmp_path: Path) -> None:
    renamed = QuantumCircuit(QuantumRegister(1), ClassicalRegister(1, "input"))
    renamed.measure(0, 0)
    shared = QuantumCircuit(1)
    bits = ClassicalRegister(2, "c")
    shared.add_register(bits, ClassicalRegister(bits=[bits[0]], name="again"))
    shared.measure(0, 0)
    path = tmp_path / "input.json"

    with pytest.raises(PayloadError, match=r"The classical register 'input' .* would have another name"):
        write_sampler_input(path, [renamed], format="qasm3")
    with pytest.raises(PayloadError, match=r"cannot be written as OpenQASM 3: .* Write it as QPY"):
        write_sampler_input(path, [shared], format="qasm3")

    assert not path.exists()
    write_sampler_input(path, [renamed, shared])


def test_an_input_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory"):
        write_sampler_input(tmp_path / "missing" / "input.json", [QuantumCircuit(1)])


def test_an_executors_program(step: Step, backend: FakeFez) -> None:
    circuit = QuantumCircuit(2)
    circuit.rx(Parameter("a"), 0)
    circuit.measure_all()
    isa = transpile(circuit, backend, optimization_level=1)
    program = QuantumProgram(shots=20)
    program.append_circuit_item(isa, circuit_arguments=np.array([[0.0], [pi]]))
    write_executor_input(step.input, program)

    done = step.run("ibm_fez", step.input, step.output)

    assert done.returncode == 0, done.stderr
    (item,) = read_executor_result(step.output)
    assert item["meas"].shape == (2, 20, 2)
    assert item["meas"][0].sum() == 0
    assert item["meas"][1].sum(axis=0).tolist() == [20, 0]


def test_an_executors_program_is_what_its_client_sends(
    step: Step, backend: FakeFez, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = QuantumCircuit(1)
    circuit.measure_all()
    program = QuantumProgram(shots=5)
    program.append_circuit_item(transpile(circuit, backend))
    for name, value in step.environ.items():
        monkeypatch.setenv(name, value)
    from qpu_slurm import Session  # noqa: PLC0415 - in the job

    job = Executor(mode=Session()).run(program)
    assert job.result()[0]["meas"].sum() == 0
    sent = job.inputs

    write_executor_input(step.input, program)

    written = json.loads(step.input.read_text(encoding="utf-8"))
    assert written["program_id"] == "executor"
    assert written["parameters"].keys() == sent.keys()
    assert written["parameters"]["schema_version"] == sent["schema_version"]


def test_another_result_is_no_executors(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for text in ('{"results": []}', "Job failed", '{"schema_version": "v9.9"}', '{"schema_version": "v2.0"}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(PayloadError, match=r"result\.json: this is not an executor's result"):
            read_executor_result(path)


def test_bits_of_both_shapes_are_the_same(step: Step, backend: FakeFez) -> None:
    circuit = QuantumCircuit(9, 9)
    circuit.x([0, 8])
    circuit.measure(range(9), range(9))
    write_sampler_input(step.input, [transpile(circuit, backend)], shots=6)
    encoded = executed(step)[0].data.c
    document = json.loads(step.input.read_text(encoding="utf-8"))
    document["parameters"]["support_qiskit"] = False
    step.input.write_text(json.dumps(document), encoding="utf-8")

    plain = executed(step)[0].data.c

    assert isinstance(plain, BitArray)
    assert plain == encoded
