# SPDX-License-Identifier: Apache-2.0
"""Submissions as the cloud has them: an envelope with the input in it, however large.

The input goes to the storage as it is. A small submission is taken apart in memory. A large one waits in a
temporary file until it is there as a whole, and the input is sent from there, in pieces.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import msgspec

from qpu_slurm.gateway.ibm.json_scan import Scanner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.providers.base import Pieces

_PIECE = 1 << 18
_PARAMETERS = "params"
_ENVELOPE = 1 << 16
"""Bytes that a submission has at most besides its input."""


class Envelope(msgspec.Struct):
    """A submission without its input."""

    program_id: str
    session_id: str
    tags: tuple[str, ...] | None = None
    cost: int | None = None


class Spool:
    """A submission that arrives in pieces."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="qpu-slurm-")  # noqa: SIM115 - closed by close
        self._scanner = Scanner(())
        self._size = 0

    def write(self, piece: bytes) -> None:
        """Take the next piece; what is no JSON was refused before."""
        self._scanner.feed(piece)
        self._file.write(piece)
        self._size += len(piece)

    def close(self) -> None:
        """Forget it."""
        self._file.close()

    def envelope(self) -> Envelope:
        """Return the submission without its input.

        Raises:
            msgspec.MsgspecError: It is not what it should be.
        """
        begin, end = self._scanner.spans.get(_PARAMETERS, (0, 0))
        if self._size - (end - begin) > _ENVELOPE:
            raise msgspec.ValidationError("it is too large without its params")
        self._file.seek(0)
        head = self._file.read(begin)
        self._file.seek(end)
        return msgspec.json.decode(head + (b"{}" if end else b"") + self._file.read(), type=Envelope)

    def parameters(self) -> Pieces:
        """Return the input.

        Raises:
            msgspec.ValidationError: There is none, or it is no object.
        """
        begin, end = self._scanner.spans.get(_PARAMETERS, (0, 0))
        self._file.seek(begin)
        if self._file.read(1) != b"{" or begin == end:
            raise msgspec.ValidationError("params must be an object")
        return Slice(self._file, begin, end)


@contextmanager
def spooled() -> Iterator[Spool]:
    """Make a spool for as long as the block lasts."""
    spool = Spool()
    try:
        yield spool
    finally:
        spool.close()


class Slice:
    """A part of a file, that can be gone through again."""

    def __init__(self, file: IO[bytes], begin: int, end: int) -> None:
        self._file = file
        self._begin = begin
        self._end = end

    def __len__(self) -> int:
        return self._end - self._begin

    def __iter__(self) -> Iterator[bytes]:
        position = self._begin
        while position < self._end:
            self._file.seek(position)
            piece = self._file.read(min(_PIECE, self._end - position))
            position += len(piece)
            yield piece
