# SPDX-License-Identifier: Apache-2.0
"""What the prolog leaves for a job's steps, and for Slurm's record: a few words in its AdminComment.

Slurm carries it to every node, anybody may read it, and only Slurm's operators may write it. So it says
which sessions the job holds and what went wrong, and no secret. It is JSON:

    {"qpu_slurm": {"sessions": {"ibm_fez": "<session id>", "ibm_torino": null}}}
    {"qpu_slurm": {"sessions": {"ibm_fez": null}, "hold": {"ibm_fez": "task"}}}
    {"qpu_slurm": {"sessions": …, "leases": {"ibm_fez": {"id": 12, "created_at": …, "tag": …}}}}
    {"qpu_slurm": {"sessions": …, "chosen": {"ibm_fez": {"asked": "any:qubits>=100", "why": "…"}}}}
    {"qpu_slurm": {"sessions": …, "usage": {"ibm_fez": {"locked": 2.5, "executed": 2.0}}}}
    {"qpu_slurm": {"error": "<one sentence>"}}
    {"qpu_slurm": {"waiting": "<one sentence>", "qpus": ["ibm_fez"], "tries": 1}}

What somebody else wrote into the comment stays: a JSON object keeps its other keys, and other text is moved
to the key `comment`.
"""

from __future__ import annotations

from datetime import datetime  # msgspec reads the types
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from qpu_slurm.errors import SlurmError
from qpu_slurm.names import SessionOption
from qpu_slurm.qpu_option import Choice

if TYPE_CHECKING:
    from collections.abc import Iterable

_KEY = "qpu_slurm"
_SENTENCE_LENGTH = 500


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a job has used of a QPU, in seconds: `locked` is what is paid for, `executed` what ran."""

    locked: float
    executed: float


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """Which lease a job has on a QPU: enough to write it into a journal again that was lost.

    Attributes:
        id: The journal's number; job keys are made of it.
        created_at: When it was written down; likewise.
        tag: What the job's tasks on the QPU are tagged with at the service.
    """

    id: int
    created_at: datetime
    tag: str = ""


class AdminComment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the prolog leaves for a job's steps; one of the three.

    Attributes:
        sessions: The job's QPUs and the sessions that it holds on them; None where it has none.
        hold: Of those without a session, how long the job will hold one; those that it is only bound to are
            not named.
        leases: Which lease it has on each.
        chosen: Which of them were chosen for it, and why.
        usage: What its sessions that are over were used for: added by the gateway while the job still runs,
            since Slurm takes no comment for a job that has ended.
        error: Why the job cannot have what it asked for: it ends with this sentence.
        waiting: Why the job was requeued.
        qpus: With it, the QPUs that it waits for, or its wishes, as its user wrote them.
        tries: With it, how many outages in a row have requeued it.
    """

    sessions: dict[str, str | None] = {}
    hold: dict[str, SessionOption] = {}
    leases: dict[str, Granted] = {}
    chosen: dict[str, Choice] = {}
    usage: dict[str, Usage] = {}
    error: str = ""
    waiting: str = ""
    qpus: tuple[str, ...] = ()
    tries: Annotated[int, msgspec.Meta(ge=0)] = 0

    @classmethod
    def from_comment(cls, comment: str) -> AdminComment:
        """Read what a job's AdminComment holds; nothing if the prolog wrote nothing.

        Raises:
            SlurmError: It holds something else in our place.
        """
        try:
            return msgspec.convert(_document(comment).get(_KEY, {}), cls)
        except msgspec.ValidationError as error:
            raise SlurmError(f"The job's AdminComment is not what the prolog wrote: {error}.") from None

    @classmethod
    def merged(cls, handovers: Iterable[AdminComment]) -> AdminComment:
        """Join what the components of a heterogeneous job were left, which is one job.

        Args:
            handovers: Of each component; QPUs are listed in this order.

        Returns:
            All their sessions, and the first error.
        """
        sessions: dict[str, str | None] = {}
        hold: dict[str, SessionOption] = {}
        leases: dict[str, Granted] = {}
        chosen: dict[str, Choice] = {}
        error = ""
        for handover in handovers:
            error = error or handover.error
            for name, session_id in handover.sessions.items():
                sessions[name] = sessions.get(name) or session_id
            hold |= handover.hold
            chosen |= handover.chosen
            for name, granted in handover.leases.items():
                # Of a component that is only bound to the QPU, the lease may have ended for another one's.
                if name not in leases or handover.holds(name):
                    leases[name] = granted
        return cls(sessions=sessions, hold=hold, leases=leases, chosen=chosen, error=error)

    def holds(self, name: str) -> SessionOption | None:
        """Say how long the job holds sessions on one of its QPUs; None if it is only bound to it."""
        return self.hold.get(name, "job" if self.sessions.get(name) else None)

    def into_comment(self, comment: str) -> str:
        """Return the AdminComment that holds this, and what it held of others."""
        own = msgspec.structs.replace(self, error=_one_line(self.error), waiting=_one_line(self.waiting))
        return msgspec.json.encode(_document(comment) | {_KEY: own}).decode()


def _document(comment: str) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(comment)
    except (msgspec.DecodeError, RecursionError):
        return {"comment": comment} if comment else {}
    return document if isinstance(document, dict) else {"comment": comment}


def _one_line(sentence: str) -> str:
    return " ".join(sentence.split())[:_SENTENCE_LENGTH]
