# SPDX-License-Identifier: Apache-2.0
"""Where a result goes: to a file, which appears whole or not at all, or to standard output."""

from __future__ import annotations

import contextlib
import os
import select
import stat
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from qpu_slurm.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable

STDOUT = 1


class Output:
    """A place for a result, proven writable before anything is submitted.

    A regular file is written beside its destination (`.NAME.….part`) and renamed when it is complete and on
    disk, so a reader sees the old file or the new one, and a failed run changes nothing. Its mode is what
    the umask says. Devices, pipes and standard output are written as they are.

    Use it as a context manager: what was not completed is removed.

    Args:
        path: The destination; None is standard output.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.name = "standard output" if path is None else str(path)
        self._draft: Path | None = None
        self._destination: Path | None = None
        try:
            self._file = self._stdout() if path is None else self._open(path)
        except OSError as error:
            raise self._problem(error) from error

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write the whole result.

        Args:
            pieces: Its text. What the iterator raises passes through.

        Raises:
            OutputError: It could not be written; a file that was there is as it was.
        """
        for piece in pieces:
            try:
                self._file.write(piece)
            except OSError as error:
                raise self._problem(error) from error
        try:
            self._complete()
        except OSError as error:
            raise self._problem(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Only what could not be written can fail here, and that has been said.
        with contextlib.suppress(OSError):
            self._file.close()
        if self._draft is not None:
            self._draft.unlink(missing_ok=True)

    def _stdout(self) -> IO[bytes]:
        """Open standard output, if somebody reads it."""
        poll = select.poll()
        poll.register(STDOUT, 0)
        for _, event in poll.poll(0):
            if event & (select.POLLERR | select.POLLNVAL):
                raise BrokenPipeError(0, "nobody reads it")
        # Not sys.stdout, which would flush what is left once more when the interpreter ends.
        return os.fdopen(os.dup(STDOUT), "wb")

    def _open(self, path: Path) -> IO[bytes]:
        """Open a file's draft, or what is no regular file as it is."""
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except FileNotFoundError:
            pass
        else:
            # Opened for writing without a change: whether a file may be written is the kernel's to say.
            file = path.open("ab")
            if not regular:
                return file
            file.close()
        # A symbolic link stays one: what it points at is replaced.
        destination = Path(os.path.realpath(path)) if path.is_symlink() else path
        draft = destination.with_name(f".{destination.name[:50]}.{os.urandom(8).hex()}.part")
        opened = draft.open("xb")
        self._draft, self._destination = draft, destination
        return opened

    def _complete(self) -> None:
        """Put the result in its place."""
        self._file.flush()
        if self._draft is not None and self._destination is not None:
            os.fsync(self._file.fileno())
            self._draft.rename(self._destination)
            self._draft = None

    def _problem(self, error: OSError) -> OutputError:
        """Say what is wrong with the place."""
        return OutputError(f"The result cannot be written to {self.name}: {error.strerror}.")
