# SPDX-License-Identifier: Apache-2.0
"""Why a task fails whose input cannot be executed."""

from __future__ import annotations


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
