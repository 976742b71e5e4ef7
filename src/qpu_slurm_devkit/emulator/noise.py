# SPDX-License-Identifier: Apache-2.0
"""The errors of a chip, as a simulation's process is told of them."""

from __future__ import annotations

import msgspec


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong on a chip, for a simulation.

    Attributes:
        loci: Where each gate is possible; keys of `errors` likewise.
        errors: The depolarizing error of each gate, by its name and its locus; of `measure`: how likely a bit
            is read wrong.
        t1: Seconds after which an excitation is lost, on average.
        t2: Seconds after which a phase is.
        seconds: How long gates take.
    """

    loci: dict[str, list[list[str]]]
    errors: dict[str, dict[str, float]]
    t1: float
    t2: float
    seconds: dict[str, float]
