# SPDX-License-Identifier: Apache-2.0
"""What the emulator executes: every form of input that writers use, both shapes of results, bad input."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import requests
from qiskit_ibm_runtime import RuntimeDecoder, RuntimeEncoder

from qpu_slurm_devkit.emulator import Emulator
from tests.integration.conftest import SECONDS, api_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.integration.conftest import Api

HEAD = 'OPENQASM 3.0; include "stdgates.inc"; '
# Parameters sorted by name would be _θ_0_, _θ_10_, _θ_2_: three qubits tell which value went where.
PARAMETRIC = (
    HEAD
    + "input float[64] _θ_0_; input float[64] _θ_2_; input float[64] _θ_10_; bit[3] c;"
    + "".join(f"sx ${q}; rz(_θ_{name}_) ${q}; sx ${q};" for q, name in ((0, 0), (1, 2), (2, 10)))
    + "c[0] = measure $0; c[1] = measure $1; c[2] = measure $2;"
)


def end_of(api: Api, task: str) -> dict[str, Any]:
    """Wait until a task is over; returns its document."""
    deadline = time.monotonic() + SECONDS
    while (document := api.get(f"/jobs/{task}", exclude_params="true"))["status"] in {"Queued", "Running"}:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return document


def run(api: Api, program: str, parameters: Mapping[str, object]) -> str:
    """Execute an input; returns the result's text."""
    emulated = api.try_to_submit(parameters, program_id=program)
    emulated.raise_for_status()
    task = emulated.json()["id"]
    document = end_of(api, task)
    assert document["status"] == "Completed", document["state"]
    response = api.send("GET", f"/jobs/{task}/results")
    assert response.headers["Content-Type"].startswith("text/plain")
    return response.text


def failure(api: Api, program: str, parameters: Mapping[str, object]) -> dict[str, Any]:
    """Execute an input that fails; returns the state, which says why."""
    task = api.try_to_submit(parameters, program_id=program).json()["id"]
    state: dict[str, Any] = end_of(api, task)["state"]
    assert state["status"] == "Failed"
    assert api.send("GET", f"/jobs/{task}/results").status_code == 204
    return state


def samples(text: str, register: str = "c") -> list[Any]:
    found: list[Any] = json.loads(text)["results"][0]["data"][register]["samples"]
    return found


@pytest.mark.parametrize(
    ("pub", "extra", "shots"),
    [
        (["{bell}"], {}, 4096),
        ("{bell}", {}, 4096),
        (["{bell}", None, 100], {}, 100),
        (["{bell}", [], 100], {}, 100),
        (["{bell}", []], {"shots": 200}, 200),
        (["{bell}", []], {"options": {"default_shots": 300}}, 300),
        (["{bell}", [], 100], {"shots": 200, "options": {"default_shots": 300}}, 100),
        (["{bell}", json.loads(json.dumps(np.zeros(0), cls=RuntimeEncoder)), 100], {}, 100),
    ],
)
def test_a_bell_pair_is_half_one_half_the_other_however_it_is_written(
    api: Api, bell: str, pub: object, extra: dict[str, object], shots: int
) -> None:
    written = [bell if part == "{bell}" else part for part in pub] if isinstance(pub, list) else bell
    text = run(api, "sampler", {"pubs": [written], "version": 2, "support_qiskit": False, **extra})
    counts = Counter(samples(text, "meas"))
    assert set(counts) == {"0x0", "0x3"}
    assert counts.total() == shots
    assert abs(counts["0x0"] - shots / 2) < 4 * math.sqrt(shots / 4)


@pytest.mark.parametrize("which", range(3))
def test_values_are_bound_in_the_order_in_which_parameters_are_declared(api: Api, which: int) -> None:
    # sx, rz(0), sx makes 1; sx, rz(pi), sx makes 0.
    values = [math.pi] * 3
    values[which] = 0.0
    text = run(api, "sampler", {"pubs": [[PARAMETRIC, values, 10]], "version": 2, "support_qiskit": False})
    assert set(samples(text)) == {hex(1 << which)}


def test_several_value_sets_give_as_many_results(api: Api) -> None:
    sets = [[[0.0, math.pi, math.pi]], [[math.pi, math.pi, 0.0]]]
    parameters = {"pubs": [[PARAMETRIC, sets, 5]], "version": 2}
    plain = samples(run(api, "sampler", {**parameters, "support_qiskit": False}))
    assert plain == [[["0x1"] * 5], [["0x4"] * 5]]
    bits = json.loads(run(api, "sampler", parameters), cls=RuntimeDecoder)[0].data.c
    assert bits.shape == (2, 1)
    assert bits.get_counts((1, 0)) == {"100": 5}


def test_values_may_be_given_by_name(api: Api) -> None:
    values = {"_θ_0_": math.pi, "_θ_2_": math.pi, "_θ_10_": 0.0}
    text = run(api, "sampler", {"pubs": [[PARAMETRIC, values, 5]], "version": 2, "support_qiskit": False})
    assert set(samples(text)) == {"0x4"}


def test_a_result_for_qiskit_is_a_primitive_result(api: Api, bell: str) -> None:
    result = json.loads(
        run(api, "sampler", {"pubs": [[bell, None, 50]] * 2, "version": 2}), cls=RuntimeDecoder
    )
    assert len(result) == 2
    assert result[1].data.meas.num_shots == 50
    (span,) = result.metadata["execution"]["execution_spans"]
    assert span.size == 100


OBSERVABLE = {"ZZ": 1.0, "XX": 1.0, "ZI": 0.5}
UNMEASURED = (
    "rz(pi/2) $0; sx $0; rz(pi/2) $0; rz(pi/2) $1; sx $1; rz(pi/2) $1;"
    " cz $0, $1; rz(pi/2) $1; sx $1; rz(pi/2) $1;"
)


@pytest.mark.parametrize(
    ("observables", "expected"),
    [
        (OBSERVABLE, 2.0),
        ([OBSERVABLE, {"YY": 1}], [2.0, -1.0]),
        ("ZZ", 1.0),
        (["ZZ", "IZ"], [1.0, 0.0]),
        ([["ZZ"], ["XX"]], [[1.0], [1.0]]),
        # Longer than the circuit: what lies beyond is in state 0.
        ({"Z" + "I" * 50 + "ZZ": 1.0, "X" + "I" * 50 + "ZZ": 7.0}, 1.0),
    ],
)
@pytest.mark.parametrize("shape", ["qiskit", "plain"])
def test_observables_may_be_written_in_many_ways(
    api: Api, observables: object, expected: object, shape: str
) -> None:
    parameters = {
        "pubs": [[HEAD + UNMEASURED, observables, None]],
        "version": 2,
        "resilience_level": 1,
        "options": {"default_shots": 10_000},
        "support_qiskit": shape == "qiskit",
    }
    text = run(api, "estimator", parameters)
    if shape == "qiskit":
        data = json.loads(text, cls=RuntimeDecoder)[0].data
        values, errors = data.evs, data.stds
    else:
        data = json.loads(text)["results"][0]["data"]
        values, errors = np.array(data["evs"]), np.array(data["stds"])
    assert values == pytest.approx(np.array(expected), abs=0.06)
    assert errors == pytest.approx(np.full_like(np.array(expected), 0.01))


def test_an_estimator_binds_parameters_and_takes_a_precision(api: Api) -> None:
    unmeasured = PARAMETRIC.replace("bit[3] c;", "").partition("c[0]")[0]
    sets = [[0.0, math.pi, math.pi], [math.pi, math.pi, 0.0]]
    pub = [unmeasured, {"IIZ": 1.0}, sets, 0.001]
    text = run(api, "estimator", {"pubs": [pub], "version": 2, "support_qiskit": False})
    assert json.loads(text)["results"][0]["data"]["evs"] == pytest.approx([-1, 1], abs=0.01)


def chain(qubits: int, angle: str) -> str:
    """Write a line of qubits, each rotated (half a turn in two steps of `angle`) and measured."""
    line = [f"sx ${q}; rz({angle}) ${q}; sx ${q};" for q in range(qubits)]
    pairs = [f"cz ${q}, ${q + 1};" for q in range(min(qubits, 16) - 1)]
    measure = [f"c[{q}] = measure ${q};" for q in range(qubits)]
    return f"{HEAD} bit[{qubits}] c; {' '.join(line + pairs + measure)}"


@pytest.mark.parametrize(
    ("qubits", "angle", "method"),
    [
        (3, "0.3", "statevector"),
        (100, "0", "stabilizer"),
        (40, "pi + 1e-12", "stabilizer"),
        (40, "0.0001", "matrix_product_state"),
    ],
)
def test_large_circuits_are_simulated_by_other_methods(
    api: Api, qubits: int, angle: str, method: str
) -> None:
    text = run(
        api, "sampler", {"pubs": [[chain(qubits, angle), [], 20]], "version": 2, "support_qiskit": False}
    )
    (task,) = api.get("/jobs")["jobs"]
    assert f"method {method}" in api.send("GET", f"/jobs/{task['id']}/logs").text
    metrics = api.get(f"/jobs/{task['id']}/metrics")
    assert (metrics["num_qubits"], metrics["usage"]["status"]) == ([qubits], "final")
    if angle == "0":
        assert set(samples(text)) == {hex(2**qubits - 1)}


@pytest.mark.parametrize(
    ("program", "parameters", "code", "sentence"),
    [
        ("sampler", {}, 1002, "no pubs"),
        ("sampler", {"pubs": [[7]]}, 1002, "neither QPY nor OpenQASM 3"),
        ("sampler", {"pubs": [["not a program"]]}, 1002, "not valid OpenQASM 3"),
        ("sampler", {"pubs": [[HEAD + "bit[1] c; h $0; c[0] = measure $0;"]]}, 1517, "h on qubits (0,)"),
        (
            "sampler",
            {"pubs": [[HEAD + "bit[1] c; cz $0, $9; c[0] = measure $0;"]]},
            1517,
            "cz on qubits (0, 9)",
        ),
        ("sampler", {"pubs": [[HEAD + "bit[1] c; x $200; c[0] = measure $200;"]]}, 1002, "ibm_fez has 156"),
        ("sampler", {"pubs": [[HEAD + "x $0;"]]}, 1002, "no classical register"),
        ("sampler", {"pubs": [[PARAMETRIC, [1.0, 2.0]]]}, 1002, "3 parameters"),
        ("sampler", {"pubs": [[PARAMETRIC, ["a", "b", "c"]]]}, 1002, "could not convert"),
        ("sampler", {"pubs": [[PARAMETRIC, [0, 0, 0], -5]]}, 1002, "shots"),
        ("estimator", {"pubs": [[HEAD + UNMEASURED, {"QQ": 1}]]}, 1002, "letter"),
        ("estimator", {"pubs": [[HEAD + UNMEASURED]]}, 1002, "None"),
        ("executor", {"schema_version": "v0.0"}, 1002, "knows schema v2.0"),
        ("executor", {"schema_version": "v2.0"}, 1002, "quantum_program"),
    ],
)
def test_bad_input_fails_the_task_with_a_reason(
    api: Api, program: str, parameters: Mapping[str, object], code: int, sentence: str
) -> None:
    state = failure(api, program, parameters)
    assert state["reason_code"] == code
    assert sentence in state["reason"]
    assert api.send("GET", "/backends").status_code == 200


def test_circuits_for_no_qpu_in_particular_may_be_allowed() -> None:
    program = HEAD + "qubit[2] q; bit[2] c; h q[0]; cx q[0], q[1]; c = measure q;"
    with Emulator(any_circuit=True, seed=1) as emulator:
        api = api_of(emulator)
        with api.http:
            texts = {run(api, "sampler", {"pubs": [[program]], "support_qiskit": False}) for _ in range(2)}
    assert len(texts) == 1
    assert set(samples(texts.pop())) == {"0x0", "0x3"}


def test_inputs_and_results_of_100_mb_pass() -> None:
    size = 100_000_000
    with Emulator(result_bytes=size) as emulator:
        api = api_of(emulator)
        with api.http:
            task = api.submit([["x" * size]])
            emulator.wait_for(lambda e: e.tasks()[0].done_at)
            url = f"{api.url}/jobs/{task}/results"
            with api.http.get(url, stream=True, timeout=SECONDS) as response:
                assert sum(len(piece) for piece in response.iter_content(1 << 20)) == pytest.approx(
                    size, rel=0.01
                )
            head = requests.get(
                f"{api.url}/jobs/{task}", headers=dict(api.http.headers), stream=True, timeout=SECONDS
            )
            with head:
                assert int(head.headers["Content-Length"]) > size
