# SPDX-License-Identifier: Apache-2.0
"""docs/compatibility.md shows what the clients' tests assert, and pyproject.toml promises no more."""

from __future__ import annotations

import tomllib

from tests.clients.document import DOCUMENT, text
from tests.clients.releases import CHECKOUT, RUNTIME


def test_the_document_is_what_the_tests_assert() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == text(), "write it with: make test-clients"


def test_the_oldest_release_that_is_promised_is_tested() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    (wanted,) = [w for w in project["optional-dependencies"]["qiskit"] if "ibm-runtime" in w]
    floor, _ = wanted.removeprefix("qiskit-ibm-runtime>=").split(",<")
    assert RUNTIME[0].version.startswith(f"{floor}.")
