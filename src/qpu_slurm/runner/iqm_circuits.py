# SPDX-License-Identifier: Apache-2.0
"""The operations of IQM's circuits, as `--dry-run` compares them with the QPU's architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qpu_slurm.providers.base import Device
    from qpu_slurm.runner.qasm_names import Operation
    from qpu_slurm.runner.summary import PubReport
    from qpu_slurm.tasks.iqm import Circuit


def operations(
    circuit: Circuit, physical: Mapping[str, str], device: Device, pub: PubReport
) -> Iterator[Operation]:
    """Go through a circuit's operations: their names, and the numbers of the components they act on.

    A measurement of several qubits is possible where one of each is.

    Args:
        circuit: The circuit.
        physical: The components' own names, by those that the circuit has.
        device: The QPU.
        pub: Where a component is reported that the QPU does not have.
    """
    numbers = {name: number for number, name in enumerate(device.names)}
    missing: dict[str, None] = {}
    for instruction in circuit.instructions:
        names = [physical.get(name, name) for name in instruction.locus or instruction.qubits]
        missing |= dict.fromkeys(name for name in names if name not in numbers)
        locus = tuple(numbers[name] for name in names if name in numbers)
        if len(locus) < len(names):
            continue
        if instruction.name == "measure":
            yield from ((instruction.name, (number,)) for number in locus)
        else:
            yield instruction.name, locus
    pub.problems += [f"the QPU has no {name[:64]}" for name in missing]
