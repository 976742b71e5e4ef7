# SPDX-License-Identifier: Apache-2.0
"""What the IBM provider reads out of the service's JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.errors import UnavailableError
from qpu_slurm.providers.base import TaskTimes
from qpu_slurm.providers.ibm import device
from qpu_slurm.providers.ibm.answers import calibrated_at, times_of

NOON = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-05T12:00:00Z",
        "2026-03-05T13:00:00+01:00",
        "2026-03-05T12:00:00.000+00:00",
        "2026-03-05T12:00:00",
    ],
)
def test_the_services_ways_to_write_a_time(text: str) -> None:
    assert calibrated_at(json.dumps({"qubits": [], "last_update_date": text}).encode()) == NOON


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "{}", '{"last_update_date": 7}', '{"last_update_date": "?"}']
)
def test_properties_that_do_not_say_it(text: str) -> None:
    assert calibrated_at(text.encode()) is None


@given(st.binary() | st.dates().map(lambda day: b'{"last_update_date": "%s"}' % str(day).encode()))
def test_no_properties_are_an_error(text: bytes) -> None:
    found = calibrated_at(text)

    assert found is None or found.tzinfo is UTC


def test_a_tasks_times() -> None:
    stamps = {
        "created": "2026-03-05T12:00:00Z",
        "running": "2026-03-05T13:00:01.5+01:00",
        "finished": "2026-03-05T12:00:04Z",
    }
    metrics = {"timestamps": stamps, "usage": {"quantum_seconds": 2, "status": "final"}}

    assert times_of(metrics) == TaskTimes(queued=1.5, running=2.5, quantum=2.0)
    assert times_of({"timestamps": {**stamps, "finished": None}, "position_in_queue": 3}) == TaskTimes(
        queued=1.5, position=3
    )


@pytest.mark.parametrize("metrics", [{}, {"timestamps": None}, {"timestamps": []}, {"usage": 7}])
def test_metrics_that_say_no_times(metrics: dict[str, Any]) -> None:
    assert times_of(metrics) == TaskTimes()


STAMPS = st.dictionaries(
    st.sampled_from(["created", "running", "finished"]), st.none() | st.text() | st.datetimes().map(str)
)


@given(st.fixed_dictionaries({"timestamps": STAMPS}))
def test_no_metrics_are_an_error(metrics: dict[str, Any]) -> None:
    found = times_of(metrics)

    assert all(seconds is None or seconds >= 0 for seconds in (found.queued, found.running))


CONFIGURATION = {
    "n_qubits": 3,
    "basis_gates": ["cz", "ecr", "sx", "xy"],
    "gates": [
        {"name": "cz", "coupling_map": [[0, 1]]},
        {"name": "ecr", "coupling_map": [[0, 1]]},
        {"name": "sx", "coupling_map": [[0], [1]]},
        {"name": "id"},
    ],
    "coupling_map": [[0, 1], [1, 2]],
    "processor_type": {"family": "Eagle"},
    "max_shots": 1000,
}


@pytest.mark.parametrize(
    ("name", "qubits", "problem"),
    [
        ("cz", (1, 0), None),
        ("cz", (1, 2), "cz on qubits 1 and 2: the QPU has none there"),
        ("ecr", (0, 1), None),
        ("ecr", (1, 0), "ecr on qubits 1 and 0: the QPU has none there"),
        ("sx", (1,), None),
        ("sx", (2,), "sx on qubits 2: the QPU has none there"),
        ("xy", (2, 1), None),
        ("xy", (0, 2), "xy on qubits 0 and 2: the QPU has none there"),
        ("id", (3,), "id on qubits 3: the QPU has 3"),
        ("rx", (0,), "rx is no operation of the QPU"),
        ("measure", (2,), None),
        ("barrier", (0, 2), None),
    ],
)
def test_what_an_operation_may_act_on(name: str, qubits: tuple[int, ...], problem: str | None) -> None:
    found = device.read(json.dumps(CONFIGURATION).encode())

    assert (found.qubits, found.max_shots) == (3, 1000)
    assert found.problem(name, qubits) == problem


def test_what_a_qpu_lacks() -> None:
    eagle = device.read(json.dumps(CONFIGURATION).encode())
    heron = device.read(json.dumps({**CONFIGURATION, "processor_type": {"family": "Heron"}}).encode())

    assert eagle.lacks(["rzz", "cz", "rx", "measure"]) == ["rx", "rzz"]
    assert heron.lacks(["rzz", "cz", "rx", "measure"]) == []


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"n_qubits": "three"}', b'{"n_qubits": 1, "gates": [7]}', b"\xff"]
)
def test_a_configuration_that_is_none(text: bytes) -> None:
    with pytest.raises(UnavailableError, match="cannot be understood"):
        device.read(text)
