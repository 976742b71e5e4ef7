# SPDX-License-Identifier: Apache-2.0
"""What the service's newest client refuses before it submits, as far as it can be seen without Qiskit.

The list is qiskit-ibm-runtime 0.51's own validation, in its primitives and in the executor-based ones beside
them, and what Qiskit 2's result classes cannot hold. A test runs both over generated circuits.
"""

from __future__ import annotations

import keyword
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CLIENT: Final = "qiskit-ibm-runtime 0.51"
"""Whose validation this is."""

UNHELD_NAMES: Final = frozenset(
    "_RESTRICTED_NAMES _SHAPE _FIELDS _FIELD_TYPES _data _shape"  # noqa: SIM905 - a table of words
    " keys values items shape ndim size self __class__".split()
)
"""Names under which Qiskit's DataBin holds no bits: a result with one could not be read."""

PAULIS: Final = frozenset("IXYZ")
_RZZ_TOLERANCE: Final = 1e-10


def register_problem(name: str, width: int) -> str | None:
    """Say why a classical register is refused; None if it is not.

    Args:
        name: Its name.
        width: Its width, in bits.
    """
    if width == 0:
        return f"the classical register {name!r} has no bits: give it one, or leave it out"
    if not name.isidentifier():
        return f"the classical register {name!r} has a name that is no identifier of Python's: rename it"
    if keyword.iskeyword(name):
        return f"the classical register {name!r} has one of Python's keywords for a name: rename it"
    if name in UNHELD_NAMES:
        return f"the classical register {name!r} has a name that Qiskit's results cannot hold: rename it"
    return None


def rzz_problem(angle: float) -> str | None:
    """Say why an rzz is refused; None if it is not.

    Args:
        angle: Its angle, in radians.
    """
    if 0 <= angle <= math.pi / 2 + _RZZ_TOLERANCE:
        return None
    return f"rzz({angle:.6g}): the QPU takes angles from 0 to pi/2"


def observables_problem(observables: object) -> str | None:
    """Say why observables are refused; None if they are not.

    Args:
        observables: As an input has them: a string of Paulis, an object of such strings and coefficients, or
            an array of these, of any depth.
    """
    if isinstance(observables, str):
        return _pauli_problem(observables)
    if isinstance(observables, dict):
        return None if "__type__" in observables else _terms_problem(observables)
    if isinstance(observables, list):
        if not observables:
            return "there are no observables: give one at least"
        return next(filter(None, map(observables_problem, observables)), None)
    return "an observable is a string of I, X, Y and Z, or an object of such strings and coefficients"


def _terms_problem(terms: Mapping[str, object]) -> str | None:
    for pauli, coefficient in terms.items():
        if problem := _pauli_problem(pauli):
            return problem
        if isinstance(coefficient, bool) or not isinstance(coefficient, int | float):
            return f"the coefficient of {_shown(pauli)} is no number"
    return None


def observables_width(observables: object) -> int | None:
    """Return on how many qubits observables are, the longest of them; None if that is not seen.

    Args:
        observables: As for `observables_problem`, which has found nothing.
    """
    if isinstance(observables, str):
        return len(observables)
    inner: Iterable[object] = ()
    if isinstance(observables, list):
        inner = observables
    elif isinstance(observables, dict) and "__type__" not in observables:
        inner = observables.keys()
    return max((width for each in inner if (width := observables_width(each)) is not None), default=None)


def decoupling_problem(options: object, *, control_flow: bool) -> str | None:
    """Say why options are refused for a circuit; None if they are not.

    Args:
        options: The primitive's options.
        control_flow: Whether the circuit has control flow.
    """
    decoupling = options.get("dynamical_decoupling") if isinstance(options, dict) else None
    enabled = isinstance(decoupling, dict) and decoupling.get("enable")
    if enabled and control_flow:
        return "dynamical decoupling does not go with control flow: disable it, or submit such circuits apart"
    return None


def _pauli_problem(pauli: str) -> str | None:
    others = sorted(set(pauli) - PAULIS)
    if not others:
        return None
    return f"the observable {_shown(pauli)} has {', '.join(map(repr, others))}: it may have I, X, Y and Z"


def _shown(pauli: str) -> str:
    most = 24
    return repr(pauli) if len(pauli) <= most else repr(pauli[: most - 1] + "…")
