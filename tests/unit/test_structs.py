# SPDX-License-Identifier: Apache-2.0
"""Structures are prepared before threads decode them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from qpu_slurm.gateway.pools import Pool
from qpu_slurm.journal.model import Lease
from qpu_slurm.system import structs

if TYPE_CHECKING:
    from decimal import Decimal  # noqa: TC004 - a name that is missing at run time


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """Return the structures whose annotations are read from now on, in a process that has read none."""
    found: list[type] = []
    decoder = msgspec.json.Decoder

    def reads(structure: type) -> object:
        found.append(structure)
        return decoder(structure)

    monkeypatch.setattr(structs, "_READY", set())
    monkeypatch.setattr(msgspec.json, "Decoder", reads)
    return found


def test_each_structure_is_prepared_once(prepared: list[type]) -> None:
    structs.prepare()
    assert prepared.count(Lease) == 1
    before = len(prepared)

    class Later(msgspec.Struct):
        number: int

    structs.prepare()
    assert prepared[before:] == [Later]


def test_a_structure_for_type_checkers_alone_is_passed_over(prepared: list[type]) -> None:
    class Checked(msgspec.Struct):
        field: Decimal

    structs.prepare()
    assert Checked in prepared
    assert Lease in prepared


def test_the_gateways_threads_find_all_structures_prepared(prepared: list[type]) -> None:
    pool = Pool("test", 1)
    assert Lease in prepared
    pool.close()
