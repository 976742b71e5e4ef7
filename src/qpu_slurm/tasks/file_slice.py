# SPDX-License-Identifier: Apache-2.0
"""A part of a file, read when it is needed: what is big stays on disk."""

from __future__ import annotations

import os
import shutil
import stat
import weakref
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from qpu_slurm.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE: Final = 1 << 18


class FileSlice:
    """Some bytes of a file, in pieces, as often as they are gone through.

    The file is the one that was opened, whatever its name stands for meanwhile; it is closed with this
    object.

    Args:
        file: The file; a regular one.
        start: The first byte.
        length: How many there are.
        source: What to call it in errors.
    """

    def __init__(self, file: BinaryIO, start: int, length: int, *, source: str) -> None:
        self._fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._fd)
        self._start = start
        self._length = length
        self._source = source
        self._seal = self._state()

    @classmethod
    def behind(cls, head: bytes, file: BinaryIO, *, source: str) -> Self:
        """Make one of a file that was begun to be read; what is no regular file is copied to one first.

        Args:
            head: What was read.
            file: Where it was read from.
            source: What to call it in errors.

        Raises:
            OSError: It cannot be read or copied.
        """
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            start = file.tell() - len(head)
            return cls(file, start, status.st_size - start, source=source)
        import tempfile  # noqa: PLC0415 - only what comes from a pipe needs it

        with tempfile.TemporaryFile(buffering=0) as copy:
            copy.write(head)
            shutil.copyfileobj(file, copy, _PIECE)
            return cls(copy, 0, copy.tell(), source=source)

    def part(self, start: int, end: int) -> Self:
        """Leave out what is not between two of its bytes."""
        self._start, self._length = self._start + start, end - start
        return self

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        """Go through it from its beginning.

        Raises:
            PayloadError: The file has been written to since it was opened.
        """
        at, end = self._start, self._start + self._length
        while at < end:
            piece = os.pread(self._fd, min(_PIECE, end - at), at)
            if not piece or self._state() != self._seal:
                raise PayloadError(f"{self._source}: it was changed while it was read.")
            at += len(piece)
            yield piece

    def _state(self) -> tuple[int, int]:
        status = os.fstat(self._fd)
        return status.st_size, status.st_mtime_ns
