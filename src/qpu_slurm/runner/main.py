# SPDX-License-Identifier: Apache-2.0
"""task_runner: execute serialized primitive inputs in the job's session, and write their results.

It starts within a fraction of a second: qiskit is never imported (but for `--dry-run`, and only if it is
there), and what speaks HTTP only once the input is known to be good.

    arguments, fan_out     the command line, and how many tasks of the step run this
    batch, item, context   all inputs of a call, one of them, and what they have in common
    console, status_line   what people read
    summary, exit_codes    what programs read
    record                 what an input's task was, so that the next call goes on with it
    signals                who wants the call to end
    dry_run, circuits, qasm…   what `--dry-run` finds

What it shares with the Python API is in tasks/: the input (payload), the session, the task's execution.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from qpu_slurm.errors import OutputError
from qpu_slurm.job import variables
from qpu_slurm.runner.arguments import STDIO, parse
from qpu_slurm.runner.batch import Batch
from qpu_slurm.runner.console import Console
from qpu_slurm.runner.context import Context
from qpu_slurm.runner.exit_codes import Exit, exit_and_message
from qpu_slurm.runner.signals import EndingSignals, Stopped
from qpu_slurm.runner.summary import Summary
from qpu_slurm.system.atomic_file import Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpu_slurm.runner.arguments import Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the command task_runner.

    Returns:
        See `Exit`.
    """
    options = parse(arguments, os.environ)
    console = Console(options.level)
    try:
        with EndingSignals() as signals:
            return _run(options, os.environ, console, signals)
    except Stopped as stop:  # while the summary was written
        console.give_up(f"stopped by {stop.name}", stop)
        return Exit.CANCELLED
    finally:
        console.close()


def _run(options: Options, environ: Mapping[str, str], console: Console, signals: EndingSignals) -> Exit:
    """Do what was asked for, and sum it up."""
    summary = Summary(qpu=options.name, slurm_job_id=environ.get("SLURM_JOB_ID"))
    with ExitStack() as stack:
        place = None
        try:
            if options.summary is not None:
                place = stack.enter_context(
                    Output(None if options.summary == STDIO else Path(options.summary))
                )
            code, message = _execute(options, environ, console, signals, summary), ""
        except Stopped as stop:
            code, message = Exit.CANCELLED, f"stopped by {stop.name}"
            console.give_up(message, stop)
        except Exception as error:  # noqa: BLE001 - the last resort: a documented code, and advice before the trace
            code, message = exit_and_message(error)
            console.give_up(message, error)
        console.close()
        if place is not None:
            summary.end(code, message)
            summary.name_session()
            try:
                place.write([summary.text()])
            except OutputError as error:
                console.error(str(error))
                code = max(code, Exit.OUTPUT)
        return code


def _execute(
    options: Options, environ: Mapping[str, str], console: Console, signals: EndingSignals, summary: Summary
) -> Exit:
    """Execute the inputs.

    Raises:
        QpuSlurmError: No input had its turn.
        Stopped: A signal came.
    """
    qpu = variables.choose(variables.from_environ(environ), options.name)
    summary.qpu = qpu.name
    summary.backend, summary.session_id = qpu.backend, qpu.session_id
    context = Context(options, environ, qpu, console, signals)
    if options.dry_run:
        from qpu_slurm.runner.dry_run import dry_run  # noqa: PLC0415 - seldom

        return dry_run(context, summary)
    qpu.may_execute()
    if options.records:
        _make_directories(options)
    batch = Batch(context)
    try:
        return batch.run()
    finally:
        summary.tasks, summary.session_closing = batch.outcomes, batch.session_closing


def _make_directories(options: Options) -> None:
    """Make the results' directory.

    Raises:
        OutputError: It cannot be made.
    """
    for directory in {place.parent for _, place in options.inputs if place is not None}:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"The directory {directory} cannot be made: {error.strerror}.") from error


if __name__ == "__main__":
    sys.exit(main())
