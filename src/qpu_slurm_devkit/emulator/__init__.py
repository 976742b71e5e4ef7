# SPDX-License-Identifier: Apache-2.0
"""An emulator of the IBM Quantum Platform API, for tests and for trying things out without hardware.

    with Emulator(task_seconds=2) as emulator:
        os.environ |= emulator.environ()
        …                                    # QiskitRuntimeService(), qrmi, anything that speaks the API
        for event in emulator.events():
            print(event.time, event.kind)

    command    the command line, and the settings it makes
    client     the Python face: a child process, and its control endpoint
    app        the web application; routes/ holds what it answers, service the state that is acted on
    qpu        a QPU's queue and who holds it; sessions and tasks are what it is made of
    simulator  child processes for tasks; in them run simulation, inputs, circuits, primitives, executor,
               and batches with noise, of IQM's circuits
    system     the IBM Quantum System API, which QPUs on a centre's own premises speak, and its object storage
    iqm        IQM Server, and its QPUs
    machine    what QPUs of all kinds have in common
    clock, faults, record, accounts, backends, answers

Importing it costs nothing but what a client needs: the server and Qiskit live in other processes.
"""

from __future__ import annotations

from qpu_slurm_devkit.emulator.client import Emulator
from qpu_slurm_devkit.emulator.faults import Drop, Fault
from qpu_slurm_devkit.emulator.record import Event, EventKind, RequestRecord, SessionRecord, TaskRecord
from qpu_slurm_devkit.emulator.settings import Account

__all__ = [
    "Account",
    "Drop",
    "Emulator",
    "Event",
    "EventKind",
    "Fault",
    "RequestRecord",
    "SessionRecord",
    "TaskRecord",
]
