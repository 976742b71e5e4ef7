# SPDX-License-Identifier: Apache-2.0
"""Executes tasks in child processes: simulating in a thread of a server crashes, and a kill is a cancel.

Qiskit and Aer take more than a second to import. A fork server imports them once, in the background, so
that a task starts in a warm copy of it within milliseconds, and this process stays small.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import multiprocessing
import multiprocessing.forkserver
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

from qpu_slurm_devkit.emulator.tasks import Outcome, Task, TaskStatus, Work

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from qpu_slurm_devkit.emulator.clock import Clock
    from qpu_slurm_devkit.emulator.machine import Machine
    from qpu_slurm_devkit.emulator.settings import Settings

_SIMULATION = "qpu_slurm_devkit.emulator.simulation"
_INTERNAL_ERROR = 9999


class Simulator:
    """Executes tasks.

    Args:
        settings: How long a task takes, whether it is simulated at all.
        clock: The emulator's time.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._context = multiprocessing.get_context("forkserver")

    def start(self) -> None:
        """Begin to import what simulations need; returns at once."""
        if self._settings.result_bytes is None:
            self._context.set_forkserver_preload([_SIMULATION])
            multiprocessing.forkserver.ensure_running()

    def stop(self) -> None:
        """End every process, also a fork server that is still importing."""
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    async def execute(self, task: Task, backend: Machine) -> Outcome:
        """Execute a task; one that takes a fixed time is simulated within that time."""
        execution = (
            self._made_up(task) if self._settings.result_bytes is not None else self._simulate(task, backend)
        )
        if self._settings.task_seconds is None:
            return await execution
        outcome, _ = await asyncio.gather(execution, self._clock.sleep(self._settings.task_seconds))
        return outcome

    async def _made_up(self, task: Task) -> Outcome:
        """Answer with a result of a given size."""
        task.result.write_bytes(task.made_up(self._settings.result_bytes or 0))
        return Outcome(status=TaskStatus.COMPLETED, log="made up, not simulated\n")

    async def _simulate(self, task: Task, backend: Machine) -> Outcome:
        """Run the simulation in a process of its own."""
        work = Work(
            program_id=task.program_id,
            input=str(task.input),
            result=str(task.result),
            outcome=str(task.input.with_suffix(".outcome")),
            configuration=None if self._settings.any_circuit else backend.configuration,
            seed=self._settings.seed,
            lenient=self._settings.lenient,
        )
        process = self._context.Process(target=simulate, args=(work,), daemon=True)
        # It blocks until the fork server has imported everything; once begun it must be seen through, or
        # a cancelled task would leave a process behind.
        starting = asyncio.ensure_future(asyncio.to_thread(process.start))
        try:
            await asyncio.shield(starting)
            await _end_of(process)
        finally:
            starting.add_done_callback(lambda started: _kill(process, started))
        try:
            return _read(Path(work.outcome))
        except OSError:
            return Outcome(
                status=TaskStatus.FAILED,
                reason="Internal error: the execution crashed.",
                reason_code=_INTERNAL_ERROR,
            )


def _read(path: Path) -> Outcome:
    """Read what a child process left; it is small."""
    return msgspec.json.decode(path.read_bytes(), type=Outcome)


async def _end_of(process: ForkServerProcess) -> None:
    """Wait until a process is over."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(process.sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process.sentinel)


def _kill(process: ForkServerProcess, started: asyncio.Future[None]) -> None:
    """End a process, if it was started and has not ended by itself, and forget it."""
    if not started.cancelled() and started.exception() is None:
        process.kill()
        process.join()
        process.close()


def _end_with_emulator() -> None:
    """Have the kernel end this process when the emulator is gone, however it went.

    The emulator holds the other end of a pipe. Its end sends us SIGIO, which ends who does not handle it; a
    thread that watches could not run while Aer holds the interpreter, and our parent is the fork server,
    which itself waits for us.
    """
    emulator = multiprocessing.parent_process()
    if emulator is None:
        return
    fcntl.fcntl(emulator.sentinel, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(emulator.sentinel, fcntl.F_GETFL)
    fcntl.fcntl(emulator.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
    if not emulator.is_alive():  # it went before we began to listen
        os._exit(1)


def simulate(work: Work) -> None:
    """Do the work: this is what a child process runs."""
    _end_with_emulator()
    # Imported already, by the fork server; importing it here keeps it out of the emulator itself.
    from qpu_slurm_devkit.emulator import simulation  # noqa: PLC0415

    simulation.run(work)
