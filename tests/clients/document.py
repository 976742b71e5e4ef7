# SPDX-License-Identifier: Apache-2.0
"""docs/compatibility.md: written from what the tests assert, and from nothing else.

    make test-clients

runs every release, and writes the document if all tests have passed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.clients.expected import PROGRAMS, ROUTES, Outcome, expected
from tests.clients.releases import QRMI, RUNTIME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clients.releases import Release

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"

_HEAD = f"""\
# Compatibility

These clients work in a job, by the job's variables alone. Each cell is a test: it runs a program with that
release, in an environment of its own (`tests/clients`). `make test-clients` runs them all and writes this
page. `make test` runs the oldest and the newest release of each client.

| a cell says | the program's tasks run |
|---|---|
| {Outcome.JOB.value} | in the session of the job's lease |
| {Outcome.NO_SESSION.value} | outside of the lease, in the service's queue, behind the job's own session |
| {Outcome.OWN.value} | outside of the lease, in a session that only the program closes |
| {Outcome.IAM.value} | not at all: the client asks IBM's public IAM, which does not know the gateway's keys |
| {Outcome.TYPE.value} | not at all: the release does not know the QPU's type by the name that the job says |
"""

_RUNTIME = """
## qiskit-ibm-runtime

- `SamplerV2(mode=backend)`: `least_busy()`, then `EstimatorV2` and `SamplerV2` on the backend, as in IBM's
  getting started.
- `Session(backend)`: a `with` block that opens a session.
- `qpu_slurm`: `Qpu`, `Session`, `SamplerV2`, `EstimatorV2` and `execute` of [python-api.md](python-api.md).

"""

_AFTER_RUNTIME = """
Through the gateway, published programs run unchanged with 0.49 and newer.

With an older release, take the primitives from `qpu_slurm`: `from qpu_slurm import SamplerV2, Session`.
They are the client's own, in the job's session.

**Without a gateway, do so with every release.** A plain program runs outside of the job's session there,
and waits behind it: the service keeps the QPU for the job's session until that has been idle for a while
(60 s on the public plans). qpu_slurm does not see such a task. It is neither in the job's accounting, nor
ended with the job.
"""

_QRMI = """
## qrmi

"""

_AFTER_QRMI = """
qrmi 0.21 needs `type = "qiskit-runtime-service"` for the QPU in [config.toml](configuration.md). Its
primitives and its task_runner then run in the job's session, too. Newer releases know both names.

qrmi brings a `task_runner` of its own. Installed after qpu_slurm, it replaces ours, and it exits 0 when a
task has failed. Ours has a second name that qrmi does not take: [`qpu-task-runner`](task_runner.md).
"""


def text() -> str:
    """Return the document."""
    return "".join((_HEAD, _RUNTIME, *_table(RUNTIME), _AFTER_RUNTIME, _QRMI, *_table(QRMI), _AFTER_QRMI))


def _table(releases: tuple[Release, ...]) -> Iterator[str]:
    columns = [(program, route) for program in PROGRAMS if program.of == releases for route in ROUTES]
    titles = [f"{program.title}, {_shown(route)}" for program, route in columns]
    yield f"| release | Qiskit | {' | '.join(titles)} |\n"
    yield f"|---|---|{'---|' * len(columns)}\n"
    for release in reversed(releases):
        cells = [expected(release, program, route).value for program, route in columns]
        yield f"| {release.version} | {release.qiskit} | {' | '.join(cells)} |\n"


def _shown(route: str) -> str:
    return "through the gateway" if route == "gateway" else "without"


if __name__ == "__main__":
    DOCUMENT.write_text(text(), encoding="utf-8")
