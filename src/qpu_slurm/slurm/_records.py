# SPDX-License-Identifier: Apache-2.0
"""Records of a fixed size, the form in which squeue is asked for its table.

squeue pads or cuts a value to its field's width in bytes, and puts nothing in between. So each job takes the
same number of bytes and one line end, and no value, whatever a user wrote into it, can look like the end of
its field, of its line or like another job. (squeue has JSON too, but up to 22.05 gives all jobs whichever was
asked for; other formats have separators that a value may contain.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm.errors import SlurmError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def format_option(fields: Mapping[str, int]) -> str:
    """Return squeue's option that asks for fields, each with its width in bytes."""
    return "--Format=" + ",".join(f"{name}:{width}" for name, width in fields.items())


def records(output: bytes, fields: Mapping[str, int]) -> Iterator[dict[str, str]]:
    """Read what squeue prints for some fields.

    Raises:
        SlurmError: It is not that; for instance because this squeue lacks a field.
    """
    size = sum(fields.values())
    for start in range(0, len(output), size + 1):
        record = output[start : start + size + 1]
        if len(record) != size + 1 or not record.endswith(b"\n"):
            raise SlurmError("squeue printed something that is not the table that it was asked for.")
        values, place = {}, 0
        for name, width in fields.items():
            values[name] = record[place : place + width].decode(errors="replace").rstrip()
            place += width
        yield values


def number(text: str) -> int:
    """Read a number.

    Raises:
        SlurmError: It is none.
    """
    if not (text.isascii() and text.isdigit()):
        raise SlurmError(f"squeue printed {text!r} where a number belongs.")
    return int(text)
