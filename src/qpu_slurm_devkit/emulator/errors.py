# SPDX-License-Identifier: Apache-2.0
"""Why a task fails whose input cannot be executed."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class InvalidInputError(Exception):
    """An input cannot be executed; the task fails with this sentence.

    Args:
        message: What is wrong.
        code: The service's number for it (guess, except 1517: not an instruction of the QPU).
    """

    code = 1002

    def __init__(self, message: str, code: int = 1002) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def executing() -> Iterator[None]:
    """Blame the emulator for what Qiskit does not get through with, once a circuit could be read.

    Raises:
        InvalidInputError: Something else than such an error was raised within.
    """
    try:
        yield
    except InvalidInputError:
        raise
    except Exception as error:
        versions = " and ".join(f"{name} {metadata.version(name)}" for name in ("qiskit", "qiskit-aer"))
        raise InvalidInputError(
            "The emulator cannot execute a circuit, which the service itself may take: "
            f"{versions} raised {type(error).__name__}: {error}"
        ) from error
