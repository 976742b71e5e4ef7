# SPDX-License-Identifier: Apache-2.0
"""What somebody types: `qpu-slurm timeline`."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm import reach
from qpu_slurm.admin import pictures
from qpu_slurm.admin.timeline import chart, text
from qpu_slurm.errors import NotFoundError

if TYPE_CHECKING:
    from qpu_slurm.config import Config
    from qpu_slurm.leases.job_history import JobHistory

_JOB = re.compile(r"0*[1-9][0-9]{0,9}(?:_[0-9]{1,10})?", re.ASCII)
"""A job's number, or an element of a job array as squeue shows it, such as `12_3`."""

DESCRIPTION = """\
Draw when jobs waited and ran, when their sessions were open, and when the QPU was locked. Jobs joined by
commas are one workflow, which begins with its first submission. Several workflows are drawn one below the
other, on one scale. root and SlurmUser see every job. With a gateway, other users see their own jobs.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "workflows",
        type=_jobs,
        nargs="+",
        metavar="JOBID[,JOBID...]",
        help="the jobs of a workflow; 12_3 is an element of an array",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="TEXT",
        help="the name of a workflow; repeat it for the next one",
    )
    parser.add_argument(
        "--svg", type=pictures.picture, metavar="FILE.svg", help="draw a picture, and print nothing"
    )
    parser.add_argument(
        "--png", type=pictures.picture, metavar="FILE.png", help="draw a picture, and print nothing"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list of workflows")


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Draw; return the exit code.

    Raises:
        NotFoundError: Nothing is known of a job.
        QpuSlurmError: The journal or the gateway cannot be asked, or a picture cannot be drawn.
    """
    labels = [*arguments.label, *[""] * len(arguments.workflows)]
    workflows = [
        chart.workflow([_history(config, _number(config, job)) for job in jobs], label)
        for jobs, label in zip(arguments.workflows, labels, strict=False)
    ]
    if paths := [path for path in (arguments.svg, arguments.png) if path]:
        from qpu_slurm.admin.timeline import picture  # noqa: PLC0415 - its library belongs to an extra

        picture.draw(workflows, paths)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(workflows), indent=2).decode())  # noqa: T201 - the output
    elif not paths:
        print(text.draw(workflows))  # noqa: T201 - likewise
    return 0


def _history(config: Config, job_id: int) -> JobHistory:
    with reach.records(config) as broker:
        return broker.history(job_id)


def _number(config: Config, job: str) -> int:
    """Return a job's own number, which the journal and the gateway know it by."""
    if "_" not in job:
        return int(job)
    from qpu_slurm.slurm.times import number_of  # noqa: PLC0415 - only for arrays

    number = number_of(config.slurm, job)
    if number is None:
        raise NotFoundError(
            f"Slurm does not know {job}, or has forgotten it. Use the element's own job id, which is"
            " SLURM_JOB_ID in the job."
        )
    return number


def _jobs(text_: str) -> tuple[str, ...]:
    jobs = tuple(text_.split(","))
    if not all(_JOB.fullmatch(job) and int(job.partition("_")[0]) < 1 << 32 for job in jobs):
        raise argparse.ArgumentTypeError(
            f"{text_[:64]!r} is not a list of job ids, such as 4711 or 4711,4712_3"
        )
    return jobs
