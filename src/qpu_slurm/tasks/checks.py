# SPDX-License-Identifier: Apache-2.0
"""Checks of primitive inputs, whose form tasks/payload.py describes.

msgspec decodes what surrounds the large leaves, and passes over these without building them. The service has
the last word on all that they contain.
"""

from __future__ import annotations

import codecs
import re
import zlib
from base64 import b64decode
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct, field

from qpu_slurm.errors import PayloadError
from qpu_slurm.tasks import openqasm, validation
from qpu_slurm.tasks.limits import HEAD

_S = TypeVar("_S", bound=Struct)

ENVELOPE_ADVICE: Final = (
    'An input is {"program_id": "sampler" or "estimator", "parameters": {…}}; '
    'a file that holds parameters alone has to be put under "parameters".'
)
CIRCUIT_ADVICE: Final = (
    "A circuit is OpenQASM 3 text (qiskit.qasm3.dumps), or a QuantumCircuit as qiskit_ibm_runtime's "
    "RuntimeEncoder writes it."
)
JSON_ADVICE: Final = (
    'An input is a JSON file in UTF-8, such as {"program_id": "sampler", "parameters": {…}}, without NaN or '
    "Infinity."
)

# White space and comments may come before the version, which has to come before anything else.
_OPENQASM = re.compile(r"(?:\s|//[^\n]*\n|/\*.*?\*/)*OPENQASM\s+(\d+)", re.DOTALL)
_COMMENTS = re.compile(r"(?:\s|//[^\n]*\n|/\*.*?\*/)*(?://[^\n]*|/\*(?:(?!\*/).)*)?", re.DOTALL)
_QPY_MAGIC: Final = b"QISKIT"


class TranspiledFor(Struct, frozen=True):
    """What an input's circuits were transpiled for.

    Attributes:
        backend: The service's name of the QPU.
        calibrated_at: When the QPU had been calibrated as the transpiler was told.
        qubits: How many qubits the widest circuit has; None where that is not said.
        gates: The circuits' operations; none where they are not named.
    """

    backend: str
    calibrated_at: datetime
    qubits: int | None = None
    gates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Take a time without a zone for UTC."""
        if self.calibrated_at.tzinfo is None:
            msgspec.structs.force_setattr(self, "calibrated_at", self.calibrated_at.replace(tzinfo=UTC))


class Envelope(Struct, forbid_unknown_fields=True):
    """What surrounds an input's parameters."""

    # A key that would not reach the QPU (`shots`, say) is a mistake that nobody would notice.
    program_id: Literal["sampler", "estimator", "executor"]
    parameters: Raw
    qpu_slurm: TranspiledFor | None = None


class _Object(Struct):
    """Any JSON object; its content is the service's business."""


class _Options(Struct):
    """What is looked at of a primitive's options; the rest is the service's business."""

    dynamical_decoupling: Raw = Raw(b"null")


class _QpyCircuit(Struct):
    type: Literal["QuantumCircuit"] = field(name="__type__")
    value: Raw = field(name="__value__")


class _SamplerPub(Struct, array_like=True, forbid_unknown_fields=True):
    circuit: str | _QpyCircuit
    parameter_values: Raw = Raw(b"null")
    shots: Annotated[int, Meta(gt=0)] | None = None


class _EstimatorPub(Struct, array_like=True, forbid_unknown_fields=True):
    circuit: str | _QpyCircuit
    observables: Raw
    parameter_values: Raw = Raw(b"null")
    precision: Annotated[float, Meta(gt=0)] | None = None


class _Primitive(Struct):
    """What version 2 of Sampler and Estimator have in common; other keys pass."""

    pubs: Annotated[list[Raw], Meta(min_length=1)]
    version: Literal[2]
    options: _Options | None = None
    support_qiskit: bool = True


class _Executor(Struct):
    schema_version: Annotated[str, Meta(min_length=1)]
    quantum_program: _Object
    options: _Object | None = None


def check(text: bytes, *, whole: bool) -> tuple[Envelope, tuple[str, ...]]:
    """Check an input's text, or its outline's.

    Args:
        text: The text; hostile.
        whole: Whether this is all of it, and no outline.

    Returns:
        What surrounds its parameters, and what to warn of: a sentence each.

    Raises:
        PayloadError: The service takes no such input: the sentence says where and what was expected.
    """
    if not text or text.isspace():
        raise PayloadError(f"it is empty. {ENVELOPE_ADVICE}")
    envelope = _decode(text, Envelope, "", ENVELOPE_ADVICE)
    _check_text(envelope.parameters)
    match envelope.program_id:
        case "sampler":
            warnings = _check_sampler(envelope.parameters)
        case "estimator":
            warnings = _check_estimator(envelope.parameters, whole=whole)
        case "executor":
            warnings = _check_executor(envelope.parameters)
    return envelope, tuple(dict.fromkeys(warnings))


def _check_sampler(parameters: Raw) -> list[str]:
    """Check a sampler's parameters; return what to warn of."""
    warnings = []
    primitive = _decode(parameters, _Primitive, "parameters", "")
    for index, raw in enumerate(primitive.pubs):
        where = f"parameters.pubs[{index}]"
        pub = _decode(raw, _SamplerPub, where, "A sampler's pub is [circuit, parameter values, shots].")
        if program := _check_circuit(pub.circuit, f"{where}[0]", primitive.options):
            for name, width in program.registers.items():
                if problem := validation.register_problem(name, width):
                    raise PayloadError(f"{where}[0]: {problem}.")
            warnings += [f"{where}[0]: {warning}" for warning in program.lost_bits + program.lost_remainders]
        _check_values(pub.parameter_values, f"{where}[1]")
    return warnings


def _check_estimator(parameters: Raw, *, whole: bool) -> list[str]:
    """Check an estimator's parameters, or an outline of them; return what to warn of."""
    warnings = []
    shape = "An estimator's pub is [circuit, observables, parameter values, precision]."
    primitive = _decode(parameters, _Primitive, "parameters", "")
    for index, raw in enumerate(primitive.pubs):
        where = f"parameters.pubs[{index}]"
        pub = _decode(raw, _EstimatorPub, where, shape)
        if program := _check_circuit(pub.circuit, f"{where}[0]", primitive.options):
            warnings += [f"{where}[0]: {warning}" for warning in program.lost_remainders]
        if _first(pub.observables) not in b'"[{':
            raise PayloadError(
                f"{where}[1]: expected observables. "
                'They are a Pauli string ("ZZ"), an object ({"ZZ": 1.0}), or an array of these.'
            )
        # An outline has none to look at.
        if whole and (problem := validation.observables_problem(msgspec.json.decode(pub.observables))):
            raise PayloadError(f"{where}[1]: {problem}.")
        _check_values(pub.parameter_values, f"{where}[2]")
    return warnings


def _check_executor(parameters: Raw) -> list[str]:
    """Check an executor's parameters: their schema is the client's and the service's own."""
    _decode(parameters, _Executor, "parameters", "")
    return []


def _check_circuit(
    circuit: str | _QpyCircuit, where: str, options: _Options | None
) -> openqasm.Glance | None:
    """Look at a circuit: is it what it says to be, and does it go with the options?

    Returns:
        What is seen of it, if it is OpenQASM 3.
    """
    if not isinstance(circuit, str):
        if not _is_qpy(circuit.value):
            raise PayloadError(f"{where}: its __value__ is not base64(zlib(QPY)). {CIRCUIT_ADVICE}")
        return None
    version = _OPENQASM.match(circuit)
    if version is None and not _is_cut(circuit):
        raise PayloadError(f'{where}: the text does not begin with "OPENQASM 3.0;". {CIRCUIT_ADVICE}')
    if version and version[1] != "3":
        raise PayloadError(
            f"{where}: this is OpenQASM {version[1]}. {CIRCUIT_ADVICE} "
            f"For files of pytket, BQSKit and PennyLane, see {openqasm.RECIPES}."
        )
    program = openqasm.Glance(circuit)
    if options is not None:
        given = {"dynamical_decoupling": msgspec.json.decode(options.dynamical_decoupling)}
        if problem := validation.decoupling_problem(given, control_flow=program.control_flow):
            raise PayloadError(f"{where}: {problem}.")
    return program


def _is_cut(circuit: str) -> bool:
    """Whether this may be an outline's circuit that is cut before its version comes: the service will see."""
    return len(circuit) == HEAD and _COMMENTS.fullmatch(circuit) is not None


def _is_qpy(value: Raw) -> bool:
    """Whether a JSON string begins as base64(zlib(QPY)) does; its first kilobyte is enough to tell."""
    if _first(value) != b'"':
        return False
    start = bytes(memoryview(value)[1:-1][:HEAD])
    if b"\\" in start:
        return True  # A writer that escapes "/": legal, and too rare to unescape here. The service will see.
    try:
        plain = zlib.decompressobj().decompress(b64decode(start, validate=True))
    except (ValueError, zlib.error):
        return False
    return plain.startswith(_QPY_MAGIC)


def _check_values(values: Raw, where: str) -> None:
    """Check that parameter values are null, an array or an encoded one."""
    if _first(values) not in b"n[{":
        raise PayloadError(
            f"{where}: expected parameter values. "
            "They are null, an array of numbers, or a NumPy array as RuntimeEncoder writes it."
        )


def _first(raw: Raw) -> bytes:
    """Return the first byte of a JSON value, which tells its type."""
    return bytes(memoryview(raw)[:1])


def _check_text(parameters: Raw) -> None:
    """Check that what will be sent is UTF-8: msgspec does not look into what it passes over."""
    text = memoryview(parameters)
    decoder = codecs.getincrementaldecoder("utf-8")()
    step = 1 << 20
    try:
        for start in range(0, len(text), step):
            decoder.decode(text[start : start + step])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise PayloadError(f"parameters: not UTF-8 text. {JSON_ADVICE}") from error


def _decode(text: bytes | Raw, kind: type[_S], where: str, advice: str) -> _S:
    """Decode one level of an input.

    Raises:
        PayloadError: It is not of that kind; the sentence begins with where.
    """

    def problem(what: str, more: str) -> PayloadError:
        return PayloadError(f"{where + ': ' if where else ''}{what}. {more}".strip())

    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        # msgspec writes "Expected `int`, got `str` - at `$.version`".
        what, _, path = str(error).partition(" - at `$")
        where += path.removesuffix("`") if where else path.removesuffix("`").lstrip(".")
        raise problem(_uncapitalized(what), advice) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise problem(unreadable(error), JSON_ADVICE) from error


def unreadable(error: Exception) -> str:
    """Say why a text cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    # msgspec writes "JSON is malformed: invalid character (byte 5)"; of `from` it names the byte behind.
    what, _, byte = str(error).removeprefix("JSON is malformed: ").partition(" (byte ")
    where = f" near byte {byte.removesuffix(')')}" if byte else ""
    return f"this is not JSON: {_uncapitalized(what)}{where}"


def _uncapitalized(text: str) -> str:
    """Make a sentence of msgspec's go on after a colon."""
    return f"{text[:1].lower()}{text[1:]}"
