# SPDX-License-Identifier: Apache-2.0
"""The ledger of a server's tasks: which there are, since the API lists none.

    DIRECTORY/garnet/gate-0c9f….jsonl

Each gate has a file, to which lines are added:

    {"expect":"3f9a…"}                                      a submission is about to be sent
    {"expect":"3f9a…","task":"6e32…","tags":["slurm-job:7"],"at":1.7e9}   the server has taken it
    {"expect":"3f9a…","refused":true}                       the server has not
    {"over":{"id":"6e32…",…}}                               it is over, and will not be asked for again
    {"deleted":"6e32…"}                                     the server has forgotten it

A line is on the disk before what it is about can be lost. A submission without an outcome may have left a
task that is not known: `lost` counts these.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from qpu_slurm.errors import UnavailableError
from qpu_slurm.providers.base import TaskUsage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_NAME: Final = re.compile(r"gate-[0-9a-f]{32}")
_SUFFIX: Final = ".jsonl"
_MODE: Final = 0o600

_writing = threading.Lock()
"""Lines of one process do not mix; those of several are each one write."""


class _Line(msgspec.Struct, omit_defaults=True):
    """A line of a gate's file."""

    expect: str | None = None
    task: str | None = None
    tags: tuple[str, ...] = ()
    at: float = 0.0
    refused: bool = False
    over: TaskUsage | None = None
    deleted: str | None = None


class Entry(msgspec.Struct, kw_only=True):
    """A task that the server has taken, and not forgotten.

    Attributes:
        id: The server's id.
        gate: The gate that it went through.
        tags: What its submitter wrote on it.
        at: When it was taken, in seconds since the epoch.
        over: What it was, if it is known to be over.
    """

    id: str
    gate: str
    tags: tuple[str, ...]
    at: float
    over: TaskUsage | None = None


class Ledger:
    """The tasks of one QPU.

    Args:
        directory: Where all QPUs' are.
        backend: The server's name of the QPU.
    """

    def __init__(self, directory: Path, backend: str) -> None:
        self._directory = directory / quote(backend, safe="")

    def expect(self, gate: str) -> str:
        """Write down that a task is about to be submitted; return a mark for its outcome.

        Raises:
            UnavailableError: The ledger cannot be written.
        """
        mark = uuid.uuid4().hex
        self._write(gate, _Line(expect=mark))
        return mark

    def add(self, gate: str, mark: str, task_id: str, tags: Sequence[str]) -> None:
        """Write down that the server has taken a task; see `expect`."""
        self._write(gate, _Line(expect=mark, task=task_id, tags=tuple(tags), at=time.time()))

    def refused(self, gate: str, mark: str) -> None:
        """Write down that it has not; see `expect`."""
        self._write(gate, _Line(expect=mark, refused=True))

    def over(self, gate: str, usage: TaskUsage) -> None:
        """Write down that a task is over; see `expect`."""
        self._write(gate, _Line(over=usage))

    def deleted(self, gate: str, task_id: str) -> None:
        """Write down that the server has forgotten a task; see `expect`."""
        self._write(gate, _Line(deleted=task_id))

    def of_gate(self, gate: str) -> list[Entry]:
        """List a gate's tasks, the oldest first."""
        found: dict[str, Entry] = {}
        for line in self._read(gate):
            if line.task is not None:
                found[line.task] = Entry(id=line.task, gate=gate, tags=line.tags, at=line.at)
            elif line.over is not None and line.over.id in found:
                found[line.over.id].over = line.over
            elif line.deleted is not None:
                found.pop(line.deleted, None)
        return list(found.values())

    def tagged(self, tag: str) -> list[Entry]:
        """List the tasks that have a tag, the oldest first; a gate is a tag of its tasks."""
        if _NAME.fullmatch(tag):
            return self.of_gate(tag)
        entries = (entry for gate in self.gates() for entry in self.of_gate(gate))
        return sorted((entry for entry in entries if tag in entry.tags), key=lambda entry: entry.at)

    def find(self, task_id: str) -> Entry | None:
        """Find a task by its id."""
        entries = (entry for gate in self.gates() for entry in self.of_gate(gate))
        return next((entry for entry in entries if entry.id == task_id), None)

    def lost(self, gate: str) -> int:
        """Count the submissions whose outcome is not known."""
        pending: set[str] = set()
        for line in self._read(gate):
            if line.expect is not None:
                pending ^= {line.expect}
        return len(pending)

    def forget(self, gate: str) -> None:
        """Forget a gate. Forgotten already is fine."""
        with suppress(OSError):
            self._path(gate).unlink()

    def gates(self) -> Iterable[str]:
        """List the gates that something is written down of."""
        with suppress(OSError):
            names = (path.name.removesuffix(_SUFFIX) for path in self._directory.iterdir())
            return [name for name in names if _NAME.fullmatch(name)]
        return ()

    def _path(self, gate: str) -> Path:
        return self._directory / f"{gate}{_SUFFIX}"

    def _read(self, gate: str) -> Iterator[_Line]:
        """Go through a gate's lines. A line that a crash has cut short is passed over."""
        try:
            text = self._path(gate).read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unusable(error) from None
        for line in text.splitlines():
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                yield msgspec.json.decode(line, type=_Line)

    def _write(self, gate: str, line: _Line) -> None:
        # A line of its own, whatever a crash has left before it.
        text = b"\n" + msgspec.json.encode(line) + b"\n"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _writing:
                descriptor = os.open(
                    self._path(gate), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, _MODE
                )
                try:
                    os.write(descriptor, text)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise _unusable(error) from None


def _unusable(error: OSError) -> UnavailableError:
    return UnavailableError(
        f"The ledger of the QPU's tasks cannot be used ({error.strerror}).",
        admin_advice="See that the gateway's user can write the QPU's `ledger` directory.",
    )
