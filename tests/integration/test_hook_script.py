# SPDX-License-Identifier: Apache-2.0
"""What the hook scripts hand on of the environment that Slurm gives them, in which users have written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qpu_slurm.lifecycle.start import NOT_STARTED
from qpu_slurm.slurm.admin_comment import AdminComment
from qpu_slurm.slurm.job import HookJob

PLUGIN = Path(__file__).parents[2] / "plugin"

HOOK = {
    "SLURM_JOB_ID": b"17",
    "SLURM_HET_JOB_ID": b"16",
    "SLURM_JOB_UID": b"1000",
    "SLURM_JOB_PARTITION": b"normal",
    "SLURM_CLUSTER_NAME": b"lab",
    "SLURM_JOB_RESTART_COUNT": b"2",
    "SPANK_QPU_SLURM_QPU": b"ibm_fez",
    "SPANK_QPU_SLURM_SESSION": b"task",
    "SPANK_QPU_SLURM_API_KEY": b"made-up-key",
}

LONGEST = 131_071
"""How many bytes Linux gives one variable, name and all: Slurm itself cannot hand a longer one to a hook."""

HOSTILE = {
    "nothing": b"",
    "no text": b"\xff\xfe\x80",
    "a shell's": b"$(touch pwned)`touch pwned`';touch pwned;\"\\",
    "options": b"--help -n %s\\n",
    "blanks": b"  a\tb  ",
    "lines": b"job\nSLURM_JOB_UID=0\n",
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the client as an admin does; return the directory that it is in."""
    directory = tmp_path_factory.mktemp("client")
    make(directory, str(directory / "qpu-slurm-client"))
    return directory


def make(build: Path, *arguments: str) -> None:
    subprocess.run(
        ["/usr/bin/make", "--silent", f"BUILD={build}", *arguments], cwd=PLUGIN, check=True, timeout=240
    )


@pytest.fixture
def script(client: Path, tmp_path: Path) -> Path:
    """Install the hooks as an admin does, around a command that writes down what it is started with."""
    command = tmp_path / "qpu-slurm"
    command.write_text(
        f"#!/bin/sh\ncat /proc/$$/environ >{tmp_path}/environ\necho $* >{tmp_path}/arguments\n"
    )
    command.chmod(0o755)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"""#!/bin/sh\nprintf '%s|' "$SLURM_CONF" "$@" >>{tmp_path}/told\n""")
    scontrol.chmod(0o755)
    installed = tmp_path / "libexec"
    make(
        client,
        "install-client",
        f"HOOKDIR={installed}",
        f"QPU_SLURM={command}",
        f"CONFIG={tmp_path}/c.toml",
        "GRES_PARTITIONS=quantum",
        f"SCONTROL={scontrol}",
        "SLURM_CONF=/etc/slurm.conf",
    )
    return installed / "prolog.sh"


def run(script: Path, environ: dict[str, bytes]) -> dict[str, bytes]:
    """Run the hook; return the environment that qpu-slurm was started with, none if it was not."""
    done = subprocess.run(
        [script], env=environ, capture_output=True, cwd=script.parent, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    seen = script.parents[1] / "environ"
    if not seen.exists():
        return {}
    entries = seen.read_bytes().rstrip(b"\0").split(b"\0")
    return {os.fsdecode(name): value for name, _, value in (entry.partition(b"=") for entry in entries)}


def test_qpu_slurm_starts_with_what_it_reads_and_no_more(script: Path) -> None:
    forged = {"PYTHONPATH": b"/tmp", "SPANK_LD_PRELOAD": b"x", "BASH_ENV": b"/x", "ENV": b"/x"}
    seen = run(script, HOOK | forged)
    assert seen.items() >= HOOK.items()
    assert seen.keys() - HOOK.keys() <= {"PATH", "LC_ALL", "PWD", "OLDPWD", "_", "SHLVL"}
    assert (
        script.parents[1] / "arguments"
    ).read_text() == f"--config {script.parents[1]}/c.toml hook prolog\n"


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "name", ["SPANK_QPU_SLURM_SESSION", "SPANK_QPU_SLURM_QPU", "SPANK_QPU_SLURM_API_KEY"]
)
def test_what_users_write_arrives_as_it_is_and_is_not_run(script: Path, name: str, value: bytes) -> None:
    partition = {"SLURM_JOB_PARTITION": b"quantum"}  # in which a job may go without --qpu
    seen = run(script, HOOK | partition | {name: value})
    assert seen.items() >= (HOOK | partition | {name: value}).items()
    assert not list(script.parent.glob("pwned"))
    environ = {key: os.fsdecode(text) for key, text in seen.items()}
    assert HookJob.from_environ(environ).hold in {"task", None}


@pytest.mark.parametrize(
    "name", ["SPANK_QPU_SLURM_SESSION", "SPANK_QPU_SLURM_QPU", "SPANK_QPU_SLURM_API_KEY"]
)
def test_the_longest_value_does_not_stop_a_hook(script: Path, name: str) -> None:
    value = b"x" * (LONGEST - len(name) - 1)
    assert run(script, HOOK | {name: value})[name] == value


BROKEN = {
    "its interpreter is gone": ("#!/no/such/python\n", 127),
    "it is gone itself": (None, 127),
    "it may not be run": ("", 126),
    "a module is missing": ("#!/bin/sh\nexit 1\n", 1),
    "its arguments have changed": ("#!/bin/sh\nexit 2\n", 2),
    "it is killed": ("#!/bin/sh\nkill -KILL $$\n", 137),
}


def broken(script: Path, how: str) -> int:
    """Break what the hook runs; return the code that a shell has for it."""
    command = script.parents[1] / "qpu-slurm"
    text, code = BROKEN[how]
    command.unlink()
    if text is not None:
        command.write_text(text)
        command.chmod(0o755 if text else 0o644)
    return code


def hook(script: Path, **more: bytes) -> tuple[int, list[str]]:
    """Run the hook; return its exit code, and what it told Slurm."""
    done = subprocess.run(
        [script], env=HOOK | more, capture_output=True, cwd=script.parent, check=False, timeout=60
    )
    assert done.stdout == b""
    told = script.parents[1] / "told"
    return done.returncode, told.read_text().split("|")[:-1] if told.exists() else []


@pytest.mark.parametrize("how", BROKEN)
def test_a_job_without_an_option_starts_whatever_is_broken(script: Path, how: str) -> None:
    broken(script, how)
    assert hook(script, SPANK_QPU_SLURM_QPU=b"", SLURM_JOB_PARTITION=b"quantum") == (0, [])


@pytest.mark.parametrize("how", BROKEN)
def test_a_job_with_an_option_is_put_back_with_the_reason(script: Path, how: str) -> None:
    number = broken(script, how)
    code, told = hook(script, SPANK_QPU_SLURM_QPU=b'"; touch pwned')
    why = f"The prolog of qpu_slurm failed on the controller: qpu-slurm ended with code {number}."
    assert code == 1
    assert told[:4] == ["/etc/slurm.conf", "notify", "17", f"qpu_slurm: {why} Tell your cluster's admin."]
    assert told[4:7] == ["/etc/slurm.conf", "update", "JobId=17+0"]
    [comment] = told[7:]
    assert AdminComment.from_comment(comment.removeprefix("AdminComment=")) == AdminComment(waiting=why)


@pytest.mark.parametrize(("code", "passed_on"), [(0, 0), (NOT_STARTED, 1)])
def test_what_qpu_slurm_decides_is_passed_on(script: Path, code: int, passed_on: int) -> None:
    (script.parents[1] / "qpu-slurm").write_text(f"#!/bin/sh\nexit {code}\n")
    without = {"SPANK_QPU_SLURM_QPU": b"", "SLURM_JOB_PARTITION": b"quantum"}
    assert hook(script) == (passed_on, [])
    assert hook(script, **without) == (passed_on, [])


def test_a_job_without_a_qpu_does_not_start_python(script: Path) -> None:
    assert run(script, HOOK | {"SPANK_QPU_SLURM_QPU": b""}) == {}
