# SPDX-License-Identifier: Apache-2.0
"""The emulator mirrors the service, or says that it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from qiskit_ibm_runtime import RuntimeDecoder

from qpu_slurm_devkit.emulator import Emulator
from tests.integration.conftest import api_of
from tests.integration.test_emulator_programs import HEAD, end_of, failure, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Api


INPUTS = Path(__file__).parents[1] / "inputs"

RZZ = "gate rzz(p) a, b { cx a, b; rz(p) b; cx a, b; }"
"""As Qiskit writes it: OpenQASM's standard gates lack it."""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(seed=1) as emulator:
        yield emulator


@pytest.fixture
def api(emulator: Emulator) -> Api:
    return api_of(emulator)


def sampler(
    program: str, *, values: object = None, shots: int | None = 100, **extra: object
) -> dict[str, Any]:
    return {"pubs": [[HEAD + program, values, shots]], "version": 2, "support_qiskit": False, **extra}


def counts(text: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for register, data in json.loads(text)["results"][0]["data"].items():
        for sample in data["samples"]:
            bits = format(int(sample, 16), f"0{data['num_bits']}b")
            of = found.setdefault(register, {})
            of[bits] = of.get(bits, 0) + 1
    return found


@pytest.mark.parametrize(
    "body",
    [
        "box { x $0; }",
        "box[100ns] { x $0; }",
        "box { box { x $0; } }",
        "bit[1] m; m[0] = measure $1; if (m == 0) { box { x $0; } }",
    ],
)
def test_the_body_of_a_box_runs_where_it_stands(api: Api, body: str) -> None:
    text = run(api, "sampler", sampler(f"bit[1] c; {body} c[0] = measure $0;"))
    assert counts(text)["c"] == {"1": 100}


def test_a_box_does_not_hide_what_the_qpu_cannot_do(api: Api) -> None:
    state = failure(api, "sampler", sampler("bit[1] c; box { h $0; } c[0] = measure $0;"))
    assert "The instruction h on qubits (0,) is not supported" in state["reason"]


def test_an_estimators_circuit_may_have_a_register_and_fewer_qubits_than_its_observable(api: Api) -> None:
    program = HEAD + "bit[1] c; x $0; c[0] = measure $0;"
    parameters = {"pubs": [[program, "IZ", None, 0.02]], "version": 2, "support_qiskit": True}
    result = json.loads(run(api, "estimator", parameters), cls=RuntimeDecoder)
    assert float(result[0].data.evs) == pytest.approx(-1, abs=0.1)  # at a precision of 0.02


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("stretch a;", "'stretch'"),
        ("bool b = true;", "'bool'"),
        ("int[32] i = 3;", "'int'"),
        ("bit[1] m; m[0] = measure $0; if (m != 0) x $1;", "'=='"),
        ("bit[2] m; if (m < 1) x $1;", "'<'"),
        ("pragma simulator noise\n", "Pragma"),
    ],
)
def test_what_the_importer_cannot_read_is_blamed_on_the_emulator(api: Api, body: str, words: str) -> None:
    reason = failure(api, "sampler", sampler(f"{body} bit[1] c; c[0] = measure $0;"))["reason"]
    assert reason.startswith("The emulator cannot read a circuit, which the service itself may take:")
    assert words in reason


def test_a_syntax_error_has_its_place_and_its_text(api: Api) -> None:
    reason = failure(api, "sampler", sampler("bit[1] c;\nx $0\nc[0] = measure $0;"))["reason"]
    assert "not valid OpenQASM 3: line 3, column 1: unexpected 'c' in 'c[0] = measure $0;'" in reason


def test_a_gate_that_is_not_defined_is_the_programs_fault(api: Api) -> None:
    reason = failure(api, "sampler", sampler("bit[1] c; foo $0; c[0] = measure $0;"))["reason"]
    assert reason.startswith("A circuit is not valid OpenQASM 3:")
    assert "'foo' is not defined" in reason


def test_control_flow_that_the_qpu_lacks_is_refused(api: Api) -> None:
    program = "bit[1] c; x $0; c[0] = measure $0; while (c[0]) { x $0; c[0] = measure $0; }"
    assert "while_loop is not supported" in failure(api, "sampler", sampler(program))["reason"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"execution": {"meas_type": "kerneled"}}, "execution.meas_type='kerneled'"),
        ({"execution": {"meas_type": "avg_kerneled"}}, "execution.meas_type='avg_kerneled'"),
        ({"execution": {"init_qubits": False}}, "execution.init_qubits=False"),
        ({"experimental": {"image": "x:y"}}, "experimental="),
        ({"simulator": {"noise_model": {"a": 1}}}, "simulator="),
        ({"nonsense": 1}, "does not know the option nonsense"),
    ],
)
def test_an_option_that_is_not_emulated_is_refused(api: Api, options: dict[str, object], words: str) -> None:
    parameters = sampler("bit[1] c; x $0; c[0] = measure $0;", options=options)
    assert words in failure(api, "sampler", parameters)["reason"]


@pytest.mark.parametrize(
    ("twirling", "pub_shots", "shots"),
    [
        ({"enable_gates": True, "num_randomizations": 3, "shots_per_randomization": 7}, None, 21),
        ({"enable_measure": True, "num_randomizations": 3, "shots_per_randomization": 7}, None, 21),
        ({"enable_gates": True, "num_randomizations": 3, "shots_per_randomization": 7}, 50, 50),
        ({"enable_gates": True, "num_randomizations": 3}, None, 300),
        ({"num_randomizations": 3, "shots_per_randomization": 7}, None, 300),
    ],
)
def test_twirling_says_how_many_shots(
    api: Api, twirling: dict[str, object], pub_shots: int | None, shots: int
) -> None:
    options = {"default_shots": 300, "twirling": twirling}
    parameters = sampler("bit[1] c; x $0; c[0] = measure $0;", shots=pub_shots, options=options)
    assert counts(run(api, "sampler", parameters)) == {"c": {"1": shots}}


@pytest.mark.parametrize("angle", ["-0.5", "2.0"])
def test_rzz_has_its_range(api: Api, angle: str) -> None:
    parameters = sampler(f"{RZZ} bit[1] c; rzz({angle}) $0, $1; c[0] = measure $0;")
    assert "[0, pi/2]" in failure(api, "sampler", parameters)["reason"]


def test_rzz_has_its_range_whatever_a_parameter_is(api: Api) -> None:
    program = f"{RZZ} input float[64] a; bit[1] c; rzz(a) $0, $1; c[0] = measure $0;"
    assert counts(run(api, "sampler", sampler(program, values=[1.5]))) == {"c": {"0": 100}}
    assert "[0, pi/2]" in failure(api, "sampler", sampler(program, values=[1.6]))["reason"]


def test_fractional_gates_can_be_tried(api: Api) -> None:
    for qpu in ("ibm_fez", "ibm_torino"):
        configuration = api.get(f"/backends/{qpu}/configuration")
        assert {"rx", "rzz"} <= set(configuration["basis_gates"])
        assert {"rx", "rzz"} <= {gate["name"] for gate in configuration["gates"]}


@pytest.mark.parametrize("program", ["noise-learner", "calibrator"])
def test_a_program_that_is_not_emulated_is_refused_in_words(api: Api, program: str) -> None:
    answer = api.try_to_submit({}, program_id=program)
    assert answer.status_code == 501
    assert f"does not run the program {program}" in answer.json()["errors"][0]["message"]


def test_a_private_result_is_gone_once_it_was_read(api: Api) -> None:
    parameters = sampler("bit[1] c; x $0; c[0] = measure $0;")
    task = api.try_to_submit(parameters, private=True).json()["id"]
    end_of(api, task)
    first, second = (api.send("GET", f"/jobs/{task}/results") for _ in range(2))
    assert counts(first.text) == {"c": {"1": 100}}
    assert (second.status_code, second.content) == (204, b"")


def test_what_ibms_client_refuses_is_refused(api: Api) -> None:
    reason = failure(api, "sampler", sampler("bit[1] class; x $0; class[0] = measure $0;"))["reason"]
    assert "qiskit-ibm-runtime" in reason
    assert "Python keywords" in reason


PROJECTORS = {
    "pubs": [[HEAD + "x $0;", {"0I": 3.0, "1I": 5.0, "IZ": 1.0}, None]],
    "version": 2,
    "support_qiskit": False,
}


def test_observables_have_the_alphabet_of_ibms_client(api: Api) -> None:
    assert "limited to I, X, Y, Z" in failure(api, "estimator", PROJECTORS)["reason"]


def test_where_ibms_schema_and_client_differ_the_log_says_so(api: Api) -> None:
    parameters = sampler("bit[1] c; x $0; c[0] = measure $0;", shots=None)
    task = api.try_to_submit(parameters).json()["id"]
    assert end_of(api, task)["status"] == "Completed"
    log = api.send("GET", f"/jobs/{task}/logs").text
    assert "refuses what IBM's client takes: pubs.*" in log


def test_a_lenient_emulator_looks_at_neither() -> None:
    with Emulator(lenient=True, seed=1) as emulator:
        api = api_of(emulator)
        task = api.try_to_submit(sampler("bit[1] class; x $0; class[0] = measure $0;")).json()["id"]
        assert end_of(api, task)["status"] == "Completed"
        assert "strict" not in api.send("GET", f"/jobs/{task}/logs").text
        data = json.loads(run(api, "estimator", PROJECTORS))["results"][0]["data"]
        assert data["evs"] == pytest.approx(2.0, abs=0.3)  # 3 - 1, at a precision of 1/64


def test_an_emulator_until_stdin_closes_says_how_to_reach_it() -> None:
    command = [sys.executable, "-m", "qpu_slurm_devkit.emulator", "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(4)]
        url = lines[0].split()[-1]
        requests.get(f"{url}/emulator/sessions", timeout=30)
        process.stdin.close()
        lines += process.stdout.readlines()
        assert process.wait(60) == 0
    said = "".join(lines)
    assert "export QISKIT_IBM_TOKEN='made-up-key-of-premium'" in said
    assert f"export QISKIT_IBM_URL='{url}/experimental/api/v1'" in said


def test_a_circuit_that_qiskit_reads_and_cannot_execute_is_no_fault_of_its_writer(api: Api) -> None:
    document = json.loads((INPUTS / "dry_run_delay_parameter.json").read_text(encoding="utf-8"))
    task = api.try_to_submit(document["parameters"]).json()["id"]
    state = end_of(api, task)["state"]
    assert state["reason"].startswith(
        "The emulator cannot execute a circuit, which the service itself may take: qiskit "
    )
    assert "Traceback" not in api.send("GET", f"/jobs/{task}/logs").text
