# SPDX-License-Identifier: Apache-2.0
"""The QPUs' last known status: an answer to an older question changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.journal.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm.journal.seen_qpus import SeenQpus


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[SeenQpus]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal.seen_qpus


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_an_answer_replaces_that_to_an_older_question(seen: SeenQpus) -> None:
    assert seen.find("ibm_fez") is None
    seen.note("ibm_fez", asked_at=ago(9), online=True)
    noted = seen.note("ibm_fez", asked_at=ago(1), online=False, reason="calibration")
    assert noted == seen.find("ibm_fez")
    assert (noted.online, noted.reason) == (False, "calibration")
    assert 1 <= noted.age < 9


def test_a_late_answer_to_an_older_question_changes_nothing(seen: SeenQpus) -> None:
    newer = seen.note("ibm_fez", asked_at=ago(1), online=False, reason="calibration")
    assert seen.note("ibm_fez", asked_at=ago(9), online=True) == newer
    assert seen.find("ibm_fez") == newer
    assert seen.note("ibm_torino", asked_at=ago(9), online=True).online


def test_what_was_seen_before_the_clock_was_set_back_gives_way(seen: SeenQpus) -> None:
    before = seen.note("ibm_fez", asked_at=ago(-3600), online=False, reason="calibration")
    assert before.age == float("inf")
    assert seen.note("ibm_fez", asked_at=ago(1), online=True).online
