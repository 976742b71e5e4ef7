# SPDX-License-Identifier: Apache-2.0
"""What Slurm runs: the controller's hooks, and what the SPANK plugin asks for steps."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from qpu_slurm.cli.common import config_of, job_id, log_as_told, step, step_mark, time, user_id
from qpu_slurm.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def configure_hook(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Open the sessions of a job that is about to start, or close those of a job that has ended. Slurm's "
        "PrologSlurmctld and EpilogSlurmctld run it on the controller. The job comes from the environment."
    )
    parser.add_argument("hook", choices=["prolog", "epilog"], help="which hook runs it")


def run_hook(arguments: argparse.Namespace) -> int:
    import structlog

    from qpu_slurm.hooks import controller

    config = config_of(arguments)
    log_as_told(config)
    try:
        return {"prolog": controller.prolog, "epilog": controller.epilog}[arguments.hook](config, os.environ)
    except Exception:  # noqa: BLE001 - what nobody thought of goes into the log, not into slurmctld's
        structlog.get_logger().exception("hook failed", hook=arguments.hook)
        return 1


def configure_job_env(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print a job's QPU variables, one NAME=value a line, or one line `error: sentence`. If the gateway "
        "or slurmctld does not answer now, print one line `wait: sentence` and exit with 75. The output may "
        "hold credentials. The SPANK plugin runs it when a step starts. With --step, --name and --at, it "
        "also reports the start of the step to the gateway."
    )
    parser.add_argument(
        "job_id", type=job_id, metavar="JOBID", help="the job, or a component of a heterogeneous job"
    )
    parser.add_argument("--user", type=user_id, metavar="UID", help="the job's user, by number")
    parser.add_argument("--step", type=step, metavar="STEP", help="the step: batch, interactive or a number")
    parser.add_argument("--name", help="the step's program")
    parser.add_argument("--at", type=time, metavar="SECONDS", help="when the step started, since the epoch")
    parser.add_argument(
        "--unasked",
        action="store_true",
        help="nothing on the node says whether the job has a QPU, since it was submitted without the plugin, "
        "for example through slurmrestd",
    )


def run_job_env(arguments: argparse.Namespace) -> int:
    from qpu_slurm.hooks.step import Printed, Step, job_env

    # Nothing is logged: stdout is the plugin's, and nobody reads stderr.
    started = None
    if arguments.step and arguments.name and arguments.at:
        started = Step(arguments.step, arguments.name, arguments.at)
    try:
        config = config_of(arguments)
    except ConfigError as error:
        printed = Printed("") if arguments.unasked else Printed.of(error)
    else:
        printed = job_env(
            config,
            arguments.job_id,
            os.environ,
            step=started,
            unasked=arguments.unasked,
            user_id=arguments.user,
        )
    sys.stdout.write(printed.text)
    sys.stdout.flush()
    return printed.exit_code


def configure_step_end(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Report to the gateway that a step has ended. With --cancel, also cancel the step's unfinished "
        "tasks. The SPANK plugin runs it, and does not wait for it."
    )
    parser.add_argument(
        "job_id", type=job_id, metavar="JOBID", help="the job, or a component of a heterogeneous job"
    )
    parser.add_argument("step", type=step, metavar="STEP", help="the step: batch, interactive or a number")
    parser.add_argument("--user", type=user_id, metavar="UID", help="the job's user, by number")
    parser.add_argument(
        "--at", type=time, required=True, metavar="SECONDS", help="when the step ended, since the epoch"
    )
    parser.add_argument(
        "--cancel",
        type=step_mark,
        metavar="MARK",
        help="the step failed: cancel its tasks, which have this mark in a tag",
    )


def run_step_end(arguments: argparse.Namespace) -> int:
    from qpu_slurm.hooks.step import step_end
    from qpu_slurm.system import logs

    logs.configure("error")
    config = config_of(arguments)
    step_end(
        config,
        arguments.job_id,
        arguments.step,
        arguments.at,
        environ=os.environ,
        cancel=arguments.cancel,
        user_id=arguments.user,
    )
    return 0
