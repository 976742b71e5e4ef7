# SPDX-License-Identifier: Apache-2.0
"""A job, as Slurm's hooks and Slurm's own record show it."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from qpu_slurm.errors import SlurmError
from qpu_slurm.names import SessionOption
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ADMIN_COMMENT = 4000
"""How many bytes of a job's AdminComment we write and read."""

_COUNT = re.compile(r"(\d{1,18})([kmgtp]?)", re.ASCII | re.IGNORECASE)
"""How many of a gres: `2`, `1K` for 1024."""

_HOLDS: dict[str, SessionOption] = {"job": "job", "task": "task"}
_LONGEST_SHOWN = 64

# Not structlog, which takes its time: what a QPU may be called is asked by every command.
_log = logging.getLogger(__name__)


class Gres(msgspec.Struct, frozen=True):
    """One generic resource that a job asked for: `gres:qpu:ibm_fez:1` is ("qpu", "ibm_fez", 1)."""

    name: str
    type: str | None
    count: int


def parse_gres(value: str) -> tuple[Gres, ...]:
    """Read Slurm's `tres_per_node`: `gres:qpu:1` up to Slurm 22.05, `gres/qpu:1` later.

    Args:
        value: Slurm's own record, with what the user wrote in it; parts that are no gres are dropped.
    """
    found = []
    for part in value.split(","):
        kind, separator, rest = part.replace("/", ":", 1).partition(":")
        fields = rest.split(":")
        if kind != "gres" or not separator or not fields[0]:
            continue
        name, *more = fields
        # What a gres without a count means is Slurm's to say: one.
        count = 1
        if more and (written := _COUNT.fullmatch(more[-1])):
            count = int(written[1]) * 1024 ** " kmgtp".index(written[2].lower() or " ")
            more.pop()
        found.append(Gres(name, more[0] if more and more[0] else None, count))
    return tuple(found)


@lru_cache(1000)  # thousands of jobs ask for the same few
def parse_licenses(value: str) -> tuple[str, ...]:
    """Read the names in a job's licenses, such as `ibm_fez,matlab@server:2`."""
    names = (re.split(r"[:*@\s]", part.strip(), maxsplit=1)[0] for part in re.split("[,;|]", value))
    return tuple(dict.fromkeys(filter(None, names)))


class ArrayElement(NamedTuple):
    """Which element of which job array a job is: `12_3` is the third of array 12.

    Attributes:
        array: The array's number; the last element to start has the same one as its own.
        number: Its own in `--array`.
    """

    array: int
    number: int

    def __str__(self) -> str:
        return f"{self.array}_{self.number}"


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Slurm's own record of a job (of a heterogeneous job: of one component).

    Attributes:
        job_id: The job, or the component.
        het_job_id: The leader of the heterogeneous job that it is a component of, if it is.
        element: Which element of a job array it is; None for a job that is none, and for those elements that
            have not started yet, which share a record.
        user_id: Whose it is.
        state: Slurm's long name of its state, such as `RUNNING`.
        batch: Whether it has a script, and so can be requeued.
        gres: What it asked for, per node; a list of all jobs leaves it out.
        licenses: The names of the licenses that it asked for.
        time_left: Seconds until its time limit; None where it has none, or none within a year.
        submitted_at: When it was submitted, or requeued.
        account: Slurm's account of it; empty where Slurm has none.
        partition: Its partition; while it waits, there may be several, with commas between them.
        qos: Its quality of service; empty where Slurm has none.
        reason: Why it waits, in Slurm's word, such as `Licenses`; `None` if it does not.
        admin_comment: What the hooks wrote for the job's steps; users cannot.
    """

    job_id: int
    het_job_id: int | None
    element: ArrayElement | None = None
    user_id: int
    state: str
    batch: bool
    gres: tuple[Gres, ...]
    licenses: tuple[str, ...] = ()
    time_left: int | None
    submitted_at: datetime | None = None
    account: str = ""
    partition: str = ""
    qos: str = ""
    reason: str = "None"
    admin_comment: str

    @property
    def leader(self) -> int:
        """The id that leases are recorded under: the het job's leader, or the job itself."""
        return self.het_job_id or self.job_id

    @property
    def own_name(self) -> str:
        """What Slurm's commands take for this job and for no other.

        An array's last element to start has the array's number, which means every element to them, those that
        run and those that have ended included. A heterogeneous job's leader means all of its components.
        """
        return str(self.element or self.job_id)

    @property
    def run(self) -> str:
        """Which run of the job this is, since Slurm uses an id again; see `Lease.run`.

        It is the second in which the job was submitted: no other job of the id can have it. Slurm sets it
        anew as it requeues a job, once the last run's epilogs are done, and at no other time; so all hooks of
        a run see the same. (A count of restarts would be no help: it is one more already in the epilogs.) Of
        a heterogeneous job the leader's counts: the components' may be a second apart.
        """
        return "" if self.submitted_at is None else str(round(self.submitted_at.timestamp()))


class HookJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job that a PrologSlurmctld or EpilogSlurmctld was started for, as its environment tells.

    The variables are in Slurm's manual (slurm.conf's section on prolog and epilog); those of the plugin
    are set by plugin/allocator.c. All but Slurm's own can be forged by a user.

    Attributes:
        job_id: The job, or the component.
        leader: The heterogeneous job's leader, or the job itself.
        user_id: Whose it is.
        restarts: How often it was requeued.
        cluster: The cluster's name; empty where an older hook script does not pass it on.
        qpu_option: The value of `--qpu` as published by the plugin, unread; None without one.
        hold: The value of `--qpu-session`; None where the user said nothing, or nothing that makes sense.
        api_key: The user's own credential, where the plugin published one.
    """

    job_id: int
    leader: int
    user_id: int
    restarts: int
    cluster: str = ""
    qpu_option: str | None
    hold: SessionOption | None = None
    api_key: Secret | None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> HookJob:
        """Read a hook's environment.

        Raises:
            SlurmError: It is not a hook's: a variable that Slurm always sets is missing or no number.
        """

        def number(name: str, default: str | None = None) -> int:
            value = environ.get(name, default)
            if value is None or not (value.isascii() and value.isdigit()):
                raise SlurmError(f"{name} is not set to a number: this environment is not a Slurm hook's.")
            return int(value)

        job_id = number("SLURM_JOB_ID")
        key = environ.get("SPANK_QPU_SLURM_API_KEY")
        return cls(
            job_id=job_id,
            # Slurm sets 0 for a job that is no component.
            leader=number("SLURM_HET_JOB_ID", "0") or job_id,
            user_id=number("SLURM_JOB_UID"),
            restarts=number("SLURM_JOB_RESTART_COUNT", "0"),
            cluster=environ.get("SLURM_CLUSTER_NAME", ""),
            qpu_option=environ.get("SPANK_QPU_SLURM_QPU") or None,
            hold=_read_hold(environ.get("SPANK_QPU_SLURM_SESSION", ""), job_id),
            api_key=Secret(key) if key else None,
        )


def _read_hold(value: str, job_id: int) -> SessionOption | None:
    """Read what the plugin published: it lets nothing else through, but a user's own client may."""
    hold = _HOLDS.get(value)
    if hold is None and value:
        fields = {"job_id": job_id, "value": value[:_LONGEST_SHOWN]}
        _log.warning("the value of --qpu-session is left out", extra={"fields": fields})
    return hold
