# SPDX-License-Identifier: Apache-2.0
"""What a client calls itself, for the metrics: a few names and releases, whatever clients send."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

OTHER: Final = "other"

_MOST = 32
"""How many releases are told apart; the first ones that were met."""

_RELEASE = r"(\d{1,4}(?:\.\d{1,4}){1,2})"
_NAMES: Final = {
    "qiskit-ibm-runtime": re.compile(rf"\bqiskit_ibm_runtime-{_RELEASE}"),
    "qpu_slurm": re.compile(rf"\bqpu_slurm/{_RELEASE}"),
    "qpu-slurm-client": re.compile(rf"\bqpu-slurm-client/{_RELEASE}"),
}
_HEADERS: Final = ("X-Qx-Client-Application", "User-Agent")
_LONGEST = 1000


class Names:
    """Names clients. QRMI does not say what it is: it is one of the others."""

    def __init__(self) -> None:
        self._met: set[tuple[str, str]] = set()

    def of(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """Return a client's name and release. Both are `other` if they are not known, or one too many."""
        for header in _HEADERS:
            text = headers.get(header, "")[:_LONGEST]
            for name, pattern in _NAMES.items():
                if found := pattern.search(text):
                    return self._meet(name, found[1])
        return OTHER, OTHER

    def _meet(self, name: str, release: str) -> tuple[str, str]:
        if (name, release) not in self._met:
            if len(self._met) >= _MOST:
                return name, OTHER
            self._met.add((name, release))
        return name, release
