# SPDX-License-Identifier: Apache-2.0
"""task_runner: execute serialized primitive inputs in the job's session, and write their results.

It starts within a fraction of a second: qiskit is never imported (but for `--dry-run`, and only if it is
there), and what speaks HTTP only once the input is known to be good.

    arguments   the command line
    fan_out     how many tasks of the step run this
    crew, work  all inputs of a call; one input's way
    session     which session it is in: the job's, or one that is opened
    execute     the task: submitted, waited for, cancelled (the Python API's, too)
    payload, overrides, output, record   what is read, changed, written, remembered
    voice, line                          what people read
    summary, exits                       what programs read
    dry_run, qasm                        what `--dry-run` finds
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
from qpu_slurm.runner.batch import Crew
from qpu_slurm.runner.console import Voice
from qpu_slurm.runner.exit_codes import Exit, exit_of
from qpu_slurm.runner.item import Bench
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
    voice = Voice(options.level)
    try:
        with EndingSignals() as signals:
            return _run(options, os.environ, voice, signals)
    except Stopped as stop:  # while the summary was written
        voice.give_up(f"stopped by {stop.name}", stop)
        return Exit.CANCELLED
    finally:
        voice.close()


def _run(options: Options, environ: Mapping[str, str], voice: Voice, signals: EndingSignals) -> Exit:
    """Do what was asked for, and sum it up."""
    summary = Summary(qpu=options.name, slurm_job_id=environ.get("SLURM_JOB_ID"))
    with ExitStack() as stack:
        place = None
        try:
            if options.summary is not None:
                place = stack.enter_context(
                    Output(None if options.summary == STDIO else Path(options.summary))
                )
            code, message = _execute(options, environ, voice, signals, summary), ""
        except Stopped as stop:
            code, message = Exit.CANCELLED, f"stopped by {stop.name}"
            voice.give_up(message, stop)
        except Exception as error:  # noqa: BLE001 - the last resort: a documented code, and advice before the trace
            code, message = exit_of(error), str(error)
            if code is Exit.INTERNAL:
                message = f"an error of task_runner itself: {type(error).__name__}: {error}"
            voice.give_up(message, error)
        voice.close()
        if place is not None:
            summary.end(code, message)
            summary.name_session()
            try:
                place.write([summary.text()])
            except OutputError as error:
                voice.error(str(error))
                code = max(code, Exit.OUTPUT)
        return code


def _execute(
    options: Options, environ: Mapping[str, str], voice: Voice, signals: EndingSignals, summary: Summary
) -> Exit:
    """Execute the inputs.

    Raises:
        QpuSlurmError: No input had its turn.
        Stopped: A signal came.
    """
    qpu = variables.choose(variables.from_environ(environ), options.name)
    summary.backend, summary.session_id = qpu.backend, qpu.session_id
    bench = Bench(options, environ, qpu, voice, signals)
    if options.dry_run:
        from qpu_slurm.runner.dry_run import dry_run  # noqa: PLC0415 - seldom

        return dry_run(bench, summary)
    qpu.may_execute()
    if options.records:
        _make_directories(options)
    return Crew(bench, summary).run()


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
