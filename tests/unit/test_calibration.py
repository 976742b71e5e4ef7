# SPDX-License-Identifier: Apache-2.0
"""What inputs were transpiled for."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from qpu_slurm.errors import PayloadError
from qpu_slurm.tasks import overrides, payload
from qpu_slurm.tasks.calibration import saw, seen
from qpu_slurm.tasks.checks import TranspiledFor
from qpu_slurm.tasks.payload import SMALL
from tests.integration.steps import sampler_input

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)
SAID = {"backend": "ibm_fez", "calibrated_at": "2026-03-05T12:00:00Z"}


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
    noon_elsewhere = NOON.astimezone(timezone(timedelta(hours=1)))

    assert seen() is None
    saw("ibm_fez", None)
    assert seen() is None
    saw("ibm_fez", noon_elsewhere)
    assert seen() == TranspiledFor("ibm_fez", NOON)
    saw("ibm_torino", noon_elsewhere)
    assert seen() is None  # nobody knows for which
