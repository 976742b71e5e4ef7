# SPDX-License-Identifier: Apache-2.0
"""What a scenario is: a job, what happens to it when, and how that has to end.

Scenarios are data. Their texts become the rows of docs/reliability.md, so they read as a sentence does:
"batch", "when it runs: its node dies".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm_devkit.emulator import Fault
    from qpu_slurm_devkit.emulator.settings import Plan
    from tests.cluster.matrix.play import Play

ACQUIRE_TIMEOUT = 16
"""Seconds that one acquire may take on the stage."""

TOO_LONG = ACQUIRE_TIMEOUT + 4
"""Seconds for which no acquire waits; Slurm's time-out for hooks is above it."""

STEP_PATIENCE = 120
"""Seconds for which a step waits on the stage: longer than a time limit of one minute takes to be noticed."""

Kind = Literal["ibm-quantum-compute-service", "ibm-quantum-system"]
"""What kind of service the QPU is behind, by its type in config.toml."""

Keys = Literal["gateway", "user"]
"""Who opens the sessions: the gateway, or the hooks themselves, with the users' keys."""


class When(NamedTuple):
    """A moment in the life of a job: how it is called, and whether it has come."""

    text: str
    come: Callable[[Play], bool]


BEFORE = When("before it is submitted", lambda _: True)
"""A job may start within 0.1 s: what it has to meet comes first."""


class What(NamedTuple):
    """Something that is done to a job, or to all that it runs on: how it is called, and how it is done."""

    text: str
    do: Callable[[Play], None]


class Event(NamedTuple):
    """Something that happens in a moment."""

    when: When
    what: What

    def __str__(self) -> str:
        return f"{self.when.text}: {self.what.text}" if self.what.text else ""


@dataclass(frozen=True)
class Submit:
    """How a job is submitted.

    In all texts, `{qpu}` stands for the scenario's QPU.

    Args:
        command: What the user types; `{script}` stands for the script's file.
        script: The script's text, for sbatch.
    """

    command: tuple[str, ...]
    script: str = ""


@dataclass(frozen=True, kw_only=True)
class Storm:
    """Something that happens to the whole cluster, and so to every job of the scenarios that share it.

    It breaks when each of them has come to its own moment.

    Args:
        name: What it is.
        does: What is done, one after the other.
        first: What is done before any of its jobs is submitted.
        last: What is done when all of them are over.
        keys: The cluster that it happens to.
    """

    name: str
    does: tuple[What, ...]
    first: tuple[What, ...] = ()
    last: tuple[What, ...] = ()
    keys: Keys = "gateway"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One row of the matrix.

    Args:
        way: What it is about; unique within its group.
        submit: How the job is submitted.
        faults: What goes wrong between us and the service; each is this scenario's alone.
        storm: What happens to the whole cluster.
        struck: When that happens, as far as this job is concerned.
        happens: What happens to the job, one after the other (and after the storm).
        ends: The states in which its jobs end, in the order of their submission, or the only one; empty if
            Slurm does not know it any more.
        told: What the user must have been told: a regular expression.
        never: What the user must have been told nowhere, and no hook may have logged of the job: likewise.
        sessions: How many sessions are opened for it in all: any of these, where that is left to chance.
        backend: The QPU, as the service calls it; empty for any.
        second: A second QPU, `{qpu}b`, as the service calls it; empty for none.
        limit: How many jobs may have the QPU at once; None for any number.
        access: Who may use the QPU, as in config.toml; empty for everyone.
        plan: The account's plan.
        keys: Who opens the sessions.
        kind: What kind of service the QPU is behind.
    """

    way: str
    submit: Submit
    faults: tuple[Fault, ...] = ()
    storm: Storm | None = None
    struck: When | None = None
    happens: tuple[Event, ...] = ()
    ends: str = "COMPLETED"
    told: str
    never: str = "Traceback"
    sessions: tuple[int, ...] = (1,)
    backend: str = ""
    second: str = ""
    limit: int | None = None
    access: str = ""
    plan: Plan = "premium"
    keys: Keys = "gateway"
    kind: Kind = "ibm-quantum-compute-service"

    @property
    def has_sessions(self) -> bool:
        """Whether its service has sessions; where it has none, the job's lease holds a gate."""
        return self.kind == "ibm-quantum-compute-service"

    @property
    def name(self) -> str:
        """What the test and the row are known by."""
        return f"{self.way}: {self.story}" if self.story else self.way

    @property
    def story(self) -> str:
        """What happens, as a sentence."""
        parts = [
            f"{fault.method} {fault.path}: {_trouble(fault)}".removeprefix("* ") for fault in self.faults
        ]
        if self.storm is not None and self.struck is not None:
            where = "" if self.keys == "gateway" else " (without a gateway)"
            parts.append(f"{self.struck.text}: {self.storm.name}{where}")
        parts += [str(event) for event in self.happens if event.what.text]
        return "; ".join(parts)


def _trouble(fault: Fault) -> str:
    often = {None: "always", 1: "once"}.get(fault.times, f"{fault.times} times")
    after = f", after {fault.skip}" if fault.skip else ""
    retry = f", Retry-After {fault.retry_after}" if fault.retry_after else ""
    return f"{fault}{retry}, {often}{after}"
