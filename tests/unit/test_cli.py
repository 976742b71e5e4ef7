# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qpu_slurm import cli
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseState

CONFIG = """
journal = "{directory}/lib/journal.sqlite"
[slurm]
bin = "{directory}"
[defaults]
instance = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
[[qpu]]
name = "ibm_fez"
[[qpu]]
name = "ibm_torino"
credentials = "shared"
key_file = "{directory}/ibm.key"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(directory=tmp_path))
    return path


@pytest.fixture
def journal(config: Path) -> Path:
    """Write down three leases: one held, one that is over, and one that could not be ended."""
    path = config.parent / "lib" / "journal.sqlite"
    with Journal(path) as journal:
        for job_id, qpu in ((1, "ibm_fez"), (2, "ibm_torino"), (3, "ibm_fez")):
            later = datetime.now(UTC) + timedelta(hours=1)
            lease = journal.intend(job_id=job_id, user_id=0, qpu=qpu, expires_at=later)
            journal.hold(lease.id, f"session-{job_id}", later)
        journal.finish(2, LeaseState.RELEASED, "The job ended.")
        journal.end(3, "The job ended.")
        journal.postpone(3, "The [service] is away.")
    return path


def run(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run("--help")
    out = capsys.readouterr().out
    assert "examples:" in out
    for name, command in cli.COMMANDS.items():
        assert f"    {name} " in out
        assert command.summary in out


@pytest.mark.parametrize(
    "command", [("drain", "ibm_fez", "--reason", "New fridge."), ("resume", "ibm_fez"), ("release", "1")]
)
def test_who_can_write_neither_log_nor_journal_reads_of_the_journal_alone(
    config: Path, capfd: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    # As an ordinary user's would: neither can be opened.
    text = config.read_text().replace(f'"{config.parent}/lib/journal.sqlite"', '"/dev/null/journal.sqlite"')
    config.write_text(f'log = "/dev/null/hooks.log"\n{text}')
    assert run("--config", config, *command) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines
    assert [line for line in lines if not line.startswith("qpu-slurm: ") or "hooks.log" in line] == []


def test_a_log_that_cannot_be_written_is_reported_when_all_is_done(
    config: Path, journal: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config.write_text(f'log = "/dev/null/hooks.log"\n{config.read_text()}')
    assert run("--config", config, "unblock", "0") == 0
    assert journal.exists()
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("qpu-slurm: /dev/null/hooks.log: the log cannot be written (")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(command, "--help")
    assert f"usage: qpu-slurm {command}" in capsys.readouterr().out


def test_a_word_that_is_another_commands_name_asks_for_nothing_of_that_one(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Where the devkit is not installed, "demo" may be a QPU's name all the same.
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: ())
    assert run("--config", config, "drain", "demo", "--reason", "New fridge.") == 1
    assert "demo" in capsys.readouterr().err
    assert run("demo") == 1
    assert "qpu_slurm_devkit" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["hock"],
        ["hook"],
        ["hook", "start"],
        ["job-env"],
        ["job-env", "7; reboot"],
        ["job-env", "-1"],
        ["job-env", "٣"],  # a digit, but not one of ours
        ["job-env", "4294967296"],
        ["job-env", "9" * 10_000],
        ["job-env", "7", "--step", "extern"],
        ["job-env", "7", "--at", "now"],
        ["step-end", "7"],
        ["step-end", "7", "0"],
        ["step-end", "7", "../leases", "--at", "0"],
        ["step-end", "7", "0\n", "--at", "0"],
        ["step-end", "7", "0", "--at", "-1"],
        ["step-end", "7", "0", "--at", "nan"],
        ["release", "all"],
        ["leases", "0"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)
    assert "usage: qpu-slurm" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["leases"], ["release", "7"], ["plugstack"], ["hook", "prolog"]])
def test_a_wrong_configuration_is_told_whole_and_without_a_traceback(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("acquire_at = 1\nlog_level = 7\n")
    assert run("--config", path, *command) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith(f"qpu-slurm: {path}: ") for line in lines)


def test_a_step_is_told_of_a_wrong_configuration_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--config", tmp_path / "missing.toml", "job-env", "7") == 0
    out = capsys.readouterr().out
    assert out.startswith("error: ")
    assert "missing.toml" in out
    assert out.count("\n") == 1


def test_a_step_is_told_of_a_slurm_that_is_not_there(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--config", config, "job-env", "7") == 0
    out = capsys.readouterr().out
    assert out.startswith("error: ")
    assert "squeue" in out


SILENCE = {
    "slurmctld": "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    "munged": "squeue: error: Munge encode failed: Failed to connect to /run/munge/munge.socket.2",
    "a busy slurmctld": "slurm_load_jobs error: Socket timed out on send/recv operation",
}


@pytest.mark.parametrize("said", SILENCE.values(), ids=SILENCE)
@pytest.mark.parametrize("options", [(), ("--unasked",)], ids=["asked", "unasked"])
def test_a_step_waits_for_a_slurm_that_does_not_answer(
    config: Path, said: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    squeue = config.with_name("squeue")
    squeue.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    squeue.chmod(0o755)
    assert run("--config", config, "job-env", "7", *options) == os.EX_TEMPFAIL
    out = capsys.readouterr().out
    assert out.startswith(f"wait: {os.uname().nodename}: squeue failed: {said}")
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "printed"), [((), "error: "), (("--unasked",), "")], ids=["asked", "unasked"]
)
def test_a_step_does_not_wait_for_a_slurm_that_refuses(
    config: Path, options: tuple[str, ...], printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    squeue = config.with_name("squeue")
    squeue.write_text("#!/bin/sh\necho 'squeue: error: Invalid user' >&2\nexit 1\n")
    squeue.chmod(0o755)
    assert run("--config", config, "job-env", "7", *options) == 0
    out = capsys.readouterr().out
    assert out.startswith(printed)
    assert bool(out) == bool(printed)


def test_an_end_that_cannot_be_told_is_an_error(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--config", config, "step-end", "7", "0", "--at", "1700000000.123") == 1
    assert "squeue" in capsys.readouterr().err


def test_plugstack_prints_the_line_that_fits(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run("--config", config, "plugstack", "--plugin", "/x/qpu_slurm.so", "--gres-partitions", "q,r") == 0
    )
    kind, plugin, *arguments = capsys.readouterr().out.split()
    # A node without the plugin must run the jobs that have no use for it.
    assert (kind, plugin) == ("optional", "/x/qpu_slurm.so")
    assert arguments == [
        "qpus=ibm_fez,ibm_torino",
        "user_credentials=ibm_fez",
        "gres_partitions=q,r",
        "step_patience=0",
        f"helper={Path(sys.argv[0]).absolute()}",
        f"config={config}",
    ]


@pytest.mark.parametrize(
    ("outage", "credentials", "patience"),
    [
        ("", "gateway", 600),
        ('[outage]\nstep_patience = "90s"\n', "gateway", 90),
        ("[outage]\nstep_patience = 0\n", "gateway", 0),
        # Only root reads such a key, and a step waits as its user.
        ("", "shared", 0),
    ],
)
def test_plugstack_says_how_long_a_step_waits(
    config: Path, outage: str, credentials: str, patience: int, capsys: pytest.CaptureFixture[str]
) -> None:
    text = config.read_text().replace("shared", credentials).replace("[defaults]", f"{outage}[defaults]")
    gateway = '[gateway]\nurl = "https://controller:8470"\n' if credentials == "gateway" else ""
    config.write_text(f"{text}{gateway}")
    assert run("--config", config, "plugstack") == 0
    assert f" step_patience={patience} " in capsys.readouterr().out


def test_plugstack_prints_another_line_for_submit_hosts(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    for arguments in ([], ["--submit"]):
        assert run("--config", config, "plugstack", *arguments) == 0
        lines.append(capsys.readouterr().out.split())
    nodes, submit = lines
    assert (nodes[0], submit[0]) == ("optional", "required")
    assert nodes[1:] == submit[1:]


def test_no_argument_is_printed_that_would_be_empty(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text().replace('name = "ibm_fez"\n[[qpu]]\n', ""))
    assert run("--config", config, "plugstack", "--gres-partitions", "") == 0
    out = capsys.readouterr().out
    assert "user_credentials" not in out
    assert "gres_partitions" not in out
    assert out.count("\n") == 1


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [([], [1, 3]), (["--all"], [1, 2, 3]), (["3"], [3]), (["2"], [2]), (["2", "--all"], [2])],
)
def test_leases_are_shown(
    config: Path, arguments: list[str], jobs: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--config", config, "leases", "--json", *arguments) == 0
    leases = json.loads(capsys.readouterr().out)
    assert [lease["job_id"] for lease in leases] == jobs

    assert run("--config", config, "leases", *arguments) == 0
    out = capsys.readouterr().out
    rows = out.splitlines()[1:] if jobs else []
    assert [int(row.split()[0]) for row in rows] == jobs
    assert jobs or out == "No leases.\n"


@pytest.mark.usefixtures("journal")
def test_what_could_not_be_released_says_why(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--config", config, "leases", "3")
    [row] = capsys.readouterr().out.splitlines()[1:]
    assert row.split()[1:6] == ["root", "ibm_fez", "releasing", "-", "session-3"]
    assert "not released yet: The [service] is away." in row


@pytest.mark.usefixtures("journal")
def test_reap_ends_what_it_can_and_says_what_it_cannot(
    config: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--config", config, "reap") == 1
    out = capsys.readouterr().out
    assert "job 3 (root), ibm_fez: not released yet: " in out
    assert "2 leases: 1 to be ended, 1 left to their jobs." in out
    assert "Slurm could not be asked" in out
    assert run("--config", config, "reap", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["leases"], len(report["reaped"]), report["left"]) == (2, 1, 0)
    with Journal(journal) as opened:
        assert opened.lease(1).state is LeaseState.HELD


READERS = [
    *(["leases"], ["leases", "7", "--all", "--json"], ["report"], ["reap"]),
    *(["reap", "--sessions"], ["reap", "--end", "s-1"]),
    ["journal", "backup", "copy.sqlite"],
]
GATEWAY = '[gateway]\nurl = "http://127.0.0.1:7"\n'


@pytest.mark.parametrize(
    ("arguments", "gateway"),
    # With a gateway, that is asked by the other three.
    [*((reader, "") for reader in [*READERS, ["qpus"], ["release", "7"], ["timeline", "7"]])]
    + [(reader, GATEWAY) for reader in READERS],
)
def test_where_there_is_no_journal_none_is_made(
    config: Path, arguments: list[str], gateway: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty one would answer that nobody holds anything, while the one that counts is elsewhere."""
    config.write_text(config.read_text() + gateway)
    assert run("--config", config, *arguments) == 1
    [line] = capsys.readouterr().err.splitlines()
    where = "the host of the gateway http://127.0.0.1:7" if gateway else "the controller"
    assert f"There is no journal {config.parent}/lib/journal.sqlite. It is on {where}" in line
    assert ("no job has had a QPU yet" in line) == (not gateway)
    assert not (config.parent / "lib").exists()


def test_rekey_without_a_gateway_does_not_send_the_admin_to_its_host(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--config", config, "rekey") == 1
    assert capsys.readouterr().err.startswith("qpu-slurm: The configuration names no gateway")


@pytest.mark.usefixtures("journal")
def test_release_of_what_is_not_held_says_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--config", config, "release", "4711") == 0
    assert capsys.readouterr().out == "Job 4711 holds no QPU.\n"


def test_release_tells_what_could_not_be_released(
    config: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The key is missing, so nobody can be asked to end the session.
    assert run("--config", config, "release", "1", "--reason", "The node burns.") == 1
    out = capsys.readouterr().out
    assert out.startswith("ibm_fez: releasing: ")
    assert "QISKIT_IBM_TOKEN" in out
    with Journal(journal) as opened:
        [lease] = opened.leases(job_id=1)
    assert (lease.state, lease.reason) == (LeaseState.RELEASING, "The node burns.")


def test_a_journal_that_cannot_be_read_is_an_error_in_one_sentence(
    config: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.write_bytes(b"no journal")
    assert run("--config", config, "leases") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"qpu-slurm: {journal} is no journal")


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qpu_slurm.cli", *arguments],
        env={"PATH": os.defpath, **environ},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("hook", ["prolog", "epilog"])
def test_a_hook_that_is_none_fails_and_logs_why(config: Path, hook: str) -> None:
    run = command("--config", str(config), "hook", hook)
    assert (run.returncode, run.stdout) == (1, "")
    event = json.loads(run.stderr)
    assert event["event"] == f"{hook} failed"
    assert "SLURM_JOB_ID" in event["why"]


def test_the_configuration_comes_from_the_environment_too(config: Path) -> None:
    run = command("plugstack", QPU_SLURM_CONFIG=str(config))
    assert f"config={config}" in run.stdout


def test_a_log_that_cannot_be_written_does_not_stop_a_hook(config: Path) -> None:
    config.write_text(f'log = "{config.parent}/no/hooks.log"\n{config.read_text()}')
    run = command("--config", str(config), "hook", "epilog", SLURM_JOB_ID="7", SLURM_JOB_UID="0")
    assert run.returncode == 0
    first, *_, last = map(json.loads, run.stderr.splitlines())
    assert "hooks.log" in first["why"]
    assert (last["event"], last["job_id"], last["leases"]) == ("released", 7, {})


def test_who_reads_may_go(config: Path, journal: Path) -> None:
    with Journal(journal) as opened:
        for job_id in range(10, 2000):
            opened.intend(job_id=job_id, user_id=0, qpu="ibm_fez", expires_at=datetime.now(UTC))
    script = f"{sys.executable} -m qpu_slurm.cli --config {config} leases --json | head -n 1"
    run = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=240, check=True)
    assert (run.stdout, run.stderr) == ("[\n", "")


def test_a_command_imports_only_what_it_needs(config: Path) -> None:
    program = (
        "import sys\n"
        "from qpu_slurm import cli\n"
        "cli.main(sys.argv[1:])\n"
        "print(*{'requests', 'rich', 'aiohttp', 'qiskit', 'sqlite3'} & sys.modules.keys(), file=sys.stderr)"
    )
    arguments = ["--config", str(config), "plugstack"]
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=240, check=True
    )
    assert run.stderr == "\n"


@pytest.mark.parametrize("command", ["demo", "emulator"])
def test_what_is_for_trying_out_says_what_it_needs(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: ())
    assert cli.main([command]) == 1
    assert "needs the Python package qpu_slurm_devkit" in capsys.readouterr().err
