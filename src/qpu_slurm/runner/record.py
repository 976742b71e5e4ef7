# SPDX-License-Identifier: Apache-2.0
"""What lies beside a result of many, so that nothing that is done is done again: `NAME.task`.

It is written when the task is submitted, and again when its result is in its place. It belongs to the input
as it was submitted: another circuit, other values, other shots or another QPU make it count for nothing.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Literal, Self

import msgspec

from qpu_slurm.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One input's task.

    Attributes:
        input_sha256: See `overrides.fingerprint`.
        task_id: The service's id.
        session_id: The session that it was submitted to.
        status: `submitted`, or `completed` when the result was written.
        output_bytes: The result's length.
    """

    input_sha256: str
    task_id: str
    session_id: str
    status: Literal["submitted", "completed"] = "submitted"
    output_bytes: int | None = None

    @classmethod
    def read(cls, output: Path, input_sha256: str) -> Self | None:
        """Find the record beside a result, if it is of that input."""
        try:
            record = msgspec.json.decode(_beside(output).read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None  # none, or one that was damaged: what it was about is done again
        return record if record.input_sha256 == input_sha256 else None

    def proves(self, output: Path) -> bool:
        """Tell whether the result is there, whole."""
        try:
            return self.status == "completed" and output.stat().st_size == self.output_bytes
        except OSError:
            return False

    def write(self, output: Path) -> None:
        """Write it beside the result.

        It is written over what was there, in one write, and cut to its length after that: a process that is
        killed leaves the old record or the new one, and what is `completed` is longer than what was
        `submitted`. A draft of its own and a rename would cost each task two new files, which is what most
        time would go into with small tasks.

        It is not brought to disk: a node's crash may lose it or leave one that cannot be read, which costs a
        task. A result that is lost while its record is kept cannot be: it was brought to disk before.

        Raises:
            OutputError: It cannot be written.
        """
        path = _beside(output)
        text = msgspec.json.encode(self) + b"\n"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if os.write(descriptor, text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if os.fstat(descriptor).st_size > len(text):
                    os.ftruncate(descriptor, len(text))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OutputError(f"The record {path} cannot be written: {error.strerror}.") from error


def _beside(output: Path) -> Path:
    return output.with_name(f"{output.name}.task")
