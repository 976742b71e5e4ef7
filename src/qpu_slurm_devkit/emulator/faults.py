# SPDX-License-Identifier: Apache-2.0
"""Faults on demand: what may go wrong between a client and the service."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec


class Drop(StrEnum):
    """When the connection is cut: `before` the request takes effect, or `after` it took effect."""

    BEFORE = "before"
    AFTER = "after"


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong, with which requests, how often.

    A request is first delayed; then, unless neither `status` nor `drop` is set, it is answered with the
    status (without taking effect), or its connection is cut. Of several faults that fit a request, the
    first that was injected and is not used up counts.

    Attributes:
        account: The account's name, as a shell pattern: jobs that share the emulator can each have faults of
            their own, if each has an account of its own.
        method: The HTTP method; `*` for any.
        path: The path, without the API's prefix, as a shell pattern: `/sessions`, `/jobs/*/results`,
            `/identity/token`, `*`.
        skip: How many requests that fit pass unharmed first.
        times: How many requests it happens to; None for every one.
        delay: Seconds to wait before anything else.
        late: Seconds to wait with the answer after the request took effect.
        status: The HTTP status to answer with.
        body: The answer's text; None for an error in the service's shape.
        retry_after: What to send as Retry-After.
        drop: Cut the connection instead of answering.
    """

    account: str = "*"
    method: str = "*"
    path: str = "*"
    skip: int = 0
    times: int | None = 1
    delay: float = 0
    late: float = 0
    status: int | None = None
    body: str | None = None
    retry_after: str | None = None
    drop: Drop | None = None

    def fits(self, method: str, path: str, account: str = "") -> bool:
        """Tell whether it is about such a request."""
        return self.method in {"*", method} and all(
            fnmatchcase(value, pattern) for value, pattern in ((path, self.path), (account, self.account))
        )

    def __str__(self) -> str:
        parts = [f"delay {self.delay:g} s"] if self.delay else []
        if self.late:
            parts.append(f"late {self.late:g} s")
        if self.status is not None:
            parts.append(f"status {self.status}")
        if self.drop is not None:
            parts.append(f"drop {self.drop}")
        return ", ".join(parts)


class Faults:
    """The faults that are waiting for their requests."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def inject(self, fault: Fault) -> None:
        """Add a fault."""
        self._waiting.append(fault)

    def clear(self) -> None:
        """Forget them all."""
        self._waiting.clear()

    def waiting(self) -> list[Fault]:
        """List those that are not used up."""
        return list(self._waiting)

    def next(self, method: str, path: str, account: str = "") -> Fault | None:
        """Take what is to happen to a request now; an empty account is one that is not known."""
        for index, fault in enumerate(self._waiting):
            if not fault.fits(method, path, account):
                continue
            if fault.skip > 0:
                self._waiting[index] = msgspec.structs.replace(fault, skip=fault.skip - 1)
                continue
            if fault.times is not None:
                if fault.times <= 1:
                    del self._waiting[index]
                else:
                    self._waiting[index] = msgspec.structs.replace(fault, times=fault.times - 1)
            return fault
        return None
