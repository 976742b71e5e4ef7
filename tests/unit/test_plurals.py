# SPDX-License-Identifier: Apache-2.0
"""Numbers in sentences."""

from __future__ import annotations

import pytest

from qpu_slurm.system.plurals import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 leases"), (1, "1 lease"), (2, "2 leases"), (11, "11 leases")]
)
def test_a_noun_agrees_with_its_number(number: int, text: str) -> None:
    assert counted(number, "lease") == text
