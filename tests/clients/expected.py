# SPDX-License-Identifier: Apache-2.0
"""What comes of each program with each release: what the tests assert, and docs/compatibility.md shows."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from tests.clients.releases import QRMI, RUNTIME

if TYPE_CHECKING:
    from tests.clients.releases import Release

ROUTES = ("gateway", "direct")

COUNTS = "{'101': 100}"


class Outcome(Enum):
    """Where a program's tasks run; the value is what the document says."""

    JOB = "job's session"
    OWN = "a session of its own"
    NO_SESSION = "no session"
    NO_TASK = "works"
    IAM = "refused (IAM)"
    TYPE = "no QPU (type)"


class Program(NamedTuple):
    """A program of tests/clients/programs.

    Attributes:
        name: Its file, without the ending.
        title: What the document calls it.
        prints: What it prints where it works.
        of: The releases that run it.
    """

    name: str
    title: str
    prints: str
    of: tuple[Release, ...]


_ESTIMATED = "-1\n"

PROGRAMS = (
    Program("runtime_backend", "`SamplerV2(mode=backend)`", f"{_ESTIMATED}{COUNTS}", RUNTIME),
    Program("runtime_session", "`Session(backend)`", COUNTS, RUNTIME),
    Program("ours", "`qpu_slurm`", f"{_ESTIMATED}{COUNTS}\n{COUNTS}\n{COUNTS}", RUNTIME),
    Program("qrmi_library", "`acquire`, `task_start`", COUNTS, QRMI),
    Program("qrmi_primitives", "`qrmi.primitives`", COUNTS, QRMI),
    Program("qrmi_task_runner", "upstream's `task_runner`", COUNTS, QRMI),
    Program("qrmi_provider", "`ResourceProvider`", "['ibm_fez']\nibm_fez", QRMI),
)

CASES = tuple((release, program, route) for program in PROGRAMS for release in program.of for route in ROUTES)

_READS_IAM_URL = (0, 49)
_KNOWS_THE_TYPE = (0, 23)


def expected(release: Release, program: Program, route: str) -> Outcome:
    """Return what comes of a program."""
    version = tuple(int(part) for part in release.version.split(".")[:2])
    if program.name == "qrmi_provider":
        return Outcome.NO_TASK
    if program.name in {"qrmi_primitives", "qrmi_task_runner"} and version < _KNOWS_THE_TYPE:
        return Outcome.TYPE
    if program.name.startswith("runtime_"):
        if route == "gateway":
            return Outcome.JOB if version >= _READS_IAM_URL else Outcome.IAM
        return Outcome.NO_SESSION if program.name == "runtime_backend" else Outcome.OWN
    return Outcome.JOB
