# SPDX-License-Identifier: Apache-2.0
"""Results that the gateway has fetched before a client asked: how many there are is bounded.

Each belongs to a task of one lease, and is handed to that lease once. The service still has it.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from qpu_slurm.gateway.relay import Copy

LARGEST: Final = 1 << 20
"""Bytes of a result that is fetched ahead; a larger one streams from the service to the client."""

_OF_A_LEASE: Final = 4 << 20
_IN_ALL: Final = 32 << 20
_SECONDS: Final = 60.0
"""How long a result waits for its client."""


class _Kept(NamedTuple):
    copy: Copy
    at: float


class Results:
    """The results that wait for their clients.

    Args:
        in_all: Bytes that they may take.
        of_a_lease: Bytes that those of one lease may take.
    """

    def __init__(self, in_all: int = _IN_ALL, of_a_lease: int = _OF_A_LEASE) -> None:
        self._in_all = in_all
        self._of_a_lease = of_a_lease
        self._kept: OrderedDict[tuple[int, str], _Kept] = OrderedDict()
        self._bytes: Counter[int] = Counter()

    def put(self, lease_id: int, task_id: str, copy: Copy) -> None:
        """Keep a result; the oldest ones make room for it."""
        self.take(lease_id, task_id)
        size = len(copy.body)
        if size > min(LARGEST, self._of_a_lease, self._in_all):
            return
        self._kept[lease_id, task_id] = _Kept(copy, time.monotonic())
        self._bytes[lease_id] += size
        while self._bytes[lease_id] > self._of_a_lease:
            self._drop(next(key for key in self._kept if key[0] == lease_id))
        while self._bytes.total() > self._in_all or self._is_old():
            self._drop(next(iter(self._kept)))

    def take(self, lease_id: int, task_id: str) -> Copy | None:
        """Hand a result over, for the last time; None if there is none."""
        kept = self._kept.get((lease_id, task_id))
        if kept is None:
            return None
        self._drop((lease_id, task_id))
        return kept.copy

    def _is_old(self) -> bool:
        oldest = next(iter(self._kept.values()), None)
        return oldest is not None and time.monotonic() - oldest.at > _SECONDS

    def _drop(self, key: tuple[int, str]) -> None:
        kept = self._kept.pop(key)
        self._bytes[key[0]] -= len(kept.copy.body)
        if not self._bytes[key[0]]:
            del self._bytes[key[0]]
