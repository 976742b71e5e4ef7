# SPDX-License-Identifier: Apache-2.0
"""Structures of msgspec for processes with several threads.

msgspec reads a structure's annotations when it is decoded for the first time. If two threads do that at the
same moment, one of them can find the other's half-made notes, and the process ends with a segmentation fault
(msgspec 0.22, Python 3.11). So each process has them read before it starts threads.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_READY: set[type] = set()
_ONE_AT_A_TIME = threading.Lock()


def prepare() -> None:
    """Have the annotations of all structures read that are loaded and were not prepared yet.

    Call it before threads are started that decode, and in a thread that has loaded further modules.
    """
    with _ONE_AT_A_TIME:
        for structure in list(_structures(msgspec.Struct)):
            if structure not in _READY:
                # One that names types for type checkers alone is never decoded.
                with suppress(NameError, TypeError):
                    msgspec.json.Decoder(structure)
                _READY.add(structure)


def _structures(base: type) -> Iterator[type]:
    structure: type
    for structure in base.__subclasses__():
        yield structure
        yield from _structures(structure)
