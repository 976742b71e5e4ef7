# SPDX-License-Identifier: Apache-2.0
"""Requests that must take effect once, though their answer may get lost.

The service knows no idempotency key: a session or a task whose answer was lost is there, is paid for, and
nobody has its id. So what such a request has made is looked for, as long as it may take to show up, before
the request is sent again.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, TypeVar

from qpu_slurm.errors import ServiceError
from qpu_slurm.providers.ibm.http import LostError, unavailable
from qpu_slurm.system.backoff import backoff
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_log = logging.getLogger(__name__)


def once(
    send: Callable[[Deadline], T], look: Callable[[], T | None], *, settle: float, deadline: Deadline
) -> T:
    """Have a request take effect once, and return what it made.

    Args:
        send: Sends it, by the given deadline; `LostError` if it may have taken effect.
        look: Looks for what it may have made.
        settle: Seconds within which that shows up.
        deadline: When to give up.

    Raises:
        UnavailableError: It did not take effect, and there is no time left.
        AnswerLostError: Whether it took effect cannot be told, or not in time.
    """
    for attempt in itertools.count():
        try:
            return send(deadline)
        except LostError as error:
            lost = error
        found = _found(look, lost, settle, deadline)
        if found is not None:
            _log.warning("It had taken effect, and what it made is used. %s", lost)
            return found
        pause = max(lost.pause, backoff(attempt))
        # Whatever is sent has to be looked for in time, too.
        if not deadline.allows(pause + settle):
            raise unavailable(lost)
        _log.warning("It had not taken effect, and is sent again in %.1f s. %s", pause, lost)
        time.sleep(pause)
    raise AssertionError("an endless loop ended")


def _found(look: Callable[[], T | None], lost: LostError, settle: float, deadline: Deadline) -> T | None:
    settled = Deadline.after(settle)
    for attempt in itertools.count():
        try:
            found = look()
        except ServiceError:
            raise lost from None
        if found is not None or settled.passed:
            return found
        pause = min(backoff(attempt), settled.left)
        if not deadline.allows(pause):
            raise lost
        time.sleep(pause)
    raise AssertionError("an endless loop ended")
