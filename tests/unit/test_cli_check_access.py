# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm check` and `qpu-slurm access`, on rules of who may use a QPU."""

from __future__ import annotations

import grp
import os
import pwd
import threading
from typing import TYPE_CHECKING

import pytest

from qpu_slurm import cli, config
from qpu_slurm.admin.access import as_lua
from qpu_slurm.system.directory import Directory
from tests.unit.test_cli_check import SETTINGS, Installation

if TYPE_CHECKING:
    from pathlib import Path

ME, GROUP = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())

RULES = """
[[qpu.access.allow]]
users = ["{user}", 4711]
accounts = ["Physics"]
[[qpu.access.allow]]
groups = ["{group}"]
partitions = ["quantum"]
qos = ["high"]
[[qpu.access.deny]]
users = ["{user}"]
qos = ["high"]
"""


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Return an installation where ibm_torino has rules, and all that they need."""
    monkeypatch.delenv("QISKIT_IBM_TOKEN", raising=False)
    monkeypatch.setattr("qpu_slurm.admin.access.DIRECTORY", Directory())
    monkeypatch.setattr("qpu_slurm.admin.check._access.DIRECTORY", Directory())
    it = Installation(tmp_path)
    with it.config.open("a") as file:
        file.write(RULES.format(user=ME.pw_name, group=GROUP.gr_name))
    enforces(it, "associations,limits,qos")
    it.program("sacctmgr", "physics\nroot\nhigh\nnormal\n")
    write_lua(it)
    return it


def enforces(it: Installation, what: str) -> None:
    settings = SETTINGS.format(root=it.root, user=os.geteuid(), item="")
    it.show_config(f"AccountingStorageEnforce = {what}\n{settings}")
    # Both partitions for the rules, and what the other checks ask for.
    it.program("sinfo", "normal|(null)\nquantum|qpu:1(S:0)\nquantum\nnormal\n")


def write_lua(it: Installation) -> None:
    path = it.root / "slurm" / "qpu_slurm_access.lua"
    path.write_text(lua(it))


def lua(it: Installation) -> str:
    return as_lua(config.load(it.config))


def findings(it: Installation, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Return the level and the diagnosis of all that is said about the rules."""
    _, found = it.check(capsys)
    return [(one["level"], one["diagnosis"]) for one in found if one["about"] == "access"]


def test_rules_that_are_right(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    assert findings(installation, capsys) == [("ok", "ok")]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (f'users = ["{ME.pw_name}"', 'users = ["qpu-slurm-nobody"', ("warning", "access user")),
        (f'groups = ["{GROUP.gr_name}"', 'groups = ["qpu-slurm-none"', ("problem", "access group")),
        ('"Physics"', '"phsics"', ("problem", "access name")),
        ('["high"]\n[[', '["hgih"]\n[[', ("problem", "access name")),
        ('"quantum"]', '"Quantum"]', ("problem", "access name")),
    ],
)
def test_a_name_that_there_is_not(
    installation: Installation,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    expected: tuple[str, str],
) -> None:
    installation.replace(installation.config, old, new)
    write_lua(installation)
    assert findings(installation, capsys) == [expected]


def test_a_budget_of_a_user_who_has_left(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    text = installation.config.read_text()
    for user, expected in ((ME.pw_name, []), ("qpu-slurm-nobody", [("warning", "budget user")])):
        installation.config.write_text(f'{text}\n[[budget]]\nuser = "{user}"\nlimit = "1h"\n')
        _, found = installation.check(capsys)
        assert [(one["level"], one["diagnosis"]) for one in found if one["about"] == "budgets"] == expected


@pytest.mark.parametrize("what", ["none", "associations", "nosteps"])
def test_accounts_and_qos_that_slurm_lets_users_make_up(
    installation: Installation, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    enforces(installation, what)
    expected = [("problem", "access unproven")] * (1 if what == "associations" else 2)
    assert findings(installation, capsys) == expected


def test_accounts_that_cannot_be_listed(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    (installation.root / "bin" / "sacctmgr").unlink()
    assert findings(installation, capsys) == [("warning", "access not compared")] * 2


@pytest.mark.parametrize("lua_file", ["missing", "old", "a directory"])
def test_rules_that_job_submit_does_not_know(
    installation: Installation, capsys: pytest.CaptureFixture[str], lua_file: str
) -> None:
    path = installation.root / "slurm" / "qpu_slurm_access.lua"
    expected = "access at submission"
    if lua_file == "old":
        installation.replace(path, "physics", "maths")
    else:
        path.unlink()
    if lua_file == "a directory":
        path.mkdir()
        expected = "access unreadable"
    assert [diagnosis for _, diagnosis in findings(installation, capsys)] == [expected]


def test_a_directory_of_users_that_does_not_answer(
    installation: Installation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def wait(name: str) -> pwd.struct_passwd:
        go_on.wait(60)
        raise KeyError(name)

    monkeypatch.setattr("qpu_slurm.system.directory._ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(pwd, "getpwnam", wait)
    try:
        assert findings(installation, capsys) == [("problem", "access directory")]
    finally:
        go_on.set()


def test_who_may_is_printed_in_words(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(installation.config), "access"]) == 0
    _, fez, torino = capsys.readouterr().out.splitlines()
    assert " ".join(fez.split()) == "ibm_fez for everyone -"
    user, group = ME.pw_name, GROUP.gr_name
    assert " ".join(torino.split()) == (
        f"ibm_torino for user {user} or 4711 with account Physics or for group {group} in partition quantum "
        f"with QOS high, but not for user {user} with QOS high -"
    )


def test_what_the_rules_mean_for_a_job(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(*options: str) -> list[str]:
        assert cli.main(["--config", str(installation.config), "access", *options]) == 0
        return capsys.readouterr().out.splitlines()

    for user in (ME.pw_name, str(ME.pw_uid)):
        assert ask("--user", user, "--account", "physics") == ["ibm_fez: yes", "ibm_torino: yes"]
    denied = ask("--user", ME.pw_name, "--account", "physics", "--partition", "quantum", "--qos", "high")
    assert denied[0] == "ibm_fez: yes"
    assert denied[1].startswith(
        "ibm_torino: You may not use ibm_torino with account physics in partition quantum with QOS high: "
    )
    assert f"but not for user {ME.pw_name} with QOS high" in denied[1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--user", "qpu-slurm-nobody"], "This host knows no user 'qpu-slurm-nobody'."),
        (["--user", "3999999999"], "This host knows no user '3999999999'."),
        (["--account", "physics"], "name its user with --user."),
    ],
)
def test_a_job_of_no_user(
    installation: Installation, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    assert cli.main(["--config", str(installation.config), "access", *options]) == 1
    assert sentence in capsys.readouterr().err


def test_the_rules_for_job_submit(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(installation.config), "access", "--lua"]) == 0
    said = capsys.readouterr().out
    assert '["ibm_fez"]' not in said
    user = ME.pw_name
    for line in (
        (
            f'{{ text = "user {user} or 4711 with account Physics", '
            f'users = {{ [{ME.pw_uid}] = true, [4711] = true, }}, accounts = {{ ["physics"] = true, }}, }},'
        ),
        (
            f'{{ text = "group {GROUP.gr_name} in partition quantum with QOS high", unsure = true, '
            'partitions = { ["quantum"] = true, }, qos = { ["high"] = true, }, },'
        ),
        "compares = { accounts = true, partitions = true, qos = true, },",
    ):
        assert line in said


def test_what_a_name_has_in_it_is_no_lua(installation: Installation) -> None:
    contact = 'contact = "a\\\\b \\"c\\" ]] .. os.exit() --"'
    before, _, _ = installation.config.read_text().partition("[[qpu.access.allow]]")
    installation.config.write_text(f'{before}[qpu.access]\ndefault = "deny"\n{contact}\n')
    assert 'ask = "Ask a\\\\b \\"c\\" ]] .. os.exit() -- for access.",' in lua(installation)
