# SPDX-License-Identifier: Apache-2.0
"""What a job may submit: to its own QPU, in its own session, and with nothing in it that we do not know.

It is checked while it passes by. A piece goes on to the service only after it was looked at, and the last one
only after all of them were: a submission that is refused never arrived there as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm.gateway.ibm.answers import forbidden, invalid, too_large
from qpu_slurm.gateway.ibm.json_scan import Malformed, Scanner

if TYPE_CHECKING:
    from qpu_slurm.gateway.callers import Holder
    from qpu_slurm.gateway.ibm.answers import ApiError

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


class Submission:
    """One submission.

    Args:
        holder: Whose.
        limit: Bytes that it may have.

    Attributes:
        size: Bytes that it has so far.
        refusal: Why it was refused, if it was.
    """

    def __init__(self, holder: Holder, limit: int) -> None:
        self.size = 0
        self.refusal: ApiError | None = None
        self._limit = limit
        self._newest = {"backend": holder.qpu.backend, "session_id": holder.newest()}
        # That an earlier session takes no more tasks is the service's to say: clients know its words.
        self._own = {"backend": (holder.qpu.backend,), "session_id": holder.sessions}
        self._scanner = Scanner(self._own)
        self._seen = 0

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
        except Malformed as error:
            self._refuse(invalid(str(error)))
        for key in self._scanner.keys[self._seen :]:
            self._seen += 1
            if key not in _KEYS:
                self._refuse(forbidden(f"A submission through the gateway may not say {key[:64]!r}."))
        for key, value in self._scanner.values.items():
            if value not in self._own[key]:
                self._refuse(
                    forbidden(
                        f"This job holds {key} {self._newest[key]!r}, and may not submit to another.",
                        "Take the backend and the session from the job's own variables.",
                    )
                )

    def finish(self) -> None:
        """Look at it as a whole; nothing comes any more.

        Raises:
            ApiError: It is refused.
        """
        try:
            self._scanner.finish()
        except Malformed as error:
            self._refuse(invalid(str(error)))
        for key, expected in self._newest.items():
            if key not in self._scanner.values:
                self._refuse(forbidden(f"A submission has to say {key!r}; this job's is {expected!r}."))

    @property
    def session_id(self) -> str:
        """The session that it is for; known when it was looked at as a whole."""
        return self._scanner.values["session_id"] or ""

    def _refuse(self, error: ApiError) -> None:
        self.refusal = error
        raise error
