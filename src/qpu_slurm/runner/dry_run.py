# SPDX-License-Identifier: Apache-2.0
"""What `--dry-run` finds: whether inputs fit the QPU, and what they would cost. Nothing is submitted.

Operations, qubits and coupling are compared with the QPU's configuration as the service gives it now. What
could not be looked at is said: circuits in QPY need Qiskit, which is used if it is there.
"""

from __future__ import annotations

import ast
import io
import struct
import zlib
from base64 import b64decode
from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from qpu_slurm.errors import PayloadError, Unavailable
from qpu_slurm.runner.exit_codes import Exit
from qpu_slurm.runner.qasm import Program
from qpu_slurm.runner.summary import DryRun, InputReport, PubReport
from qpu_slurm.system.atomic_file import Output
from qpu_slurm.tasks import overrides

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpu_slurm.runner.item import Bench
    from qpu_slurm.runner.qasm import Operation
    from qpu_slurm.runner.summary import Summary
    from qpu_slurm.tasks.payload import Payload

_ALWAYS: Final = frozenset({"measure", "reset", "delay", "barrier", "store", "break_loop", "continue_loop"})
"""What every QPU can do, whether its configuration lists it or not."""

_HERON: Final = frozenset({"rx", "rzz", "measure_2"})
"""What Heron can do, too; configurations list it only at times (the first two are its fractional gates)."""

_SYMMETRIC: Final = frozenset({"cz", "rzz"})
_TIMING: Final = frozenset({"barrier", "delay"})
_MOST_PROBLEMS: Final = 5
_PAIR: Final = 2


class _Gate(msgspec.Struct):
    name: str
    coupling_map: list[list[int]] | None = None


class _Configuration(msgspec.Struct):
    """What we read of a QPU's configuration."""

    n_qubits: int
    basis_gates: list[str] = []
    supported_instructions: list[str] | None = None
    gates: list[_Gate] = []
    coupling_map: list[list[int]] | None = None
    processor_type: dict[str, Any] | None = None
    max_shots: int | None = None


class Device:
    """A QPU, as far as circuits have to fit it.

    Args:
        text: Its configuration, as the service gives it.

    Raises:
        Unavailable: It is none that we understand.
    """

    def __init__(self, text: bytes) -> None:
        try:
            known = msgspec.json.decode(text, type=_Configuration)
        except msgspec.DecodeError as error:
            raise Unavailable(f"The QPU's configuration cannot be understood: {error}.") from error
        self.qubits = known.n_qubits
        self.max_shots = known.max_shots
        heron = (known.processor_type or {}).get("family") == "Heron"
        self._names = _ALWAYS | {*known.basis_gates, *(known.supported_instructions or ())}
        self._names |= {gate.name for gate in known.gates} | (_HERON if heron else set())
        self._on: dict[str, set[tuple[int, ...]]] = {}
        for gate in known.gates:
            if gate.coupling_map:
                pairs = {tuple(qubits) for qubits in gate.coupling_map}
                turned = {pair[::-1] for pair in pairs} if gate.name in _SYMMETRIC else set()
                self._on[gate.name] = pairs | turned
        coupling = {tuple(pair) for pair in known.coupling_map or ()}
        self._coupled = coupling | {pair[::-1] for pair in coupling}

    def problem(self, name: str, qubits: tuple[int, ...]) -> str | None:
        """Say why an operation cannot be had; None if it can."""
        if name not in self._names:
            return f"{name} is no operation of the QPU"
        if any(qubit >= self.qubits for qubit in qubits):
            return f"{name} on qubits {_list(qubits)}: the QPU has {self.qubits}"
        if name in _TIMING or not qubits:
            return None
        where = self._on.get(name, self._coupled if len(qubits) == _PAIR else None)
        if where and qubits not in where:
            return f"{name} on qubits {_list(qubits)}: the QPU has none there"
        return None


def dry_run(bench: Bench, summary: Summary) -> Exit:
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
        for source, _ in bench.options.inputs:
            found = InputReport(input=source, max_quantum_seconds=bench.qpu.task_timeout)
            report.inputs.append(found)
            try:
                task_input = bench.load(source)
                if device is None:
                    device = _device(bench, report)
                _examine(task_input, device, found)
            except PayloadError as error:
                found.problems.append(str(error))
            if found.problems or any(pub.problems for pub in found.pubs):
                code = Exit.BAD_INPUT
            output.write([_text(found, device).encode()])
        if device is not None:
            state = "online" if report.online else f"not online ({report.reason})"
            waiting = _count(report.queue_length or 0, "task")
            output.write([f"{bench.qpu.name}: {state}, {waiting} waiting\n".encode()])
    return code


def _device(bench: Bench, report: DryRun) -> Device:
    """Ask the service for the QPU, as it is now."""
    status = bench.provider.status()
    report.online, report.reason, report.queue_length = status.online, status.reason, status.queue_length
    device = Device(bench.provider.configuration())
    report.qubits = device.qubits
    return device


def _examine(task_input: Payload, device: Device, found: InputReport) -> None:
    """Look at an input's circuits and shots."""
    found.program_id = task_input.program_id
    if task_input.program_id == "executor":
        found.unchecked.append("the quantum program: an executor's is the client's and the service's own")
        return
    parameters = msgspec.json.decode(overrides.text_of(task_input), type=dict[str, Raw])
    default = _default_shots(parameters)
    for raw in msgspec.json.decode(parameters["pubs"], type=list[list[Raw]]):
        pub = PubReport()
        found.pubs.append(pub)
        _check_circuit(raw[0], device, pub)
        values = 1 if task_input.program_id == "sampler" else 2
        sets = _sets(raw[values] if len(raw) > values else Raw(b"null"))
        if sets is None:
            pub.unchecked.append("how many sets of parameter values there are")
        if task_input.program_id == "sampler":
            own = msgspec.json.decode(raw[2]) if len(raw) > values + 1 else None
            pub.shots = own or default
            pub.total_shots = pub.shots * sets if pub.shots and sets is not None else None
            if pub.shots and device.max_shots and pub.shots > device.max_shots:
                pub.problems.append(f"{pub.shots} shots: the QPU takes {device.max_shots} at most")
        else:
            pub.unchecked.append("the observables")
    if found.program_id == "sampler":
        totals = [pub.total_shots for pub in found.pubs]
        found.total_shots = sum(total or 0 for total in totals) if all(totals) else None


def _default_shots(parameters: dict[str, Raw]) -> int | None:
    """Find the shots of pubs that do not say; None leaves them to the service."""
    options = msgspec.json.decode(parameters.get("options", Raw(b"{}"))) or {}
    shots = msgspec.json.decode(parameters.get("shots", Raw(b"null"))) or options.get("default_shots")
    return shots if isinstance(shots, int) else None


def _check_circuit(raw: Raw, device: Device, pub: PubReport) -> None:
    """Compare a circuit with the QPU."""
    if bytes(memoryview(raw)[:1]) == b'"':
        program = Program(msgspec.json.decode(raw, type=str))
        _compare(program.operations(), device, pub)
        if program.unread:
            pub.unchecked.append(f"{program.unread} statements that go beyond plain circuits")
        return
    try:
        circuit = _from_qpy(msgspec.json.decode(raw)["__value__"])
    except ImportError:
        pub.unchecked.append(
            "the circuit, which is QPY: that needs Qiskit, which task_runner's Python has not"
        )
    except Exception as error:  # noqa: BLE001 - QPY of a newer Qiskit fails in every way, and the service may know it
        pub.unchecked.append(f"the circuit: this Qiskit cannot read its QPY ({error})")
    else:
        if circuit.num_qubits > device.qubits:
            pub.problems.append(f"{circuit.num_qubits} qubits: the QPU has {device.qubits}")
        _compare(_operations(circuit, list(range(circuit.num_qubits))), device, pub)


def _compare(operations: Iterable[Operation], device: Device, pub: PubReport) -> None:
    """Compare operations with the QPU's."""
    counts: Counter[str] = Counter()
    used: set[int] = set()
    problems: dict[str, int] = {}
    for name, qubits in operations:
        counts[name] += 1
        if name not in _TIMING:
            used.update(qubits)
        if problem := device.problem(name, qubits):
            problems[problem] = problems.get(problem, 0) + 1
    pub.operations = dict(sorted(counts.items()))
    pub.qubits = len(used)
    pub.problems += list(problems)[:_MOST_PROBLEMS]
    if len(problems) > _MOST_PROBLEMS:
        pub.problems.append(
            f"and {len(problems) - _MOST_PROBLEMS} more of the kind: transpile it for the QPU"
        )


def _from_qpy(value: str) -> Any:  # noqa: ANN401 - Qiskit may not be there
    """Read a circuit as RuntimeEncoder writes it.

    Raises:
        ImportError: There is no Qiskit.
    """
    from qiskit import qpy  # noqa: PLC0415 - half a second, and only if it is there

    return qpy.load(io.BytesIO(zlib.decompress(b64decode(value))))[0]


def _operations(circuit: Any, qubits: list[int]) -> Iterable[Operation]:  # noqa: ANN401 - likewise
    """Go through a circuit of Qiskit's, or a block of control flow within one, on certain qubits."""
    for instruction in circuit.data:
        acts_on = [qubits[circuit.find_bit(qubit).index] for qubit in instruction.qubits]
        blocks = getattr(instruction.operation, "blocks", ())
        yield instruction.operation.name, () if blocks else tuple(acts_on)
        for block in blocks:
            yield from _operations(block, acts_on)


def _sets(raw: Raw) -> int | None:
    """Count a pub's sets of parameter values; None if that cannot be told."""
    try:
        values = msgspec.json.decode(raw)
        if isinstance(values, dict):
            if values.get("__type__") != "ndarray":
                return None
            shape = _npy_shape(zlib.decompress(b64decode(values["__value__"])))
        else:
            shape = []
            while isinstance(values, list):
                shape.append(len(values))
                values = values[0] if values else None
        return prod(shape[:-1])
    except (ValueError, KeyError, TypeError, SyntaxError, zlib.error, struct.error):
        return None


def _npy_shape(data: bytes) -> list[int]:
    """Read an array's shape from the head of NumPy's file format."""
    wide = data[6] > 1  # since version 2, the header's length has four bytes
    length = struct.unpack_from("<I" if wide else "<H", data, 8)[0]
    begin = 12 if wide else 10
    return list(ast.literal_eval(data[begin : begin + length].decode("latin1").strip())["shape"])


def _text(found: InputReport, device: Device | None) -> str:
    """Say what was found of an input, in lines."""
    lines = [
        f"{found.input}: {found.program_id or 'no input'}"
        + (f", {_count(len(found.pubs), 'pub')}" if found.pubs else "")
    ]
    lines += [f"  problem: {problem}" for problem in found.problems]
    for index, pub in enumerate(found.pubs):
        names = ", ".join(f"{count} {name}" for name, count in pub.operations.items())
        checked = (
            f"{pub.qubits} of {device.qubits if device else '?'} qubits, {names}"
            if pub.operations
            else "not read"
        )
        lines.append(f"  pub {index}: {checked}")
        lines += [f"    problem: {problem}" for problem in pub.problems]
        lines += [f"    not checked: {what}" for what in pub.unchecked]
        if found.program_id == "sampler":
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


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _list(qubits: tuple[int, ...]) -> str:
    return " and ".join(map(str, qubits))
