# SPDX-License-Identifier: Apache-2.0
"""The emulator as a process: how it starts, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from qpu_slurm_devkit.emulator import Emulator
from tests.integration.conftest import api_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Api

COMMAND = [sys.executable, "-m", "qpu_slurm_devkit.emulator"]

# Takes minutes: 26 qubits, one gate after another.
ENDLESS = (
    'OPENQASM 3.0; include "stdgates.inc"; bit[26] c;'
    + "".join(f"sx ${q}; rz(0.1) ${q}; sx ${q};" for q in range(16)) * 200
    + "".join(f"cz ${q}, ${q + 1};" for q in range(15))
    + "".join(f"sx ${q};" for q in range(26))
    + "".join(f"c[{q}] = measure ${q};" for q in range(26))
)


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def simulations(emulator: Emulator) -> list[psutil.Process]:
    """List the processes that were forked from the fork server, which is a child of the emulator."""
    own = psutil.Process(emulator.pid)
    return [child for child in own.children(recursive=True) if child.ppid() != emulator.pid]


@pytest.mark.parametrize(
    "end",
    [
        lambda emulator: emulator.stop(),
        lambda emulator: os.kill(emulator.pid, signal.SIGTERM),
        lambda emulator: os.kill(emulator.pid, signal.SIGKILL),
    ],
    ids=["stop", "SIGTERM", "SIGKILL"],
)
def test_nothing_is_left_however_it_ends(end: Callable[[Emulator], None]) -> None:
    with Emulator(any_circuit=True) as emulator:
        api = api_of(emulator)
        with api.http:
            api.submit([[ENDLESS]], api.open())
        emulator.wait_for(simulations)
        processes = family(emulator.pid)
        assert len(processes) >= 3
        end(emulator)
        assert psutil.wait_procs(processes[1:], timeout=240)[1] == []


def directory_of(pid: int) -> Path:
    prefix = "--directory="
    (argument,) = (part for part in psutil.Process(pid).cmdline() if part.startswith(prefix))
    return Path(argument.removeprefix(prefix))


def test_it_ends_with_its_parent() -> None:
    script = (
        "import time; from qpu_slurm_devkit.emulator import Emulator;"
        "e = Emulator(); e.start(); print(e.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        processes, directory = family(pid), directory_of(pid)
        parent.kill()
        parent.wait()
    assert psutil.wait_procs(processes, timeout=240)[1] == []
    assert not directory.exists()


def test_a_cancelled_task_is_killed() -> None:
    with Emulator(any_circuit=True) as emulator:
        api = api_of(emulator)
        with api.http:
            task = api.submit([[ENDLESS]])
            emulator.wait_for(simulations)
            (simulation,) = simulations(emulator)
            assert api.send("POST", f"/jobs/{task}/cancel").status_code == 204
            assert api.status(task) == "Cancelled"
        assert psutil.wait_procs([simulation], timeout=240)[1] == []


def test_a_crashed_simulation_fails_its_task_and_not_the_service(emulator: Emulator, api: Api) -> None:
    task = api.submit([[ENDLESS]])
    emulator.wait_for(simulations)
    (simulation,) = simulations(emulator)
    simulation.kill()
    emulator.wait_for(lambda e: e.tasks()[0].done_at)
    state = api.get(f"/jobs/{task}")["state"]
    assert (state["status"], state["reason_code"]) == ("Failed", 9999)


def test_its_directory_is_private_and_goes_with_it() -> None:
    emulator = Emulator(result_bytes=1)
    emulator.start()
    directory = directory_of(emulator.pid)
    assert directory.stat().st_mode & 0o077 == 0
    emulator.stop()
    emulator.stop()
    assert not directory.exists()


def test_a_snapshot_that_is_not_there_is_named_with_those_that_are() -> None:
    done = subprocess.run(
        [*COMMAND, "--backends=ibm_nowhere"], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert "ibm_nowhere" in done.stderr
    assert "ibm_sherbrooke" in done.stderr


def test_an_emulator_that_cannot_start_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(RuntimeError, match="did not start"):
        Emulator(backends=["ibm_nowhere"], log=log).start()
    assert "no snapshot" in log.read_text()


def test_the_command_explains_itself_and_prints_what_to_export() -> None:
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True, timeout=30)
    assert "IBM Quantum Platform API" in done.stdout
    assert "--interactive-ttl" in done.stdout
    with subprocess.Popen([*COMMAND, "--result-bytes=1"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.terminate()
        rest = process.stdout.read()
    assert first.startswith("emulator listens on http://127.0.0.1:")
    assert "export QISKIT_IBM_URL='http://127.0.0.1:" in rest
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["ibm_sherbrooke", "ibm_kyiv", "ibm_marrakesh"])
def test_other_snapshots_may_be_had(name: str) -> None:
    with Emulator(backends=[name], result_bytes=1) as emulator:
        api = api_of(emulator)
        with api.http:
            assert api.get(f"/backends/{name}/configuration")["backend_name"] == name
            assert api.get(f"/backends/{name}/configuration")["simulator"] is False
            assert api.get(f"/backends/{name}/properties")["backend_name"] == name
