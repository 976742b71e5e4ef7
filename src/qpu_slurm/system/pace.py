# SPDX-License-Identifier: Apache-2.0
"""Long computations that leave most of the processor to the process's other threads.

Python runs one thread at a time. While one computes, an event loop beside it waits for its turn after every
system call. Where the machine has no free core, it waits for as long as the kernel lets the other one wait.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    T = TypeVar("T")

_SLICE = 0.002
"""Seconds of CPU between two rests."""

_LOOK = 16
"""How many items are yielded between two looks at the clock, which is a system call."""

_REST = 4
"""How much longer a rest is than the slice before: the thread takes a fifth of a core."""


def paced(items: Iterable[T]) -> Iterator[T]:
    """Yield items, and rest now and then for as long as this thread has computed, several times.

    Args:
        items: The items. What their iterator computes counts, as does what happens between two of them.
    """
    begin = time.thread_time()
    for number, item in enumerate(items):
        yield item
        if number % _LOOK:
            continue
        used = time.thread_time() - begin
        if used >= _SLICE:
            time.sleep(used * _REST)
            begin = time.thread_time()
