# SPDX-License-Identifier: Apache-2.0
"""The installed commands, begun and ended in the shortest time.

What a short task and a job's start wait for is Python: its imports, and its taking itself apart. Here a third
of both is spared. What the commands do is in `tasks.runner` and `cli`, which need nothing of this.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Final, NoReturn, cast

_MANY_OBJECTS: Final = 100_000
"""Looking for garbage every 700 objects, as Python does, finds none while modules are loaded."""

_WAITED_FOR: Final = ("hook", "job-env", "step-end")
"""The commands of `qpu-slurm` that Slurm runs."""

_LOGS: Final = "hook"
"""The one of them that logs."""


def task_runner() -> NoReturn:
    """Be the command task_runner."""
    _hurry()
    from qpu_slurm.runner.main import main  # noqa: PLC0415 - only now

    _leave(main())


def qpu_slurm() -> int:
    """Be the command qpu-slurm."""
    hurry = any(command in sys.argv for command in _WAITED_FOR)
    if hurry:
        _hurry()
        if _LOGS in sys.argv:
            _Later.take_place_of("asyncio")  # structlog has methods for those who use it
            # Tracebacks in colour, and rich with them, are for terminals.
            _load("structlog", without="rich")
    from qpu_slurm.cli import main  # noqa: PLC0415 - likewise

    code = main()
    if hurry:
        _leave(code)
    return code


def _hurry() -> None:
    """Be quick from now on."""
    gc.set_threshold(_MANY_OBJECTS)
    # Of typing_extensions, where it is there, it takes what typing has as well.
    _load("msgspec", without="typing_extensions")


def _load(name: str, *, without: str) -> None:
    """Import a module as if another one, which it can do without, were not there."""
    if without in sys.modules:
        return
    sys.modules[without] = cast("ModuleType", None)  # what the import system knows as: not there
    try:
        import_module(name)
    finally:
        del sys.modules[without]


class _Later(ModuleType):
    """A module that is loaded when something of it is used, and not when it is imported.

    Python's own LazyLoader loads it at the import as well, up to Python 3.11.
    """

    @classmethod
    def take_place_of(cls, name: str) -> None:
        """Stand for a module that nobody has imported yet."""
        sys.modules.setdefault(name, cls(name))

    def __getattr__(self, name: str) -> object:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def _leave(code: int) -> NoReturn:
    """End: files are closed, no thread runs, nothing is left that needs an orderly end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            # None: it was closed before we began.
            if stream is not None:
                stream.flush()
        except OSError:
            pass
    os._exit(code)
