# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm check` on an installation that is right, and on the same with one thing wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qpu_slurm import cli
from qpu_slurm.journal.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCES = Path(__file__).parents[2]

CONFIG = """
journal = "{root}/lib/journal.sqlite"
log = "{root}/lib/hooks.log"
[slurm]
conf = "{root}/slurm/slurm.conf"
bin = "{root}/bin"
[defaults]
endpoint = "http://127.0.0.1:9/api/v1"
iam_endpoint = "http://127.0.0.1:9"
instance = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
[[qpu]]
name = "ibm_fez"
[[qpu]]
name = "ibm_torino"
"""

SETTINGS = """\
Configuration data as of 2026-01-01T00:00:00
EpilogSlurmctld{item}      = {root}/epilog.sh
GresTypes               = gpu,qpu
JobSubmitPlugins        = lua
Licenses                = ibm_fez:1000,ibm_torino,matlab:2
LicensesUsed            = ibm_fez:1/1000
PluginDir               = {root}/nowhere:{root}/plugins
PlugStackConfig         = {root}/slurm/plugstack.conf
PrologSlurmctld{item}      = {root}/prolog.sh
SlurmUser               = me({user})

Slurmctld(primary) at here is UP
"""


class Installation:
    """All files of an installation below one directory, Slurm's commands among them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.toml"
        for directory in ("bin", "lib", "plugins", "slurm"):
            (root / directory).mkdir(mode=0o700)
        self.config.write_text(CONFIG.format(root=root))
        self.show_config(SETTINGS.format(root=root, user=os.geteuid(), item=""))
        (root / "slurm" / "job_submit.lua").touch()
        self.program("sinfo", "normal|(null)\nquantum|qpu:1(S:0)\n")
        (root / "plugins" / "qpu_slurm.so").touch()
        for hook in ("prolog", "epilog"):
            self.install_hook(hook)
        self.plugstack().write_text("# ours\ninclude plugstack.conf.d/*.conf\n")
        self.plugstack("quantum.conf").parent.mkdir()
        self.plugstack("quantum.conf").write_text(
            f"required qpu_slurm.so qpus=ibm_torino,ibm_fez user_credentials=ibm_fez,ibm_torino "
            f"gres_partitions=quantum config={self.config}\n"
        )

    def program(self, name: str, output: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}END\n")
        path.chmod(0o755)

    def show_config(self, settings: str) -> None:
        self.program("scontrol", settings)

    def install_hook(self, hook: str, partitions: str = "quantum") -> None:
        text = (SOURCES / "plugin" / "hooks" / "hook.sh.in").read_text()
        values = {
            "HOOK": hook,
            "QPU_SLURM": "/bin/true",
            "CONFIG": self.config,
            "GRES_PARTITIONS": partitions,
            "SCONTROL": "/usr/bin/scontrol",
            "SLURM_CONF": "/etc/slurm/slurm.conf",
        }
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        path = self.root / f"{hook}.sh"
        path.write_text(text)
        path.chmod(0o755)

    def plugstack(self, included: str = "") -> Path:
        path = self.root / "slurm" / "plugstack.conf"
        return path.with_suffix(".conf.d") / included if included else path

    def replace(self, path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def check(self, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[tuple[str, str, str]]]:
        code = cli.main(["--config", str(self.config), "check", "--json"])
        found = json.loads(capsys.readouterr().out)
        return code, [(item["level"], item["about"], item["text"]) for item in found]


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.delenv("QISKIT_IBM_TOKEN", raising=False)
    return Installation(tmp_path)


@pytest.mark.parametrize("item", ["", "[0]"])  # Slurm 22.05; 24.11 and later
def test_an_installation_that_is_right(
    installation: Installation, item: str, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.show_config(SETTINGS.format(root=installation.root, user=os.geteuid(), item=item))
    code, found = installation.check(capsys)
    assert (code, {level for level, _, _ in found}) == (0, {"ok"})
    assert [about for _, about, _ in found] == [
        "configuration",
        "journal",
        "log",
        "PrologSlurmctld",
        "EpilogSlurmctld",
        "plugin",
        "partitions",
        "licenses",
        "ibm_fez",
        "ibm_torino",
    ]
    # It only looks.
    assert list((installation.root / "lib").iterdir()) == []


def test_an_environment_without_keys_may_be_kept(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "AccountingStoreFlags    = job_env\nGresTypes "
    installation.replace(installation.root / "bin" / "scontrol", "GresTypes ", flags)
    shared = '[defaults]\ncredentials = "shared"\nkey_file = "/nowhere/ibm.key"\n'
    installation.replace(installation.config, "[defaults]\n", shared)
    assert "accounting" not in [about for _, about, _ in installation.check(capsys)[1]]


def test_people_get_a_line_for_each(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(installation.config), "check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0] == f"ok      configuration: {installation.config}: ibm_fez, ibm_torino"


def settings_without(name: str) -> Callable[[Installation], None]:
    def damage(it: Installation) -> None:
        lines = SETTINGS.format(root=it.root, user=os.geteuid(), item="").splitlines(keepends=True)
        it.show_config("".join(line for line in lines if not line.startswith(name)))

    return damage


def slurm_does_not_answer(it: Installation) -> None:
    it.program("scontrol", "")
    (it.root / "bin" / "scontrol").write_text(
        "#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n"
    )


def plugstack_says(old: str, new: str) -> Callable[[Installation], None]:
    return lambda it: it.replace(it.plugstack("quantum.conf"), old, new)


def others_own_it(name: str) -> Callable[[Installation], None]:
    def damage(it: Installation) -> None:
        # As good as giving the file away, and an ordinary user can do it: SlurmUser is somebody else.
        it.show_config(SETTINGS.format(root=it.root, user=54321, item=""))
        assert (it.root / name).exists()

    return damage


def shared_key(mode: int) -> Callable[[Installation], None]:
    def damage(it: Installation) -> None:
        key = it.root / "ibm.key"
        key.write_text("a-key-of-nobody")
        key.chmod(mode)
        it.replace(
            it.config, 'name = "ibm_fez"', f'name = "ibm_fez"\ncredentials = "shared"\nkey_file = "{key}"'
        )

    return damage


HERE, ELSEWHERE = "http://127.0.0.1:9", "https://0.0.0.1:9"
"""An address of this host, at which nobody answers; and one that no host has."""


def behind_gateway(url: str, mode: int | None = None) -> Callable[[Installation], None]:
    def damage(it: Installation) -> None:
        key = it.root / "ibm.key"
        if mode is not None:
            key.write_text("a-key-of-nobody")
            key.chmod(mode)
        keys = f'name = "ibm_fez"\ncredentials = "gateway"\nkey_file = "{key}"'
        it.replace(it.config, 'name = "ibm_fez"', keys)
        gateway = f'[gateway]\nurl = "{url}"\n[slurm]\nmunge_socket = "{it.root}/munge"'
        it.replace(it.config, "[slurm]", gateway)
        it.replace(it.plugstack("quantum.conf"), "user_credentials=ibm_fez,", "user_credentials=")

    return damage


def left_behind(it: Installation) -> None:
    from datetime import UTC, datetime  # noqa: PLC0415

    with Journal(it.root / "lib" / "journal.sqlite") as journal:
        lease = journal.intend(job_id=7, user_id=0, qpu="ibm_fez", expires_at=datetime.now(UTC))
        journal.hold(lease.id, "s", datetime.now(UTC))
        journal.end(7, "over")


WRONG: dict[str, tuple[Callable[[Installation], object], str, str, str]] = {
    "no configuration": (lambda it: it.config.unlink(), "problem", "configuration", "cannot be read"),
    "exposed key": (shared_key(0o644), "problem", "key of ibm_fez", "chmod 600"),
    "insecure key": (shared_key(0o644), "warning", "configuration", "ibm_fez"),
    "plugin has a user's key too many": (
        shared_key(0o644),
        "problem",
        "plugin",
        "user_credentials has ibm_fez",
    ),
    "service is away": (shared_key(0o600), "problem", "ibm_fez", "cannot be reached"),
    "gateway is down": (behind_gateway(HERE), "problem", "gateway", "Connection refused. Is qpu"),
    "no munged": (behind_gateway(HERE), "problem", "MUNGE", "Start munged"),
    "no key for the gateway": (behind_gateway(HERE), "problem", "key of ibm_fez", "cannot be read"),
    "exposed key of the gateway": (behind_gateway(HERE, 0o640), "problem", "key of ibm_fez", "chmod 600"),
    "the gateway's key on another host": (
        behind_gateway(ELSEWHERE, 0o600),
        "problem",
        "key of ibm_fez",
        "Remove it here",
    ),
    "on another host": (behind_gateway(ELSEWHERE), "ok", "ibm_fez", "only the gateway has its key"),
    "no directory": (lambda it: (it.root / "lib").rmdir(), "problem", "journal", "install -d"),
    "directory of others": (others_own_it("lib"), "problem", "journal", "chown 54321"),
    "damaged journal": (
        lambda it: (it.root / "lib" / "journal.sqlite").write_text("no"),
        "problem",
        "journal",
        "chmod 600",
    ),
    "left behind": (left_behind, "warning", "journal", "qpu-slurm release 7"),
    "no slurm.conf": (slurm_does_not_answer, "problem", "Slurm", "set `conf` in [slurm]"),
    "a program that SlurmUser cannot run": (
        lambda it: it.replace(it.root / "prolog.sh", "'/bin/true'", "'/etc/passwd'"),
        "problem",
        "PrologSlurmctld",
        "SlurmUser cannot run",
    ),
    "no hook has run": (lambda _: None, "ok", "journal", "restart of slurmctld"),
    "no log": (lambda it: it.replace(it.config, "log = ", "# "), "warning", "log", "`log`"),
    "no log's directory": (
        lambda it: it.replace(it.config, "/lib/hooks.log", "/no/hooks.log"),
        "problem",
        "log",
        "install -d -o",
    ),
    "no slurmctld": (slurm_does_not_answer, "problem", "Slurm", "Unable to contact"),
    "no squeue": (lambda it: (it.root / "bin" / "scontrol").unlink(), "problem", "Slurm", "[slurm]"),
    "no prolog": (settings_without("Prolog"), "problem", "slurm.conf", "PrologSlurmctld="),
    "no epilog": (settings_without("Epilog"), "problem", "slurm.conf", "EpilogSlurmctld="),
    "no gres": (settings_without("GresTypes"), "warning", "slurm.conf", "GresTypes"),
    "keys in slurmdbd": (
        lambda it: it.replace(
            it.root / "bin" / "scontrol",
            "GresTypes ",
            "AccountingStoreFlags    = job_comment,job_env\nGresTypes ",
        ),
        "warning",
        "accounting",
        "the API key of the user, for ibm_fez, ibm_torino. Remove job_env",
    ),
    "no licenses": (settings_without("Licenses"), "warning", "licenses", "ibm_fez:1000,ibm_torino:1000"),
    "a license too few": (
        lambda it: it.replace(it.root / "bin" / "scontrol", "ibm_torino,", ""),
        "problem",
        "licenses",
        "ibm_torino is none",
    ),
    "as many licenses as nobody may have": (
        lambda it: it.replace(it.config, 'name = "ibm_fez"', 'name = "ibm_fez"\nexclusive = true'),
        "warning",
        "licenses",
        "ibm_fez:1,",
    ),
    "nobody asks for licenses": (
        settings_without("JobSubmitPlugins"),
        "warning",
        "licenses",
        "JobSubmitPlugins=lua",
    ),
    "no job_submit.lua": (
        lambda it: (it.root / "slurm" / "job_submit.lua").unlink(),
        "problem",
        "licenses",
        "contrib/slurm/job_submit.lua",
    ),
    "prolog is gone": (lambda it: (it.root / "prolog.sh").unlink(), "problem", "PrologSlurmctld", "read"),
    "another's prolog": (
        lambda it: (it.root / "prolog.sh").write_text("#!/bin/sh\nexit 0\n"),
        "warning",
        "PrologSlurmctld",
        "not ours",
    ),
    "hooks are mixed up": (
        lambda it: (it.root / "epilog.sh").write_text((it.root / "prolog.sh").read_text()),
        "warning",
        "EpilogSlurmctld",
        "not ours",
    ),
    "hook without a program": (
        lambda it: it.replace(it.root / "prolog.sh", "/bin/true", "/no/qpu-slurm"),
        "problem",
        "PrologSlurmctld",
        "QPU_SLURM=",
    ),
    "hook with another configuration": (
        lambda it: it.replace(it.root / "prolog.sh", str(it.config), "/etc/other.toml"),
        "problem",
        "PrologSlurmctld",
        "CONFIG=",
    ),
    "hooks disagree": (lambda it: it.install_hook("prolog", "other"), "problem", "hooks", "different"),
    "no plugin": (lambda it: it.plugstack().unlink(), "warning", "plugin", "qpu-slurm plugstack"),
    "plugin twice": (
        lambda it: it.plugstack().write_text(it.plugstack().read_text() + "optional qpu_slurm.so qpus=x\n"),
        "problem",
        "plugin",
        "twice",
    ),
    "plugin not built": (
        lambda it: (it.root / "plugins" / "qpu_slurm.so").unlink(),
        "problem",
        "plugin",
        "make -C plugin install",
    ),
    "QPU unknown to the plugin": (
        plugstack_says("qpus=ibm_torino,ibm_fez", "qpus=ibm_torino"),
        "problem",
        "plugin",
        "qpus lacks ibm_fez",
    ),
    "QPU too many": (plugstack_says("qpus=", "qpus=ibm_kyiv,"), "problem", "plugin", "qpus has ibm_kyiv"),
    "key is not published": (
        plugstack_says("user_credentials=ibm_fez,ibm_torino", "user_credentials=ibm_fez"),
        "problem",
        "plugin",
        "user_credentials lacks ibm_torino",
    ),
    "other partitions": (
        plugstack_says("gres_partitions=quantum", "gres_partitions=q"),
        "problem",
        "plugin",
        "gres_partitions",
    ),
    "other configuration": (plugstack_says("config=", "config=/x"), "problem", "plugin", "config names /x"),
    "no helper": (plugstack_says("config=", "helper=/no config="), "problem", "plugin", "helper names /no"),
    "partition unknown to the hooks": (
        lambda it: it.program("sinfo", "quantum|qpu:1\nbig|gpu:4,qpu:ibm_fez:1\nqpus|gpu:qpu:1\n"),
        "problem",
        "partitions",
        "GRES_PARTITIONS=big,quantum",
    ),
    "no node has the gres": (
        lambda it: it.program("sinfo", "quantum|(null)\n"),
        "warning",
        "partitions",
        "none has gres qpu",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_thing_that_is_wrong(
    installation: Installation, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, level, about, says = WRONG[name]
    damage(installation)
    code, found = installation.check(capsys)
    assert any(item[:2] == (level, about) and says in item[2] for item in found), found
    assert code == any(item[0] == "problem" for item in found)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_an_ordinary_user_is_told_who_may(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    for directory in (tmp_path, *list(tmp_path.parents)[:-2]):
        directory.chmod(0o755)
    done = subprocess.run(
        [Path(sys.executable).with_name("qpu-slurm"), "--config", installation.config, "check"],
        user="nobody",
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "cannot be entered by nobody. Run this as root or" in done.stdout
