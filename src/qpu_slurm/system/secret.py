# SPDX-License-Identifier: Apache-2.0
"""A string that does not show itself."""

from __future__ import annotations

import weakref


class Secret:
    """A credential: it neither prints, logs, compares by accident nor pickles.

    Args:
        value: The credential. Only `reveal` gives it back.
    """

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        key = id(self)
        _live[key] = weakref.ref(self, lambda _: _live.pop(key, None))

    def reveal(self) -> str:
        """Return the credential, for the one place that must send or hand it on."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a credential is not pickled")


_live: dict[int, weakref.ref[Secret]] = {}


def live_secrets() -> list[str]:
    """Return the credentials that this process holds now, for logs to hide wherever they show up."""
    return [secret.reveal() for reference in list(_live.values()) if (secret := reference())]
