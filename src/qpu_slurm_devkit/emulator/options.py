# SPDX-License-Identifier: Apache-2.0
"""The options of an input: what the emulator does with each, and which it refuses.

A simulation without noise gives the same values whether errors are suppressed and mitigated or not. So the
options for that are taken, and change at most the number of shots. An option that would change a result in a
way that is not emulated is refused: a program that is tuned here has to behave alike on a QPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from qpu_slurm_devkit.emulator.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_SHOTS: Final = 4096
"""What the service takes when the input does not say."""

_NO_EFFECT: Final = frozenset(
    {
        "default_shots",
        "default_precision",
        "seed_estimator",
        "max_execution_time",
        "environment",
        "dynamical_decoupling",
        "twirling",
        "execution.rep_delay",
        "resilience.measure_mitigation",
        "resilience.measure_noise_learning",
        "resilience.layer_noise_learning",
        "resilience.zne",
        "resilience.pec",
    }
)
"""Options, or groups of them, that change no value of a simulation without noise."""

_ONLY: Final[Mapping[str, object]] = {
    "execution.init_qubits": True,
    "execution.meas_type": "classified",
    "resilience.zne_mitigation": False,
    "resilience.pec_mitigation": False,
    "resilience.layer_noise_model": None,
    "simulator": None,
    "experimental": None,
}
"""Options that are emulated for one value only. None and {} stand for "not given"."""

_GROUPS: Final = frozenset({"execution", "resilience"})


def check(options: Mapping[str, Any]) -> None:
    """Refuse options that the emulator would have to ignore.

    Raises:
        InvalidInputError: One would change the result in a way that is not emulated, or is unknown.
    """
    for name, value in options.items():
        if name in _GROUPS and isinstance(value, dict):
            for inner, inner_value in value.items():
                _check(f"{name}.{inner}", inner_value)
        else:
            _check(name, value)


def _check(name: str, value: object) -> None:
    if name in _NO_EFFECT or value is None or value == {}:
        return
    if name not in _ONLY:
        raise InvalidInputError(f"The emulator does not know the option {name}.")
    if value != _ONLY[name]:
        raise InvalidInputError(f"The emulator does not emulate the option {name}={value!r}.")


def shots(parameters: Mapping[str, Any]) -> int:
    """Return the shots of a pub that does not name them itself.

    Twirling's `num_randomizations` times its `shots_per_randomization` comes before `default_shots`, which
    IBM's published schema says (ibm-quantum-schemas 0.13, TwirlingOptionsModel).
    """
    options = parameters.get("options") or {}
    given = parameters.get("shots") or options.get("default_shots") or DEFAULT_SHOTS
    twirling = options.get("twirling") or {}
    if not (twirling.get("enable_gates") or twirling.get("enable_measure")):
        return int(given)
    randomizations = twirling.get("num_randomizations", "auto")
    each = twirling.get("shots_per_randomization", "auto")
    if isinstance(randomizations, int) and isinstance(each, int):
        return randomizations * each
    return int(given)


def precision(parameters: Mapping[str, Any]) -> float:
    """Return the precision of a pub that does not name it itself; shots come before it."""
    options = parameters.get("options") or {}
    if given := parameters.get("precision"):
        return float(given)
    if not options.get("default_shots") and (given := options.get("default_precision")):
        return float(given)
    return 1 / math.sqrt(shots(parameters))
