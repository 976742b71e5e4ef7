# SPDX-License-Identifier: Apache-2.0
"""What a job may submit: to its own QPU, in its own session, and with nothing in it that we do not know.

It is checked while it passes by. A piece goes on to the service only after it was looked at, and the last one
only after all of them were: a submission that is refused never arrived there as a whole.

Most published programs name no session. The gateway writes one into the last piece, in front of the brace
that closes the object. The length of a submission comes first and its last key last, so the gateway declares
`ROOM` bytes more than the client did, and fills what it does not need with blanks, which JSON allows there.
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
"""What clients write. What is new may mean something that a lease does not cover, such as another session."""


ROOM = 192
"""Bytes that naming a session adds to a submission at most."""


class Submission:
    """One submission.

    Args:
        caller: The job that submits.
        limit: Bytes that it may have.

    Attributes:
        size: Bytes that it has so far.
        refusal: Why it was refused, if it was.
        session_id: The session that it is for; None if it names none (so far).

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
        # That an earlier session takes no more tasks is the service's to say: clients know its words.
        self._own = {"backend": (caller.qpu.backend,), "session_id": caller.sessions}
        self._scanner = Scanner(self._own)
        self._seen = 0

    @property
    def ended(self) -> bool:
        """Whether the object has ended: nothing but blanks may follow."""
        return self._scanner.ended

    @property
    def private(self) -> bool | None:
        """Whether the task's result is read once; None leaves it to the service to say."""
        return None if "private" in self._scanner.keys else False

    def feed(self, piece: bytes) -> None:
        """Look at the next piece.

        Raises:
            ApiError: It is refused.
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
        """Look at it as a whole; nothing comes any more.

        Raises:
            ApiError: It is refused.
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
        """Write a session into a submission that names none.

        Args:
            session_id: The session.
            last: The submission, or its last piece: the one in which the object ends.

        Returns:
            What to send in its place.
        """
        named = b',"session_id":%b}' % msgspec.json.encode(session_id)
        if len(named) > ROOM:
            raise AssertionError("a session's id is longer than any that we know")
        self.session_id = session_id
        return last.rstrip(_BLANKS).removesuffix(b"}") + named

    def _foreign(self, key: str) -> ApiError:
        """Say that the submission is for a QPU or a session that is not the job's."""
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
