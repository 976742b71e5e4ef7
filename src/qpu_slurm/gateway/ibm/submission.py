# SPDX-License-Identifier: Apache-2.0
"""Checks submissions: a job may submit to its own QPU, in its own sessions, with known keys only.

The check runs while a submission streams through the gateway. Each piece goes to the service only after its
check, and the last one only after the check of the whole. So a refused submission never arrives completely.

Most published programs name no session. The gateway adds one to the last piece, before the closing brace. It
has to declare the length of the submission first. So it declares `ROOM` bytes more than the client did, and
fills unused bytes with blanks, which JSON allows there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.gateway.answers import forbidden, too_large
from qpu_slurm.gateway.callers import NAME_NONE
from qpu_slurm.gateway.ibm.answers import invalid
from qpu_slurm.gateway.ibm.json_scan import MalformedError, Scanner

if TYPE_CHECKING:
    from qpu_slurm.gateway.answers import ApiError
    from qpu_slurm.gateway.callers import Caller

_BLANKS = b" \t\r\n"

_KEYS = frozenset(
    {
        "program_id",
        "params",
        "backend",
        "session_id",
        "tags",
        "cost",
        "log_level",
        "private",
        "calibration_id",
        "runtime",
    }
)
"""The keys that clients write. An unknown key may request something that the lease does not cover."""


ROOM = 192
"""The most bytes that a session's name adds to a submission."""


class Submission:
    """One submission.

    Args:
        caller: The job that submits.
        limit: Its largest size, in bytes.

    Attributes:
        size: Bytes so far.
        refusal: Why it was refused, if it was.
        session_id: The session that it names; None if it names none (so far).

    Raises:
        ApiError: The job may not submit anything.
    """

    def __init__(self, caller: Caller, limit: int) -> None:
        caller.may_execute()
        self.size = 0
        self.refusal: ApiError | None = None
        self.session_id: str | None = None
        self._limit = limit
        self._caller = caller
        # If an earlier session takes no more tasks, the service refuses: clients know its error.
        self._own = {"backend": (caller.qpu.backend,), "session_id": caller.sessions}
        self._scanner = Scanner(self._own)
        self._seen = 0

    @property
    def ended(self) -> bool:
        """Whether the object has ended: only blanks may follow."""
        return self._scanner.ended

    @property
    def private(self) -> bool | None:
        """Whether the task's result is read once; None leaves it to the service to say."""
        return None if "private" in self._scanner.keys else False

    def feed(self, piece: bytes) -> None:
        """Check the next piece.

        Raises:
            ApiError: The submission is refused.
        """
        self.size += len(piece)
        if self.size > self._limit:
            self._refuse(too_large(self._limit))
        try:
            self._scanner.feed(piece)
        except MalformedError as error:
            self._refuse(invalid(str(error)))
        for key in self._scanner.keys[self._seen :]:
            self._seen += 1
            if key not in _KEYS:
                self._refuse(
                    forbidden(
                        f"A submission through the gateway may not contain {key[:64]!r}.",
                        f"Remove {key[:64]!r} from the submission.",
                    )
                )
        for key, value in self._scanner.values.items():
            if value not in self._own[key]:
                self._refuse(self._foreign(key))
        self.session_id = self._scanner.values.get("session_id")

    def finish(self) -> None:
        """Check the whole after its last piece.

        Raises:
            ApiError: The submission is refused.
        """
        try:
            self._scanner.finish()
        except MalformedError as error:
            self._refuse(invalid(str(error)))
        if "backend" not in self._scanner.values:
            backend = self._caller.qpu.backend
            self._refuse(
                forbidden(
                    f"A submission must name its 'backend'; this job's is {backend!r}.",
                    f"Add the key 'backend' with the value {backend!r}.",
                )
            )

    def name_session(self, session_id: str, last: bytes) -> bytes:
        """Add a session to a submission that names none.

        Args:
            session_id: The session.
            last: The submission, or its last piece, in which the object ends.

        Returns:
            The bytes to send in its place.
        """
        named = b',"session_id":%b}' % msgspec.json.encode(session_id)
        if len(named) > ROOM:
            raise AssertionError("a session's id is longer than any that we know")
        self.session_id = session_id
        return last.rstrip(_BLANKS).removesuffix(b"}") + named

    def _foreign(self, key: str) -> ApiError:
        """Return the error for a QPU or a session that is not the job's."""
        own = self._own[key]
        if not own:
            return forbidden(f"This job holds no session on {self._caller.qpu.name} yet.", NAME_NONE)
        return forbidden(
            f"This job holds {key} {own[-1]!r}, and may not submit to another.",
            "Take the backend and the session from the job's own variables.",
        )

    def _refuse(self, error: ApiError) -> None:
        self.refusal = error
        raise error
