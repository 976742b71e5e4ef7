# SPDX-License-Identifier: Apache-2.0
"""What happens inside a simulation's process: an input is read, executed with Aer, and its result written.

The fork server imports this module, and Qiskit with it, before it forks.
"""

from __future__ import annotations

import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from qpu_slurm_devkit.emulator import batches, executor, inputs, primitives, strict
from qpu_slurm_devkit.emulator.errors import InvalidInputError
from qpu_slurm_devkit.emulator.tasks import Outcome, TaskStatus

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator.tasks import Work


def run(work: Work) -> None:
    """Execute a task and say how it went: whatever is wrong with an input is the task's failure."""
    outcome: Outcome
    try:
        text, metrics, log = _execute(work)
        Path(work.result).write_text(text, encoding="utf-8")
        outcome = Outcome(status=TaskStatus.COMPLETED, metrics=metrics, log=log)
    except InvalidInputError as error:
        outcome = Outcome(
            status=TaskStatus.FAILED, reason=str(error), reason_code=error.code, log=f"{error}\n"
        )
    except Exception as error:  # noqa: BLE001 (a task must end, with the reason that its owner needs)
        reason = f"{type(error).__name__}: {error}"
        outcome = Outcome(
            status=TaskStatus.FAILED,
            reason=reason,
            reason_code=InvalidInputError.code,
            log=traceback.format_exc(),
        )
    unfinished = Path(f"{work.outcome}.part")
    unfinished.write_bytes(msgspec.json.encode(outcome))
    unfinished.rename(work.outcome)


def _execute(work: Work) -> tuple[str, dict[str, Any], str]:
    """Return a task's result text, its metrics and its log."""
    if work.program_id.startswith("circuit"):
        text, log = batches.execute(Path(work.input).read_bytes(), work.configuration or b"", work.seed)
        return text, {}, log
    configuration = msgspec.json.decode(work.configuration) if work.configuration is not None else None
    if work.program_id == "executor":
        parameters = msgspec.json.decode(Path(work.input).read_bytes())
        return executor.execute(parameters, configuration, work.seed)
    source = Path(work.input)
    review = None if work.lenient else partial(strict.review, work.program_id, source.read_bytes())
    return primitives.execute(work.program_id, inputs.load(source), configuration, work.seed, review=review)
