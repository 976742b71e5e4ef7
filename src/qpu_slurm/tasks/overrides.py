# SPDX-License-Identifier: Apache-2.0
"""What task_runner's options change in an input: how many shots, and for whom it is to be told apart."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw

from qpu_slurm.errors import PayloadError
from qpu_slurm.tasks import iqm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.tasks.payload import Payload

_SHOTS: Final = 2
"""Where a sampler's pub has its shots, behind the circuit and the values."""

_ADVICE: Final = {
    "estimator": (
        "An estimator takes as many shots as its precision needs: give the precision in the pub, or as "
        "options.default_precision."
    ),
    "executor": "An executor's shots belong to its quantum program: write the input with as many.",
}


def with_shots(payload: Payload, shots: int) -> Payload:
    """Give every pub of a sampler's input so many shots.

    A pub's own count is what the service takes before any other (`shots` beside the pubs,
    `options.default_shots`), so those stay as they are. Circuits and values are put in as they were read.

    Args:
        payload: The input.
        shots: How many, for each of a pub's sets of parameter values.

    Raises:
        PayloadError: It is neither a sampler's nor a batch of circuits.
    """
    if payload.program_id in iqm.PROGRAMS:
        return msgspec.structs.replace(payload, parameters=iqm.with_shots(text_of(payload), shots))
    if payload.program_id != "sampler":
        raise PayloadError(
            f"--shots is for samplers, and this is an {payload.program_id}. " + _ADVICE[payload.program_id]
        )
    parameters = msgspec.json.decode(text_of(payload), type=dict[str, Raw])
    pubs = msgspec.json.decode(parameters["pubs"], type=list[list[Raw]])
    count = Raw(str(shots).encode())
    for pub in pubs:
        pub.extend([Raw(b"null")] * (_SHOTS - len(pub)))
        pub[_SHOTS:] = [count]
    parameters["pubs"] = Raw(msgspec.json.encode(pubs))
    return msgspec.structs.replace(payload, parameters=msgspec.json.encode(parameters))


def fingerprint(payload: Payload, qpu: str) -> str:
    """Return what tells an input, as it is submitted, from all others: a SHA-256 in hexadecimal.

    Args:
        payload: The input, options applied.
        qpu: The QPU's name: a result of another is another.
    """
    digest = hashlib.sha256(f"{qpu}\n{payload.program_id}\n".encode())
    for piece in _pieces(payload):
        digest.update(piece)
    return digest.hexdigest()


def text_of(payload: Payload) -> bytes:
    """Return the parameters' text, whole: as much memory as it is long."""
    return payload.parameters if isinstance(payload.parameters, bytes) else b"".join(payload.parameters)


def _pieces(payload: Payload) -> Iterator[bytes]:
    if isinstance(payload.parameters, bytes):
        yield payload.parameters
    else:
        yield from payload.parameters
