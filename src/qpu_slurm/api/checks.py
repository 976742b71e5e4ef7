# SPDX-License-Identifier: Apache-2.0
"""Checks pubs before they are written: for what the newest client refuses, and for NaN and infinity.

The rules are in `tasks.validation`. This module applies them to Qiskit's circuits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from qpu_slurm.errors import PayloadError
from qpu_slurm.tasks import validation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from qiskit import QuantumCircuit
    from qiskit.primitives.containers.estimator_pub import EstimatorPub
    from qiskit.primitives.containers.sampler_pub import SamplerPub
    from qiskit_ibm_runtime import QuantumProgram

NO_PUBS: Final = "There are no pubs: give one at least."


def check_sampler(pubs: Sequence[SamplerPub], options: Mapping[str, Any]) -> None:
    """Check a sampler's pubs.

    Raises:
        PayloadError: One is refused; the sentence begins with its place.
    """
    if not pubs:
        raise PayloadError(NO_PUBS)
    for index, pub in enumerate(pubs):
        for register in pub.circuit.cregs:
            _refuse(f"pubs[{index}]", validation.register_problem(register.name, register.size))
        _check_pub(pub, f"pubs[{index}]", options)


def check_estimator(pubs: Sequence[EstimatorPub], options: Mapping[str, Any]) -> None:
    """Check an estimator's pubs.

    Raises:
        PayloadError: One is refused; the sentence begins with its place.
    """
    if not pubs:
        raise PayloadError(NO_PUBS)
    for index, pub in enumerate(pubs):
        place = f"pubs[{index}]"
        if pub.precision is not None and not 0 < pub.precision < math.inf:
            _refuse(place, f"the precision is {pub.precision}: it has to be above 0, and finite")
        if pub.observables.size == 0:
            _refuse(place, "there are no observables: give one at least")
        for terms in pub.observables.ravel().tolist():
            _refuse(place, validation.observables_problem(terms))
            for pauli, coefficient in terms.items():
                if not math.isfinite(coefficient):
                    _refuse(
                        place, f"the coefficient of {pauli} is {coefficient}: it has to be a finite number"
                    )
        _check_pub(pub, place, options)


def _check_pub(pub: SamplerPub | EstimatorPub, place: str, options: Mapping[str, Any]) -> None:
    """Check a pub's circuit and its parameters' values."""
    import numpy as np  # noqa: PLC0415 - it comes with Qiskit

    values = pub.parameter_values.as_array(pub.circuit.parameters)
    if not np.isfinite(values).all():
        first = tuple(int(each) for each in np.argwhere(~np.isfinite(values))[0])
        name = pub.circuit.parameters[first[-1]].name
        which = list(first[:-1])
        _refuse(place, f"the value of {name} is {values[first]}{f' in set {which}' if which else ''}")
    symbolic: dict[Any, None] = {}
    control_flow = False
    for name, parameters in _operations(pub.circuit):
        if name == "box":
            _refuse(
                place,
                f"the circuit has a box, which {validation.CLIENT}'s primitives refuse: use an executor",
            )
        control_flow |= name in _CONTROL_FLOW
        for parameter in parameters:
            if isinstance(parameter, float) and not math.isfinite(parameter):
                _refuse(place, f"the circuit has {name}({parameter}): an angle has to be a finite number")
        if name == "rzz" and getattr(parameters[0], "parameters", None):
            symbolic[parameters[0]] = None
        elif name == "rzz":
            _refuse(place, validation.rzz_problem(float(parameters[0])))
    _refuse(place, validation.decoupling_problem(options, control_flow=control_flow))
    if symbolic:
        _check_symbolic_rzz(pub, symbolic, values.reshape(-1, values.shape[-1]), place)


def _check_symbolic_rzz(
    pub: SamplerPub | EstimatorPub, angles: Mapping[Any, None], rows: NDArray[Any], place: str
) -> None:
    """Check the rzz angles that depend on parameters, for every set of values."""
    import numpy as np  # noqa: PLC0415 - likewise

    columns = {parameter: index for index, parameter in enumerate(pub.circuit.parameters)}
    for angle in angles:
        names = list(angle.parameters)
        for row in np.unique(rows[:, [columns[name] for name in names]], axis=0):
            bound = angle.bind(dict(zip(names, map(float, row), strict=True)))
            if problem := validation.rzz_problem(float(bound)):
                _refuse(place, f"{problem}; this one comes of {angle}")


_CONTROL_FLOW: Final = frozenset({"if_else", "for_loop", "while_loop", "switch_case"})


def _operations(circuit: QuantumCircuit) -> Iterator[tuple[str, Sequence[Any]]]:
    """Iterate over the names and parameters of a circuit's operations, in blocks as well."""
    for instruction in circuit.data:
        name = instruction.name
        if name in _CONTROL_FLOW or name == "box":
            yield name, ()
            for block in instruction.operation.blocks:
                yield from _operations(block)
        else:
            yield name, instruction.params


def made_of(circuits: Iterable[QuantumCircuit]) -> dict[str, Any]:
    """Return what circuits need of a QPU: how many qubits, and which operations."""
    known = list(circuits)
    gates = {name for circuit in known for name, _ in _operations(circuit)}
    return {"qubits": max(circuit.num_qubits for circuit in known), "gates": sorted(gates)} if known else {}


def _refuse(place: str, problem: str | None) -> None:
    if problem:
        raise PayloadError(f"{place}: {problem}.")


def check_executor(program: QuantumProgram) -> None:
    """Check the numbers of an executor's program; the client checks the rest.

    Raises:
        PayloadError: A circuit's argument is NaN or infinite.
    """
    import numpy as np  # noqa: PLC0415 - likewise

    for index, item in enumerate(program.items):
        values = getattr(item, "circuit_arguments", None)
        if values is not None and not np.isfinite(values).all():
            first = tuple(int(each) for each in np.argwhere(~np.isfinite(values))[0])
            _refuse(f"items[{index}]", f"its argument {list(first)} is {values[first]}: it has to be finite")
