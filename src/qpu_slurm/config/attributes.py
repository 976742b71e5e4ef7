# SPDX-License-Identifier: Apache-2.0
"""What an admin says that a QPU is like, where its service does not."""

from __future__ import annotations

from typing import Annotated

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000, description="an integer from 1 to 1000000000")]

Error = Annotated[float, msgspec.Meta(ge=0, le=1, description="a number from 0 to 1")]

Speed = Annotated[float, msgspec.Meta(gt=0, le=1e12, description="a positive number")]

Processor = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A[a-z0-9][a-z0-9.-]{0,47}\Z",
        description='a word such as "heron" or "heron-r2": lower-case letters, digits, dots or hyphens',
    ),
]


class Attributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a QPU is like, for `--qpu=any:…`. None: what its service says, if that says anything.

    Attributes:
        qubits: How many qubits it has.
        processor: Its processor's family, with a revision behind it if there is one.
        error: The error of a two-qubit gate.
        clops: Layers of a circuit in a second.
        max_shots: The most shots of one circuit.
        simulator: Whether it is none.
    """

    qubits: Positive | None = None
    processor: Processor | None = None
    error: Error | None = None
    clops: Speed | None = None
    max_shots: Positive | None = None
    simulator: Annotated[bool, msgspec.Meta(description="true or false")] | None = None
