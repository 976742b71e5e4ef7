# SPDX-License-Identifier: Apache-2.0
"""docs/adding-a-provider.md names every question of the protocol, and every conformance class."""

from __future__ import annotations

import re
from pathlib import Path

from qpu_slurm.providers.base import Provider
from tests import provider_conformance

GUIDE = (Path(__file__).parents[2] / "docs" / "adding-a-provider.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \|", GUIDE, re.MULTILINE)


def test_the_guide_lists_the_protocols_methods_in_their_order() -> None:
    methods = [name for name, value in vars(Provider).items() if callable(value) and not name.startswith("_")]

    assert [name for name in ROWS if name[0].islower()] == methods


def test_the_guide_lists_the_conformance_classes() -> None:
    classes = [name for name in vars(provider_conformance) if name.endswith("Conformance")]

    assert [name for name in ROWS if name[0].isupper()] == classes
    assert all(f"({name})" in GUIDE for name in classes)


def test_the_guides_service_has_what_the_suite_asks_of_one() -> None:
    wanted = {*vars(provider_conformance.Service), *vars(provider_conformance.NetworkService)}

    for name in wanted:
        if not name.startswith("_"):
            assert f"def {name}(" in GUIDE
