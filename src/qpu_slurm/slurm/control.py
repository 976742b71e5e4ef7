# SPDX-License-Identifier: Apache-2.0
"""Asking Slurm to do something with a job; only root and SlurmUser may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm._commands import Commands, UnknownJobError
from qpu_slurm.slurm.job import MAX_ADMIN_COMMENT

if TYPE_CHECKING:
    from qpu_slurm.config import SlurmConfig
    from qpu_slurm.slurm.job import JobRecord


_NO_DATABASE = "not running a supported accounting_storage plugin"


class Control:
    """What we do with jobs, through scontrol(1).

    All of it works from within a PrologSlurmctld; from an EpilogSlurmctld Slurm refuses it.

    Args:
        config: Where Slurm's commands are, which cluster to talk to, and how long to wait for an answer.
    """

    def __init__(self, config: SlurmConfig) -> None:
        self._commands = Commands(config)

    def requeue(self, job: JobRecord, delay: int) -> None:
        """Put a job that has just been started back into the queue.

        The hooks of a heterogeneous job's components may all ask for it; one of them is enough.

        Args:
            job: A batch job; of a heterogeneous job, the leader.
            delay: Seconds until it may start again, at the earliest.

        Raises:
            SlurmError: Slurm refused: it is no batch job, or was submitted with --no-requeue.
        """
        try:
            self._scontrol("requeue", job.own_name)
        except SlurmError as error:
            # Another component's hook was faster.
            if "Job is pending execution" not in str(error):
                raise
        # Possible only now: a job that is not pending has had its start time.
        self._scontrol("update", f"JobId={job.own_name}", f"StartTime=now+{delay}")

    def start_now(self, job: JobRecord) -> None:
        """Let a job start that waits for its time.

        Args:
            job: The job; of a heterogeneous job, the leader stands for all of it.

        Raises:
            SlurmError: Slurm refused: it does not wait any more.
        """
        self._scontrol("update", f"JobId={job.own_name}", "StartTime=now")

    def set_admin_comment(self, job_id: int, text: str) -> None:
        """Write the comment of one job, or of one component, that its user can read but not change.

        Args:
            job_id: The job, or the component.
            text: The new comment, in place of the one that it has.

        Raises:
            SlurmError: Slurm refused, or the text is too long to be read back.
        """
        if len(text.encode()) > MAX_ADMIN_COMMENT:
            raise SlurmError(f"A job's AdminComment may have {MAX_ADMIN_COMMENT} bytes; this one has more.")
        comment = f"AdminComment={text}"
        try:
            # A leader's bare id means its whole job, as an array's means all elements; the other components'
            # and elements' hooks write theirs.
            self._scontrol("update", f"JobId={job_id}+0", comment)
        except UnknownJobError:
            # A component other than the leader is known by its own id only.
            self._scontrol("update", f"JobId={job_id}", comment)

    def set_admin_comment_of_ended(self, job: JobRecord, text: str) -> bool:
        """Write the comment of a job that is over into slurmdbd's record, the only one that still takes it.

        Args:
            job: The job, or the component.
            text: The new comment; slurmdbd makes a backquote of each double quote.

        Returns:
            Whether there is a slurmdbd.

        Raises:
            SlurmError: It refused, or does not answer.
        """
        # A leader's bare id means its whole job, as for scontrol; but a plain job has no other here.
        where = f"jobid={job.job_id}+0" if job.het_job_id == job.job_id else f"jobid={job.own_name}"
        what = f"admincomment={text}"
        try:
            self._commands.run("sacctmgr", "--immediate", "modify", "job", "where", where, "set", what)
        except SlurmError as error:
            if _NO_DATABASE in str(error):
                return False
            raise
        return True

    def notify(self, job_id: int, sentence: str) -> None:
        """Print a sentence on the terminal of whoever waits for the job in salloc or srun.

        A batch job gets it into its output, but only while it runs: not from a PrologSlurmctld.

        Args:
            job_id: The job; of a heterogeneous job any component, for each has the same terminal.
            sentence: What to say; it is made one line.
        """
        self._scontrol("notify", str(job_id), " ".join(sentence.split()))

    def _scontrol(self, *arguments: str) -> None:
        self._commands.run("scontrol", *arguments)
