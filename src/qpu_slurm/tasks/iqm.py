# SPDX-License-Identifier: Apache-2.0
"""Inputs for QPUs of an IQM Server: batches of circuits, as QRMI's task_runner takes them.

    {"iqmjson": {"circuits": [{"name": …, "instructions": […]}], "shots": 1000, …},
     "job_type": "circuit", "use_timeslot": false, "tag": null}

`iqmjson` is what iqm-client submits: `create_circuit_job_definition(…).model_dump_json()` of its client. It
is sent as it was read; the server has the last word on its options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from qpu_slurm.errors import PayloadError
from qpu_slurm.tasks.checks import unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

_S = TypeVar("_S", bound=Struct)

TYPE: Final = "iqm-server"
"""The type of the QPUs that take such inputs."""

PROGRAM: Final = "circuit"
TIMESLOT: Final = "circuit:timeslot"
PROGRAMS: Final = frozenset({PROGRAM, TIMESLOT})

_ADVICE: Final = (
    'An input for a QPU of an IQM Server is {"iqmjson": {"circuits": […], "shots": …}, '
    '"job_type": "circuit", "use_timeslot": false, "tag": null}, as for QRMI\'s task_runner.'
)


class Instruction(Struct):
    """One instruction: an operation, and the QPU's components that it acts on."""

    name: str
    locus: tuple[str, ...] = ()
    qubits: tuple[str, ...] = ()
    """What iqm-client called the locus before November 2025."""


class Circuit(Struct):
    """One circuit."""

    name: str
    instructions: list[Instruction]


class _Mapped(Struct):
    logical_name: str
    physical_name: str


class Batch(Struct):
    """What is looked at of `iqmjson`; a circuit that is text is QIR."""

    circuits: Annotated[list[Circuit | str], Meta(min_length=1)]
    shots: Annotated[int, Meta(gt=0)] = 1
    qubit_mapping: list[_Mapped] | None = None

    @property
    def physical(self) -> Mapping[str, str]:
        """The components' own names, by those that the circuits have."""
        return {each.logical_name: each.physical_name for each in self.qubit_mapping or ()}


class Envelope(Struct, forbid_unknown_fields=True):
    """An input."""

    iqmjson: Raw
    job_type: Literal["circuit"] = "circuit"
    use_timeslot: bool = False
    tag: Annotated[str, Meta(max_length=50)] | None = None

    @property
    def program_id(self) -> str:
        """What the input is submitted as."""
        return TIMESLOT if self.use_timeslot else PROGRAM


def check(text: bytes) -> Envelope:
    """Check an input's text.

    Args:
        text: The text; hostile.

    Raises:
        PayloadError: The server takes no such input: the sentence says where and what was expected.
    """
    if not text or text.isspace():
        raise PayloadError(f"it is empty. {_ADVICE}")
    envelope = _decode(text, Envelope, "")
    _decode(envelope.iqmjson, Batch, "iqmjson")
    return envelope


def batch_of(text: bytes) -> Batch:
    """Return what is looked at of a batch that was checked."""
    return msgspec.json.decode(text, type=Batch)


def with_shots(text: bytes, shots: int) -> bytes:
    """Return a batch with another number of shots; the rest is as it was read."""
    parts = msgspec.json.decode(text, type=dict[str, Raw])
    return msgspec.json.encode(parts | {"shots": Raw(str(shots).encode())})


def _decode(text: bytes | Raw, kind: type[_S], where: str) -> _S:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        place = f"{where}{path.removesuffix('`')}".lstrip(".")
        said = f"{what[:1].lower()}{what[1:]}"
        raise PayloadError(f"{place + ': ' if place else ''}{said}. {_ADVICE}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadError(f"{unreadable(error)}. {_ADVICE}") from error
