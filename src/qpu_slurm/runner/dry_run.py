# SPDX-License-Identifier: Apache-2.0
"""What `--dry-run` finds: whether inputs fit the QPU, and what they would cost. Nothing is submitted.

Operations, qubits and coupling are compared with the QPU's configuration as the service gives it now, and
what the service's newest client refuses is a problem here. What could not be read is reported: circuits in
QPY need Qiskit, which is used if it is there.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from qpu_slurm.errors import OutputError, PayloadError, ServiceError
from qpu_slurm.providers.base import TIMING
from qpu_slurm.runner import circuits, iqm_circuits
from qpu_slurm.runner.exit_codes import Exit
from qpu_slurm.runner.summary import DryRun, InputReport, PubReport
from qpu_slurm.system.atomic_file import Output
from qpu_slurm.system.plurals import counted
from qpu_slurm.tasks import iqm, overrides, validation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qpu_slurm.providers.base import Device
    from qpu_slurm.runner.context import Context
    from qpu_slurm.runner.qasm_names import Operation
    from qpu_slurm.runner.summary import Summary
    from qpu_slurm.tasks.payload import Payload

_MOST_PROBLEMS: Final = 5
_SHOTS: Final = 2
"""Where a sampler's pub has its shots."""
_BOX: Final = "box"


def dry_run(context: Context, summary: Summary) -> Exit:
    """Check the inputs, and say what was found.

    Raises:
        OutputError: It cannot be said.
        ServiceError: The service does not tell what the QPU can do.
    """
    device: Device | None = None
    report = DryRun()
    summary.dry_run = report
    code = Exit.COMPLETED
    with Output(None) as output:
        for source, _ in context.options.inputs:
            found = InputReport(input=source, max_quantum_seconds=context.qpu.task_timeout)
            report.inputs.append(found)
            try:
                task_input = context.load(source)
                if device is None:
                    device = _device(context, report)
                if why := context.calibration.misfit(task_input.transpiled_for, device):
                    found.problems.append(why)
                _examine(task_input, device, found)
            except (ServiceError, OutputError):
                raise
            except PayloadError as error:
                found.problems.append(str(error))
            except Exception as error:  # noqa: BLE001 - whatever an input does, the others have their turn
                found.unchecked.append(f"the rest of it ({type(error).__name__}: {error})")
            if found.problems or any(pub.problems for pub in found.pubs):
                code = Exit.BAD_INPUT
            output.write([_text(found, device).encode()])
        if device is not None:
            state = "online" if report.online else f"not online ({report.reason})"
            waiting = counted(report.queue_length or 0, "task")
            output.write([f"{context.qpu.name}: {state}, {waiting} waiting\n".encode()])
    return code


def _device(context: Context, report: DryRun) -> Device:
    """Ask the service for the QPU, as it is now."""
    status = context.provider.status()
    report.online, report.reason, report.queue_length = status.online, status.reason, status.queue_length
    device = context.provider.device()
    report.qubits = device.qubits
    return device


def _examine(task_input: Payload, device: Device, found: InputReport) -> None:
    """Look at an input's circuits, observables and shots."""
    found.program_id = task_input.program_id
    if task_input.program_id in iqm.PROGRAMS:
        _examine_batch(task_input, device, found)
        return
    if task_input.program_id == "executor":
        found.unchecked.append("the quantum program: an executor's is the client's and the service's own")
        return
    parameters = msgspec.json.decode(overrides.text_of(task_input), type=dict[str, Raw])
    options = msgspec.json.decode(parameters.get("options", Raw(b"{}"))) or {}
    default = _default_shots(parameters, options)
    for raw in msgspec.json.decode(parameters["pubs"], type=list[list[Raw]]):
        pub = PubReport()
        found.pubs.append(pub)
        sampler = task_input.program_id == "sampler"
        values = raw[1 if sampler else 2] if len(raw) > (1 if sampler else 2) else Raw(b"null")
        circuit = circuits.Findings()
        _compare(circuit.operations(raw[0], values), device, pub)
        _report(circuit, device, pub)
        if problem := validation.decoupling_problem(
            options, control_flow=circuits.has_control_flow(pub.operations)
        ):
            pub.problems.append(problem)
        sets = circuits.sets(values)
        if sets is None:
            pub.unchecked.append("how many sets of parameter values there are")
        if sampler:
            _check_registers(circuit, pub)
            own = msgspec.json.decode(raw[2]) if len(raw) > _SHOTS else None
            pub.shots = own or default
            pub.total_shots = pub.shots * sets if pub.shots and sets is not None else None
            if pub.shots and device.max_shots and pub.shots > device.max_shots:
                pub.problems.append(f"{pub.shots} shots: the QPU takes {device.max_shots} at most")
        else:
            _check_observables(msgspec.json.decode(raw[1]), circuit, device, pub)
    if found.program_id == "sampler":
        totals = [pub.total_shots for pub in found.pubs]
        found.total_shots = sum(total or 0 for total in totals) if all(totals) else None


def _examine_batch(task_input: Payload, device: Device, found: InputReport) -> None:
    """Look at a batch of circuits for a QPU of an IQM Server: gates and loci."""
    batch = iqm.batch_of(overrides.text_of(task_input))
    for circuit in batch.circuits:
        pub = PubReport(shots=batch.shots, total_shots=batch.shots)
        found.pubs.append(pub)
        if isinstance(circuit, str):
            pub.unchecked.append("the circuit: it is QIR")
            continue
        _compare(iqm_circuits.operations(circuit, batch.physical, device, pub), device, pub)
        if "measure" not in pub.operations:
            pub.warnings.append("there is no measurement, so the result will be empty")
        if device.max_shots and batch.shots > device.max_shots:
            pub.problems.append(f"{batch.shots} shots: the QPU takes {device.max_shots} at most")
    found.total_shots = batch.shots * len(batch.circuits)


def _default_shots(parameters: dict[str, Raw], options: dict[str, Any]) -> int | None:
    """Find the shots of pubs that do not have their own; None leaves them to the service.

    The service takes what twirling asks for, if it asks for both numbers, before `default_shots`.
    """
    shots = msgspec.json.decode(parameters.get("shots", Raw(b"null")))
    twirling = options.get("twirling") or {}
    if shots is None and (twirling.get("enable_gates") or twirling.get("enable_measure")):
        numbers = twirling.get("num_randomizations"), twirling.get("shots_per_randomization")
        if all(isinstance(number, int) for number in numbers):
            shots = prod(numbers)
    shots = shots or options.get("default_shots")
    return shots if isinstance(shots, int) else None


def _compare(operations: Iterable[Operation], device: Device, pub: PubReport) -> None:
    """Compare operations with the QPU's."""
    counts: Counter[str] = Counter()
    used: set[int] = set()
    problems: dict[str, int] = {}
    for name, qubits in operations:
        counts[name] += 1
        if name not in TIMING:
            used.update(qubits)
        if name != _BOX and (problem := device.problem(name, qubits)):
            problems[problem] = problems.get(problem, 0) + 1
    pub.operations = dict(sorted(counts.items()))
    pub.qubits = len(used)
    _add_problems(problems, "transpile it for the QPU", pub)
    if _BOX in counts:
        pub.warnings.append(f"{validation.CLIENT}'s primitives refuse circuits with boxes")


def _report(circuit: circuits.Findings, device: Device, pub: PubReport) -> None:
    """Take over what was found of a circuit."""
    if circuit.width is not None and circuit.width > device.qubits:
        pub.problems.append(f"{circuit.width} qubits: the QPU has {device.qubits}")
    _add_problems(dict.fromkeys(circuit.problems), "see the program", pub)
    pub.warnings += circuit.warnings
    pub.unchecked += circuit.unchecked


def _check_registers(circuit: circuits.Findings, pub: PubReport) -> None:
    """Check that a sampler's result can hold the circuit's registers."""
    for name, width in circuit.registers:
        if problem := validation.register_problem(name, width):
            pub.problems.append(problem)
    if pub.operations and not circuit.registers:
        pub.warnings.append("there is no classical register, so the result will be empty")


def _check_observables(
    observables: object, circuit: circuits.Findings, device: Device, pub: PubReport
) -> None:
    """Check observables' letters and lengths."""
    if problem := validation.observables_problem(observables):
        pub.problems.append(problem)
        return
    longest = validation.observables_width(observables)
    if circuit.width is not None and longest not in {None, circuit.width}:
        pub.problems.append(f"observables on {longest} qubits: the circuit has {circuit.width}")
    elif longest is not None and longest > device.qubits:
        pub.problems.append(f"observables on {longest} qubits: the QPU has {device.qubits}")


def _add_problems(problems: Mapping[str, object], advice: str, pub: PubReport) -> None:
    """Report the first problems of a kind, and count the rest."""
    pub.problems += list(problems)[:_MOST_PROBLEMS]
    if len(problems) > _MOST_PROBLEMS:
        pub.problems.append(f"and {len(problems) - _MOST_PROBLEMS} more of the kind: {advice}")


def _text(found: InputReport, device: Device | None) -> str:
    """Say what was found of an input, in lines."""
    lines = [
        f"{found.input}: {found.program_id or 'cannot be executed'}"
        + (f", {counted(len(found.pubs), 'pub')}" if found.pubs else "")
    ]
    # What is wrong with an input begins with its name, which has just been printed.
    lines += [f"  problem: {problem.removeprefix(f'{found.input}: ')}" for problem in found.problems]
    for index, pub in enumerate(found.pubs):
        names = ", ".join(f"{count} {name}" for name, count in pub.operations.items())
        checked = (
            f"{pub.qubits} of {device.qubits if device else '?'} qubits, {names}"
            if pub.operations
            else "not read"
        )
        lines.append(f"  pub {index}: {checked}")
        lines += [f"    problem: {problem}" for problem in pub.problems]
        lines += [f"    warning: {warning}" for warning in pub.warnings]
        lines += [f"    not checked: {what}" for what in pub.unchecked]
        if found.program_id in {"sampler", *iqm.PROGRAMS}:
            lines.append(f"    shots: {_shots(pub)}")
    lines += [f"  not checked: {what}" for what in found.unchecked]
    if found.program_id:
        most = found.max_quantum_seconds
        limit = f"{most} s of QPU time at most" if most else "QPU time up to the service's own limit"
        shots = f"{found.total_shots} shots, " if found.total_shots else ""
        lines.append(f"  cost: {shots}{limit}")
    return "\n".join(lines) + "\n"


def _shots(pub: PubReport) -> str:
    if pub.shots is None:
        return "as many as the service takes when nobody says"
    return (
        f"{pub.shots}"
        if pub.total_shots in {pub.shots, None}
        else f"{pub.shots} each, {pub.total_shots} in all"
    )
