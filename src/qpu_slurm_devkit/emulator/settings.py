# SPDX-License-Identifier: Apache-2.0
"""What an emulator is started with."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Literal

import msgspec

Plan = Literal["premium", "open"]


class StorageKey(msgspec.Struct, frozen=True):
    """A bucket of the object storage, and the key that opens it."""

    access_key_id: str
    secret: str
    bucket: str


class Account(msgspec.Struct, frozen=True):
    """One service instance, and the API key that opens it.

    Two accounts with one key are two instances of one user. The keys are made up: they open nothing but
    the emulator that was told of them.

    Attributes:
        name: What the emulator's own records call it.
        api_key: What its user exports as QISKIT_IBM_TOKEN.
        crn: The instance's Cloud Resource Name.
        plan: `premium`, or `open`, which may not open dedicated sessions.
    """

    name: str
    api_key: str
    crn: str
    plan: Plan = "premium"

    @property
    def storage(self) -> StorageKey:
        """Its bucket, through which tasks of the IBM Quantum System API travel."""
        return StorageKey(f"made-up-id-of-{self.name}", f"made-up-secret-of-{self.name}", self.name)

    @classmethod
    def premium(cls, name: str = "premium") -> Account:
        """Make up an account that may do everything."""
        return cls(name, f"made-up-key-of-{name}", _crn(name), "premium")

    @classmethod
    def open(cls, name: str = "open") -> Account:
        """Make up an account on the Open plan: no dedicated sessions, batch mode only."""
        return cls(name, f"made-up-key-of-{name}", _crn(name), "open")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How an emulator behaves. All times are in seconds.

    Attributes:
        directory: Where inputs and results lie while it runs.
        host: The address to listen on; it should be a loopback address.
        port: The port to listen on; 0 takes a free one.
        accounts: Who may use it.
        backends: The QPUs it has: names of snapshots that qiskit-ibm-runtime brings along.
        iqm_backends: The QPUs behind IQM Server: `garnet` with 20 qubits, `spark` with 5. What follows a `_`
            or a `:` tells several of one layout apart.
        task_seconds: How long a task runs; None: as long as its simulation takes.
        result_bytes: Simulate nothing: every task is answered with a made-up result of about this size.
        interactive_ttl: How long a session stays active, and the QPU locked, after its last task.
        idle_ttl: How long a session without a task stays open.
        max_ttl: The longest life that a session may ask for.
        token_ttl: How long an IAM token is valid.
        lanes: How many tasks of the IBM Quantum System API a QPU holds at once, those that are over included.
        any_circuit: Run circuits that the QPU has no instructions for (the real service does not).
        lenient: Do not hold inputs against IBM's client and schemas; see `strict`.
        seed: Makes the outcomes of simulations repeatable.
    """

    directory: Path
    host: str
    port: int
    accounts: tuple[Account, ...]
    backends: tuple[str, ...]
    iqm_backends: tuple[str, ...]
    task_seconds: float | None
    result_bytes: int | None
    interactive_ttl: float
    idle_ttl: float
    max_ttl: int
    token_ttl: int
    lanes: int
    any_circuit: bool
    lenient: bool
    seed: int | None


def _crn(name: str) -> str:
    """Make up a CRN that stays the same from one run to the next."""
    owner = uuid.uuid5(uuid.NAMESPACE_URL, f"account:{name}").hex
    instance = uuid.uuid5(uuid.NAMESPACE_URL, f"instance:{name}")
    return f"crn:v1:bluemix:public:quantum-computing:us-east:a/{owner}:{instance}::"
