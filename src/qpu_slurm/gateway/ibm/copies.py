# SPDX-License-Identifier: Apache-2.0
"""What clients ask at every submission, and as they start: answered from copies as long as those may be old.

| what | a copy is used for | while a new one is fetched | asked again |
|---|---|---|---|
| the QPU's status | 1 s | 5 s | the same |
| the list of QPUs | 2 s | 5 s | the same |
| the instance's usage | 5 s | 30 s | the same |
| the QPU's properties | 60 s | | a new one |
| its configuration, its defaults | 10 min | 1 h | a new one |

A client that asks for properties or configuration again wants to see what is new: with one token it never
gets the same copy twice. `Cache-Control: no-cache` gets a new one at once.

A copy belongs to one QPU of the configuration, that is, to one account; it has nothing of a lease's.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from qpu_slurm.gateway.answers import ApiError, CutOffError
from qpu_slurm.gateway.ibm.clients import query_of, shaping_headers, wants_new
from qpu_slurm.gateway.relay import copy

if TYPE_CHECKING:
    from aiohttp import web

    from qpu_slurm.gateway.callers import Caller
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.relay import Copy
    from qpu_slurm.gateway.upstream import Upstream

_LARGEST: Final = 32 << 20
"""Bytes that such an answer may have."""

_KEPT: Final = 4 << 20
"""Bytes of an answer that is kept."""

_QUESTIONS: Final = 32
"""How many different ones are kept; clients ask for a handful."""

_LATELY: Final = 60.0
"""Seconds for which something that was asked for is likely to be asked for again."""


class Age(NamedTuple):
    """How old a copy may be, in seconds.

    Attributes:
        fresh: Until then, it is used.
        most: Until then, it is used while a new one is fetched.
        again: Whether a client that asks again gets the same copy.
        at_submission: Whether a program that submits one task after the other asks each time.
    """

    fresh: float
    most: float
    again: bool = False
    at_submission: bool = False


AGES: Final = {
    "status": Age(1.0, 5.0, again=True, at_submission=True),
    "backends": Age(2.0, 5.0, again=True),
    "usage": Age(5.0, 30.0, again=True, at_submission=True),
    "properties": Age(60.0, 60.0),
    "configuration": Age(600.0, 3600.0),
    "defaults": Age(600.0, 3600.0),
}
"""By the last part of the path."""


class _Question(NamedTuple):
    """What the service is asked, with everything that its answer depends on."""

    parts: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]

    @property
    def age(self) -> Age:
        return AGES[self.parts[-1]]


class _Kept:
    """A copy, and who has seen it."""

    def __init__(self) -> None:
        self.copy: Copy | None = None
        self.fetched_at = 0.0
        self.asked_at: dict[int, float] = {}
        self.seen_by: set[int] = set()
        self.fetching: asyncio.Task[Copy] | None = None

    def usable(self, age: Age, token: int) -> bool:
        """Return whether a client may have the copy."""
        if self.copy is None or time.monotonic() - self.fetched_at > age.most:
            return False
        return age.again or token not in self.seen_by


class Copies:
    """The copies of one QPU's service.

    Args:
        gateway: Whose clients ask.
        upstream: The service.
    """

    def __init__(self, gateway: Gateway, upstream: Upstream) -> None:
        self._gateway = gateway
        self._upstream = upstream
        self._kept: OrderedDict[_Question, _Kept] = OrderedDict()

    async def answer(self, request: web.Request, caller: Caller, *parts: str) -> Copy:
        """Answer a client's question, from a copy if that may be.

        Args:
            request: The client's.
            caller: Whose it is; it may ask that.
            parts: The path's parts; the last one is among `AGES`.

        Raises:
            ApiError: There is no answer.
            CutOffError: It broke off.
        """
        question = _Question(parts, tuple(query_of(request)), tuple(shaping_headers(request).items()))
        kept = self._kept.setdefault(question, _Kept())
        self._kept.move_to_end(question)
        if len(self._kept) > _QUESTIONS:
            self._kept.popitem(last=False)
        kept.asked_at[caller.lease.id] = time.monotonic()
        token = hash(request.headers.get("Authorization"))
        found = kept.copy
        if found is not None and not wants_new(request) and kept.usable(question.age, token):
            self._gateway.credit.earn(caller.lease.id)
            self._refresh(question, kept, caller.lease.id)
        else:
            found = await asyncio.shield(self._fetch(question, kept))
        kept.seen_by.add(token)
        return found

    def foresee_start(self, lease_id: int) -> None:
        """Fetch what a program of a lease's asks as it starts, while it asks what is answered here."""
        seen = set()
        for question, kept in reversed(self._kept.items()):
            if question.parts not in seen:  # as the newest client has asked
                seen.add(question.parts)
                self._refresh(question, kept, lease_id)

    def foresee_submission(self, lease_id: int) -> None:
        """Fetch what a lease's program will ask for as its task ends, where the copies would be old."""
        now = time.monotonic()
        for question, kept in self._kept.items():
            asked_at = kept.asked_at.get(lease_id)
            if question.age.at_submission and asked_at is not None and now - asked_at < _LATELY:
                self._refresh(question, kept, lease_id)

    def _refresh(self, question: _Question, kept: _Kept, lease_id: int) -> None:
        """Fetch a new copy, if that is due, where no client waits for it."""
        is_due = time.monotonic() - kept.fetched_at > question.age.fresh
        if is_due and kept.fetching is None and self._gateway.credit.spend(lease_id):
            self._fetch(question, kept)

    def _fetch(self, question: _Question, kept: _Kept) -> asyncio.Task[Copy]:
        """Fetch a copy; clients that ask at the same time share one."""
        if kept.fetching is None:
            kept.fetching = self._gateway.meanwhile(self._ask(question, kept))
            kept.fetching.add_done_callback(_seen)
        return kept.fetching

    async def _ask(self, question: _Question, kept: _Kept) -> Copy:
        begin = time.monotonic()
        headers = dict(question.headers) | {"Accept-Encoding": "identity"}
        send = self._upstream.send
        try:
            async with send("GET", *question.parts, query=question.query, headers=headers) as answer:
                found = await copy(answer, _LARGEST)
        finally:
            kept.fetching = None
        keep = found.ok and len(found.body) <= _KEPT
        kept.copy, kept.fetched_at = (found if keep else None), begin
        kept.seen_by.clear()
        kept.asked_at = {lease: at for lease, at in kept.asked_at.items() if begin - at < _LATELY}
        return found


def _seen(task: asyncio.Task[Copy]) -> None:
    """Take note of how a fetch ended for which no client waits."""
    with suppress(ApiError, CutOffError, asyncio.CancelledError):
        task.result()
