# SPDX-License-Identifier: Apache-2.0
"""What may happen to the whole cluster: to slurmctld, the gateway, the journal, the service, the clocks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from qpu_slurm.errors import SlurmError
from tests.cluster.matrix import disk
from tests.cluster.matrix.scenario import TOO_LONG, Keys, Storm, What

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.matrix.play import Play
    from tests.cluster.matrix.stage import Stage

_HEADER = 100
"""The bytes that a SQLite file begins with, and without which it is none."""

_LOCK = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""

_CLOCK_C = Path(__file__).with_name("clock.c")


def _to_stage(text: str, do: Callable[[Stage], object]) -> What:
    def do_to_stage(play: Play) -> None:
        do(play.stage)

    return What(text, do_to_stage)


# slurmctld


def wait_until_saved(stage: Stage) -> None:
    """Wait until slurmctld has written down what it knows now."""
    saved = stage.lab.cluster.directory / "state" / "job_state"
    job = stage.admin("sbatch", "--parsable", "--hold", "--wrap=true").strip()
    now = time.time()
    # It writes when something has changed, within seconds; the number that it gives next is in it, too.
    stage.admin("scancel", job)
    deadline = time.monotonic() + 60
    while not saved.exists() or saved.stat().st_mtime < now:
        if time.monotonic() > deadline:
            raise SlurmError("slurmctld does not save its state")
        time.sleep(0.1)


def _remember(stage: Stage) -> None:
    state = stage.lab.cluster.directory / "state"
    shutil.copytree(state, state.with_name("state-saved"), dirs_exist_ok=True)


def _forget(stage: Stage) -> None:
    state = stage.lab.cluster.directory / "state"
    shutil.rmtree(state)
    state.with_name("state-saved").rename(state)
    for path in (state, *state.rglob("*")):
        if path.owner() != stage.lab.cluster.slurm_user:
            shutil.chown(path, stage.lab.cluster.slurm_user)


def _kill_slurmctld(stage: Stage) -> None:
    stage.lab.cluster.kill("slurmctld")


def _start_slurmctld(stage: Stage) -> None:
    stage.lab.cluster.restart("slurmctld")


_KILL = _to_stage("", _kill_slurmctld)
_START = _to_stage("", _start_slurmctld)

SLURMCTLD_SAVED = Storm(
    name="slurmctld is killed after it saved its state, and started again",
    does=(_to_stage("", wait_until_saved), _KILL, _START),
)
SLURMCTLD_FORGETS = Storm(
    name="slurmctld is killed before it saved its state, and started again",
    first=(_to_stage("", wait_until_saved), _to_stage("", _remember)),
    does=(_KILL, _to_stage("", _forget), _START),
)

# The gateway


def restart_gateway(stage: Stage) -> None:
    """Kill the gateway, and start it again."""
    assert stage.lab.gateway is not None
    stage.lab.gateway.kill()
    time.sleep(1)
    stage.lab.gateway.start()


GATEWAY_KILLED = Storm(
    name="the gateway is killed, and started again", does=(_to_stage("", restart_gateway),)
)


def _let_go(play: Play) -> None:
    """Let all jobs of a storm start, or go on."""
    stage = play.stage
    for qpu in _qpus_of(play):
        for ending in ("start", "go"):
            (stage.home / f"{qpu}.{ending}").touch(mode=0o644)


def _qpus_of(play: Play) -> list[str]:
    return [qpu for one, qpu in play.stage.qpus.items() if one.storm is play.scenario.storm]


def _wait_until_told(play: Play) -> None:
    """Wait until a step of each job of a storm waits, and its user can read that."""
    stage = play.stage
    deadline = time.monotonic() + 120
    while True:
        files = [path for qpu in _qpus_of(play) for path in stage.home.glob(f"{qpu}-*.out")]
        told = all(_TOLD in path.read_text(errors="replace") for path in files)
        if told and all(stage.waits(stage.view.jobs.get(qpu, ())) for qpu in _qpus_of(play)):
            break
        if time.monotonic() > deadline:
            raise SlurmError("a step did not wait")
        time.sleep(0.2)
    # Of those that write into no file, it is not seen when they are told.
    time.sleep(_LONGER)


_TOLD = "This step waits for an answer until"

_LONGER = 8.0
"""Seconds that whoever is away stays away when all wait."""


def _kill_gateway(stage: Stage) -> None:
    assert stage.lab.gateway is not None
    stage.lab.gateway.kill()


def _start_gateway(stage: Stage) -> None:
    assert stage.lab.gateway is not None
    if not stage.lab.gateway.healthy():
        stage.lab.gateway.start()


_LET_GO = What("", _let_go)
_UNTIL_TOLD = What("", _wait_until_told)
_FOR_A_WHILE = What("", lambda _: time.sleep(_LONGER))

GATEWAY_AWAY = Storm(
    name="the gateway goes away, and is back after some seconds",
    does=(_to_stage("", _kill_gateway), _LET_GO, _UNTIL_TOLD, _to_stage("", _start_gateway)),
)
GATEWAY_GONE = Storm(name="the gateway goes away", does=(_to_stage("", _kill_gateway), _LET_GO))
GATEWAY_BACK = _to_stage("", _start_gateway)


def _slurmctld_away(keys: Keys) -> Storm:
    # A gateway that knows the job has the answer: its steps start at once.
    meanwhile = _FOR_A_WHILE if keys == "gateway" else _UNTIL_TOLD
    return Storm(
        name="slurmctld goes away, and is back after some seconds",
        does=(_to_stage("", wait_until_saved), _KILL, _LET_GO, meanwhile, _START),
        keys=keys,
    )


SLURMCTLD_AWAY = _slurmctld_away("gateway")
SLURMCTLD_AWAY_TOO = _slurmctld_away("user")

# The journal


def lock_journal(stage: Stage, seconds: float) -> None:
    """Have another process lock the journal for a while."""
    argv = [sys.executable, "-c", _LOCK, str(stage.lab.journal), str(seconds)]
    process = stage.lab.cluster.popen(argv, user=stage.lab.cluster.slurm_user)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"


def _fill(stage: Stage) -> None:
    disk.fill(stage.private, stage.lab.journal)


def _damage(stage: Stage) -> None:
    shutil.copy2(stage.lab.journal, _backup(stage))
    with stage.lab.journal.open("r+b") as file:
        file.write(b"#" * _HEADER)


def _backup(stage: Stage) -> Path:
    return stage.lab.journal.with_name("backup.sqlite")


def _delete(stage: Stage) -> None:
    for ending in ("", "-wal", "-shm"):
        stage.lab.journal.with_name(stage.lab.journal.name + ending).unlink(missing_ok=True)


def _delete_while_gateway_is_down(stage: Stage) -> None:
    assert stage.lab.gateway is not None
    stage.lab.gateway.kill()
    _delete(stage)
    stage.lab.gateway.start()


def locked(seconds: float, keys: Keys) -> Storm:
    """Have another process lock the journal for a while."""
    return Storm(
        name=f"another process locks the journal for {seconds:g} s",
        does=(_to_stage("", lambda stage: lock_journal(stage, seconds)),),
        keys=keys,
    )


def full(keys: Keys) -> Storm:
    """Fill the disk under the journal."""
    return Storm(name="the disk under the journal is full", does=(_to_stage("", _fill),), keys=keys)


DELETED = Storm(name="the journal is deleted", does=(_to_stage("", _delete),))
LOST = Storm(
    name="the journal is deleted while the gateway is down",
    does=(_to_stage("", _delete_while_gateway_is_down),),
)
DAMAGED = Storm(name="the journal is damaged", does=(_to_stage("", _damage),), keys="user")
DAMAGED_TOO = Storm(name="the journal is damaged for good", does=(_to_stage("", _damage),), keys="user")

MAKE_ROOM = _to_stage("the admin makes room", lambda stage: disk.empty(stage.private))
BRING_BACK = _to_stage(
    "the admin brings it back", lambda stage: stage.lab.journal.write_bytes(_backup(stage).read_bytes())
)
MOVE_AWAY = _to_stage(
    "the admin moves it away",
    lambda stage: stage.lab.journal.rename(stage.lab.journal.with_name("damaged.sqlite")),
)

# The service


def _refuse(seconds: float) -> What:
    return _to_stage("", lambda stage: stage.lab.emulator.refuse(seconds))


SERVICE_REFUSES = Storm(name=f"the service refuses connections for {TOO_LONG} s", does=(_refuse(TOO_LONG),))

# Clocks


def _give_gateway_a_clock(stage: Stage) -> None:
    assert stage.lab.gateway is not None
    library = stage.lab.cluster.directory / "clock.so"
    compiler = ["cc", "-Wall", "-Werror", "-O2", "-shared", "-fPIC", str(_CLOCK_C), "-o", str(library)]
    subprocess.run(compiler, check=True, timeout=60)
    library.chmod(0o755)
    _set_clock(stage, 0)
    stage.lab.gateway.kill()
    stage.lab.gateway.start(env={"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(_clock(stage))})


def _take_gateway_its_clock(stage: Stage) -> None:
    assert stage.lab.gateway is not None
    stage.lab.gateway.kill()
    stage.lab.gateway.start()


def _clock(stage: Stage) -> Path:
    return stage.lab.cluster.directory / "gateways-clock"


def _set_clock(stage: Stage, seconds: int) -> None:
    clock = _clock(stage)
    clock.touch(mode=0o644)
    with clock.open("r+b", buffering=0) as file:
        file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


def gateways_clock(hours: int) -> Storm:
    """Step the clock of the gateway's host."""
    return Storm(
        name=f"the clock of the gateway's host is stepped by {hours:+d} h",
        first=(_to_stage("", _give_gateway_a_clock),),
        does=(_to_stage("", lambda stage: _set_clock(stage, hours * 3600)),),
        last=(_to_stage("", _take_gateway_its_clock),),
    )


SERVICES_CLOCK = Storm(
    name="the service's clock is stepped by +2 h: sessions and tokens expire",
    does=(_to_stage("", lambda stage: stage.lab.emulator.advance(7200)),),
)
