# SPDX-License-Identifier: Apache-2.0
"""A string that does not show itself."""

from __future__ import annotations


class Secret:
    """A credential: it neither prints, logs, compares by accident nor pickles.

    Args:
        value: The credential. Only `reveal` gives it back.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the credential, for the one place that must send or hand it on."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a credential is not pickled")
