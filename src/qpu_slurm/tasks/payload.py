# SPDX-License-Identifier: Apache-2.0
"""Primitive inputs: read from what users wrote, and checked before anything is submitted.

An input file is `{"program_id": …, "parameters": {…}}` (the serialized input of QRMI's task_runner). Beside
them may stand what we write for ourselves and never send, `"qpu_slurm": {"backend": …, "calibrated_at": …}`:
what the circuits were transpiled for. `parameters` are what the service's programs take:

- `sampler`: pubs of `[circuit, parameter values?, shots?]`;
- `estimator`: pubs of `[circuit, observables, parameter values?, precision?]`;
- `executor`: a `quantum_program` of a versioned schema.

A circuit is OpenQASM 3 text, or `{"__type__": "QuantumCircuit", "__value__": base64(zlib(QPY))}`, as
qiskit-ibm-runtime's RuntimeEncoder writes it. tasks/checks.py checks an input. What is submitted is the text
that was read. A big input is checked by its outline, and stays where it is: its size costs no memory.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from qpu_slurm.errors import PayloadError
from qpu_slurm.providers.base import Pieces
from qpu_slurm.tasks import iqm
from qpu_slurm.tasks.checks import JSON_ADVICE, TranspiledFor, check, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO

    from qpu_slurm.tasks.outline import Outline

_log = logging.getLogger(__name__)

SMALL: Final = 4 << 20
"""Bytes of an input that is read as a whole; of a bigger one, an outline is checked."""


class Payload(Struct, frozen=True):
    """A primitive input that may be submitted.

    Attributes:
        program_id: `sampler`, `estimator` or `executor`; of a QPU of an IQM Server: see `tasks.iqm`.
        parameters: The program's parameters, as JSON text: what was read, unchanged. Of a big input, they
            are read again whenever they are gone through.
        transpiled_for: What its circuits were transpiled for, if it says so.
        warnings: What the service executes, and its writer probably did not mean; a sentence each.
        tags: What the input says that its task is to be tagged with.
    """

    program_id: str
    parameters: bytes | Pieces
    transpiled_for: TranspiledFor | None = None
    warnings: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def warn(self, source: str) -> None:
        """Log the warnings, marked as about what the result will lack or have wrong.

        Args:
            source: What to call the input.
        """
        for warning in self.warnings:
            _log.warning("%s: %s.", source, warning, extra={"about_result": True})


def read(path: Path, *, qpu_type: str = "") -> Payload:
    """Read and check an input file.

    Args:
        path: The file.
        qpu_type: The type of the QPU that it is for; see `receive`.

    Raises:
        PayloadError: It cannot be read, or `load` refuses it.
    """
    try:
        with path.open("rb") as file:
            return receive(file, source=str(path), qpu_type=qpu_type)
    except OSError as error:
        raise PayloadError(f"The input {path} cannot be read: {error.strerror}.") from error


def receive(file: BinaryIO, *, source: str, qpu_type: str = "") -> Payload:
    """Read and check an input from an open file; what comes from a pipe and is big is kept in a file.

    Args:
        file: Where it comes from.
        source: What to call it in errors.
        qpu_type: The type of the QPU that it is for. Those of an IQM Server take inputs of another form.

    Raises:
        PayloadError: It cannot be read or kept, or `load` refuses it.
    """
    if qpu_type == iqm.TYPE:
        return _batch(file, source)
    try:
        head = file.read(SMALL + 1)
        if len(head) <= SMALL:
            return load(head, source=source)
        # Here, since a small input has no use for it.
        from qpu_slurm.tasks.file_slice import FileSlice  # noqa: PLC0415

        text = FileSlice.behind(head, file, source=source)
    except OSError as error:
        raise PayloadError(f"{source}: it cannot be read: {error.strerror}.") from error
    del head
    try:
        outline = _outline(text)
        envelope, warnings = check(outline.text, whole=False)
    except PayloadError as error:
        raise PayloadError(f"{source}: {error}") from error
    return Payload(envelope.program_id, text.part(*outline.parameters), envelope.qpu_slurm, warnings)


def _batch(file: BinaryIO, source: str) -> Payload:
    """Read and check a batch of circuits for a QPU of an IQM Server; it is held in memory."""
    try:
        envelope = iqm.check(file.read())
    except OSError as error:
        raise PayloadError(f"{source}: it cannot be read: {error.strerror}.") from error
    except PayloadError as error:
        raise PayloadError(f"{source}: {error}") from error
    tags = (envelope.tag,) if envelope.tag else ()
    return Payload(envelope.program_id, bytes(envelope.iqmjson), tags=tags)


def load(data: bytes, *, source: str = "input", whole: bool = True) -> Payload:
    """Check an input.

    Args:
        data: What the user gave; hostile.
        source: What to call it in errors.
        whole: Whether this is all of it, and no outline.

    Raises:
        PayloadError: It is not an input in one of the forms that the service takes: the sentence says where
            and what was expected.
    """
    try:
        envelope, warnings = check(data, whole=whole)
    except PayloadError as error:
        raise PayloadError(f"{source}: {error}") from error
    return Payload(envelope.program_id, bytes(envelope.parameters), envelope.qpu_slurm, warnings)


def _outline(pieces: Iterable[bytes]) -> Outline:
    """Read through a big input."""
    from qpu_slurm.tasks.outline import NotJsonError, Outline  # noqa: PLC0415 - likewise

    try:
        return Outline(pieces)
    except (NotJsonError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadError(f"{unreadable(error)}. {JSON_ADVICE}") from error
