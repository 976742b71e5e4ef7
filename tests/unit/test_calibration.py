# SPDX-License-Identifier: Apache-2.0
"""When a QPU was calibrated, as its properties say it, and as inputs say it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.errors import PayloadError
from qpu_slurm.tasks import overrides, payload
from qpu_slurm.tasks.calibration import calibrated_at, saw, seen
from qpu_slurm.tasks.payload import SMALL, TranspiledFor
from tests.integration.steps import sampler_input

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)
SAID = {"backend": "ibm_fez", "calibrated_at": "2026-03-05T12:00:00Z"}


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


def document(said: object, filler: str = "") -> bytes:
    return json.dumps(json.loads(sampler_input(filler=filler)) | {"qpu_slurm": said}).encode()


def test_an_input_says_what_it_was_transpiled_for() -> None:
    found = payload.load(document(SAID))

    assert found.transpiled_for == TranspiledFor("ibm_fez", NOON)
    assert found == payload.load(document({**SAID, "calibrated_at": "2026-03-05T12:00:00"}))
    assert b"qpu_slurm" not in overrides.text_of(found)
    assert overrides.with_shots(found, 3).transpiled_for == found.transpiled_for


def test_a_big_input_says_it_too(tmp_path: Path) -> None:
    path = tmp_path / "input.json"
    path.write_bytes(document(SAID | {"more": [1]}, filler="x" * (SMALL + 1)))

    found = payload.read(path)

    assert not isinstance(found.parameters, bytes)
    assert found.transpiled_for == TranspiledFor("ibm_fez", NOON)
    assert b"qpu_slurm" not in overrides.text_of(found)


@pytest.mark.parametrize("said", [7, [], {}, {"backend": "ibm_fez"}, {**SAID, "calibrated_at": "yesterday"}])
def test_an_input_that_says_it_wrongly_is_refused(said: Any) -> None:  # noqa: ANN401 - JSON
    with pytest.raises(PayloadError, match="qpu_slurm"):
        payload.load(document(said))


def test_what_a_program_has_seen_is_what_it_transpiles_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qpu_slurm.tasks.calibration._seen", {})
    properties = json.dumps({"last_update_date": NOON.astimezone(timezone(timedelta(hours=1))).isoformat()})

    assert seen() is None
    saw("ibm_fez", b"{}")
    assert seen() is None
    saw("ibm_fez", properties.encode())
    assert seen() == TranspiledFor("ibm_fez", NOON)
    saw("ibm_torino", properties.encode())
    assert seen() is None  # nobody knows for which
