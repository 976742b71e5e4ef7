# SPDX-License-Identifier: Apache-2.0
"""The system's users and groups, asked for no longer than a caller can wait.

The C library has no timeout: behind it may be a directory service that does not answer. So each look-up has
a thread of its own, which is left alone when the time is over.
"""

from __future__ import annotations

import grp
import os
import pwd
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, cast

from qpu_slurm.errors import UnavailableError
from qpu_slurm.system.deadline import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable

    from qpu_slurm.system.deadline import Deadline

T = TypeVar("T")

_FRESH = 60.0
"""Seconds for which an answer is used again: a change of the system's groups counts after that."""

_KEPT = 10_000
"""Answers that are kept."""

_ANSWER_SECONDS = 5.0

_AT_ONCE = 16
"""Look-ups at once. Those that hang keep the others out, rather than fill the process with threads."""


class Directory:
    """The system's users and groups, for one process. Threads may share it."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        self._answers: OrderedDict[Hashable, tuple[float, object]] = OrderedDict()
        self._lock = threading.Lock()

    def user_id(self, name: str, deadline: Deadline = NEVER) -> int | None:
        """Return a user's number; None if the system knows no user of that name.

        Raises:
            UnavailableError: There was no answer in time.
        """

        def find() -> int | None:
            try:
                return pwd.getpwnam(name).pw_uid
            except KeyError:
                return None

        return self._ask(("user", name), find, f"user {name}", deadline)

    def name_of(self, user_id: int, deadline: Deadline = NEVER) -> str | None:
        """Return a user's name; None if the system does not know the user.

        Raises:
            UnavailableError: There was no answer in time.
        """

        def find() -> str | None:
            try:
                return pwd.getpwuid(user_id).pw_name
            except KeyError:
                return None

        return self._ask(("name", user_id), find, f"user {user_id}", deadline)

    def group_id(self, name: str, deadline: Deadline = NEVER) -> int | None:
        """Return a group's number; None if the system knows no group of that name.

        Raises:
            UnavailableError: There was no answer in time.
        """

        def find() -> int | None:
            try:
                return grp.getgrnam(name).gr_gid
            except KeyError:
                return None

        return self._ask(("group", name), find, f"group {name}", deadline)

    def groups_of(self, user_id: int, deadline: Deadline = NEVER) -> frozenset[int] | None:
        """Return the numbers of all of a user's groups; None if the system does not know the user.

        Raises:
            UnavailableError: There was no answer in time.
        """

        def find() -> frozenset[int] | None:
            try:
                user = pwd.getpwuid(user_id)
            except KeyError:
                return None
            return frozenset(os.getgrouplist(user.pw_name, user.pw_gid))

        return self._ask(("groups", user_id), find, f"groups of user {user_id}", deadline)

    def _ask(self, key: Hashable, find: Callable[[], T], what: str, deadline: Deadline) -> T:
        with self._lock:
            since, answer = self._answers.get(key, (-_FRESH, None))
            if time.monotonic() - since < _FRESH:
                return cast("T", answer)
        deadline = deadline.sooner(_ANSWER_SECONDS)
        unanswered = UnavailableError(
            f"The system's directory of users has not answered when asked for {what}."
        )
        if deadline.passed or not self._free.acquire(timeout=deadline.left):
            raise unanswered
        found: list[T] = []

        def look() -> None:
            try:
                with suppress(OSError):
                    found.append(find())
            finally:
                self._free.release()

        thread = threading.Thread(target=look, name=f"look up {what}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the process may have no more threads
            self._free.release()
            raise unanswered from None
        thread.join(deadline.left)
        if not found:
            raise unanswered
        with self._lock:
            self._answers[key] = time.monotonic(), found[0]
            self._answers.move_to_end(key)
            while len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
        return found[0]


class Person:
    """A user, compared with names of users and groups.

    Args:
        user_id: The user.
        directory: What knows the names.
        deadline: When the directory is given up on.
    """

    def __init__(self, user_id: int, directory: Directory, deadline: Deadline = NEVER) -> None:
        self._user_id = user_id
        self._directory = directory
        self._deadline = deadline

    def is_one_of(self, users: Collection[str | int]) -> bool:
        """Tell whether the user is one of these, by name or number.

        Raises:
            UnavailableError: There was no answer in time, or the system does not know the user.
        """
        # Numbers first: they need no look-up.
        if self._user_id in users:
            return True
        if not any(isinstance(user, str) for user in users):
            return False
        return self._known(self._directory.name_of(self._user_id, self._deadline)) in users

    def is_in(self, groups: Iterable[str | int]) -> bool:
        """Tell whether the user is in one of these groups, by name or number.

        Raises:
            UnavailableError: There was no answer in time, or the system does not know the user or a group.
        """
        own = self._known(self._directory.groups_of(self._user_id, self._deadline))
        unknown = []
        for group in groups:
            number = group if isinstance(group, int) else self._directory.group_id(group, self._deadline)
            if number in own:
                return True
            if number is None:
                unknown.append(group)
        if unknown:
            raise UnavailableError(f"The host that decides who may use a QPU knows no group {unknown[0]!r}.")
        return False

    def _known(self, answer: T | None) -> T:
        # Whoever submits a job is a user: an unknown one means a directory that is away.
        if answer is None:
            raise UnavailableError(f"The host that decides who may use a QPU knows no user {self._user_id}.")
        return answer


DIRECTORY = Directory()
"""The directory of this process, which keeps its answers for a minute."""
