# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm check` on an installation that is right, and on the same with one thing wrong."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from qpu_slurm import cli
from qpu_slurm.admin.check._diagnoses import DIAGNOSES
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
            f"gres_partitions=quantum step_patience=600 config={self.config}\n"
        )

    def program(self, name: str, output: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}END\n")
        path.chmod(0o755)

    def show_config(self, settings: str) -> None:
        self.program("scontrol", settings)

    def make_node(self) -> None:
        """Leave only what a compute node or submit host has; slurmctld must not be asked."""
        for file in ("prolog.sh", "epilog.sh", "slurm/job_submit.lua"):
            (self.root / file).unlink()
        (self.root / "lib").rmdir()
        (self.root / "bin" / "scontrol").write_text(f"#!/bin/sh\ntouch {self.root}/asked\nexit 1\n")
        (self.root / "slurm" / "slurm.conf").write_text(
            f"ClusterName=x\ninclude paths.conf\nPlugStackConfig={self.plugstack()}\n"
        )
        (self.root / "slurm" / "paths.conf").write_text(
            f"plugindir = {self.root}/no:{self.root}/plugins # ours\n"
        )
        self.program("srun", "  --qpu=NAME[,NAME]   the QPU\n")
        self.replace(self.plugstack("quantum.conf"), "required ", "optional ")

    def install_hook(self, hook: str, partitions: str = "quantum") -> None:
        text = (SOURCES / "plugin" / "hooks" / "launch.in").read_text()
        values = {
            "CLIENT": "/bin/sh",
            "RUN": hook,
            "ABOUT": "",
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

    def add_qpu(self, name: str) -> None:
        """Write a QPU into the file that hooks and plugin read."""
        with (self.root / "config.toml").open("a") as file:
            file.write(f'[[qpu]]\nname = "{name}"\n')

    def check(self, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[dict[str, str]]]:
        code = cli.main(["--config", str(self.config), "check", "--json", *options])
        found = json.loads(capsys.readouterr().out)
        return code, found["findings"] if "--node" in options else found


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
    assert (code, {finding["level"] for finding in found}) == (0, {"ok"})
    assert [finding["about"] for finding in found] == [
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
    assert "accounting" not in [finding["about"] for finding in installation.check(capsys)[1]]


def test_people_get_a_line_for_each(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(installation.config), "check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0] == f"ok      configuration: {installation.config}: ibm_fez, ibm_torino"


def test_a_line_ends_with_what_to_do(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    (installation.root / "prolog.sh").chmod(0o644)
    assert cli.main(["--config", str(installation.config), "check"]) == 1
    prolog = installation.root / "prolog.sh"
    line = f"problem PrologSlurmctld: {prolog}: cannot be executed. Write `chmod 755 {prolog}`."
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("option", ["--node", "--submit"])
def test_nothing_is_printed_where_all_is_well(
    installation: Installation, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # What a node does not have, and slurmctld does not have to answer.
    installation.make_node()
    assert cli.main(["--config", str(installation.config), "check", option]) == 0
    assert capsys.readouterr().out == ""
    assert not (installation.root / "asked").exists()


def test_a_configless_node_has_the_files_that_slurmctld_sent(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.make_node()
    sent = installation.root / "sent"
    installation.replace(
        installation.root / "slurm" / "slurm.conf", f"PlugStackConfig={installation.plugstack()}\n", ""
    )
    (installation.root / "slurm").rename(sent)
    monkeypatch.setattr("qpu_slurm.admin.check._slurm._CONFIGLESS", sent / "slurm.conf")
    # What Debian's package has there, which Slurm does not read on such a node.
    installation.plugstack().parent.mkdir()
    installation.plugstack().write_text("include /etc/slurm/plugstack.conf.d/*.conf\n")
    assert cli.main(["--config", str(installation.config), "check", "--node"]) == 0
    assert capsys.readouterr().out == ""


def test_a_host_that_is_no_controller_has_no_hooks(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("prolog.sh", "epilog.sh", "slurm/job_submit.lua"):
        (installation.root / file).unlink()
    (installation.root / "lib").rmdir()
    behind_gateway(ELSEWHERE)(installation)
    settings = SETTINGS.format(root=installation.root, user=os.geteuid(), item="")
    installation.show_config(f"SlurmctldHost[0]        = ctl(10.0.0.1)\n{settings}")
    _, found = installation.check(capsys)
    wrong = [finding["diagnosis"] for finding in found if finding["level"] != "ok"]
    assert wrong == ["munge", "gateway's host"]  # which this test does not have
    [hooks] = [finding["text"] for finding in found if finding["about"] == "hooks"]
    assert "on ctl " in hooks


def each(*damages: Callable[[Installation], object]) -> Callable[[Installation], None]:
    """Do several kinds of damage."""

    def damage(it: Installation) -> None:
        for one in damages:
            one(it)

    return damage


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
        it.replace(it.plugstack("quantum.conf"), "step_patience=600", "step_patience=0")

    return damage


HERE, ELSEWHERE = "http://127.0.0.1:9", "https://gateway.invalid:9"
"""An address of this host, at which nothing answers; and a name that no host has."""


def behind_gateway(url: str, mode: int | None = None) -> Callable[[Installation], None]:
    def damage(it: Installation) -> None:
        key = it.root / "ibm.key"
        if mode is not None:
            key.write_text("a-key-of-nobody")
            key.chmod(mode)
        keys = f'name = "ibm_fez"\ncredentials = "gateway"\nkey_file = "{key}"'
        it.replace(it.config, 'name = "ibm_fez"', keys)
        gateway = (
            f'[gateway]\nurl = "{url}"\nlisten = "127.0.0.1:9"\n[slurm]\nmunge_socket = "{it.root}/munge"'
        )
        it.replace(it.config, "[slurm]", gateway)
        it.replace(it.plugstack("quantum.conf"), "user_credentials=ibm_fez,", "user_credentials=")

    return damage


def own_file_of_the_gateway(it: Installation) -> None:
    """Have hooks and plugin read a file of all hosts, and look at one that only the gateway reads."""
    text = it.config.read_text()
    it.config = it.root / "gateway.toml"
    it.config.write_text(f'keep = "30d"\n{text}')


def left_behind(it: Installation) -> None:
    with Journal(it.root / "lib" / "journal.sqlite") as journal:
        lease = journal.intend(job_id=7, user_id=0, qpu="ibm_fez", expires_at=datetime.now(UTC))
        journal.hold(lease.id, "s", datetime.now(UTC))
        journal.end(7, "over")


def dangling(name: str) -> Callable[[Installation], None]:
    """Have something start a program whose Python was uninstalled."""

    def damage(it: Installation) -> None:
        (it.root / "python").symlink_to("/opt/gone/bin/python3")
        program = it.root / "qpu-slurm"
        program.write_text(f"#!{it.root}/python\n")
        program.chmod(0o755)
        if name == "hook":
            it.replace(it.root / "prolog.sh", "/bin/true", str(program))
        else:
            plugstack_says("config=", f"helper={program} config=")(it)

    return damage


def settings_say(old: str, new: str) -> Callable[[Installation], None]:
    return lambda it: it.replace(it.root / "bin" / "scontrol", old, new)


def configuration_says(old: str, new: str) -> Callable[[Installation], None]:
    return lambda it: it.replace(it.config, old, new)


def one_key_for_both(content: str, mode: int = 0o600) -> Callable[[Installation], None]:
    def damage(it: Installation) -> None:
        key = it.root / "ibm.key"
        key.write_text(content)
        key.chmod(mode)
        shared = f'[defaults]\ncredentials = "gateway"\nkey_file = "{key}"\n'
        it.replace(it.config, "[defaults]\n", shared)
        it.replace(
            it.config, "[slurm]", '[gateway]\nurl = "http://127.0.0.1:9"\nlisten = "127.0.0.1:9"\n[slurm]'
        )
        it.replace(it.plugstack("quantum.conf"), "user_credentials=ibm_fez,ibm_torino", "user_credentials=")

    return damage


class Wrong(NamedTuple):
    """One thing that is wrong: how it comes about, and what has to be said of it."""

    damage: Callable[[Installation], object]
    found: list[str]
    says: str
    remedy: str
    options: tuple[str, ...] = ()


NO_GATEWAY = ["munge", "gateway down"]
"""What else is found where a gateway is configured, which these tests do not start."""

NODE, SUBMIT = ("--node",), ("--submit",)

WRONG = {
    # The configuration and the keys.
    "no configuration": Wrong(
        lambda it: it.config.unlink(), ["config missing"], "is not there", "docs/install.md"
    ),
    "configuration without [gateway]": Wrong(
        configuration_says("[defaults]", '[defaults]\ncredentials = "gateway"\nkey_file = "/k"'),
        ["config wrong", "config wrong"],
        "needs a [gateway] table",
        "Correct ",
    ),
    "configuration is no TOML": Wrong(
        configuration_says("[defaults]", "[defaults"),
        ["config wrong"],
        "is not TOML",
        "docs/configuration.md",
    ),
    "misspelt key": Wrong(
        configuration_says("journal =", "jurnal ="), ["config wrong"], "did you mean 'journal'?", "Correct "
    ),
    "exposed key, which every job gets": Wrong(
        shared_key(0o644),
        ["config insecure", "key exposed", "plugin has"],
        "others can read this credential",
        "chmod 600",
    ),
    "exposed key of two QPUs": Wrong(
        one_key_for_both("a-key", 0o644), ["key exposed", *NO_GATEWAY], "others can read", "chmod 600"
    ),
    "empty key of two QPUs": Wrong(
        one_key_for_both(""), ["key wrong", *NO_GATEWAY], "is empty", "Write the API key into"
    ),
    "no key for the gateway": Wrong(
        behind_gateway(HERE), ["key missing", *NO_GATEWAY], "ibm.key: is not there", "install -m 600 -o"
    ),
    "the gateway's key on another host": Wrong(
        behind_gateway(ELSEWHERE, 0o600),
        ["key elsewhere", "munge", "gateway's host"],
        "belongs on the gateway's host",
        "Remove it from this host",
    ),
    "no shared key on a controller that is not the gateway's host": Wrong(
        each(
            shared_key(0o600),
            lambda it: (it.root / "ibm.key").unlink(),
            configuration_says("[slurm]", f'[gateway]\nurl = "{ELSEWHERE}"\n[slurm]'),
            plugstack_says("user_credentials=ibm_fez,", "user_credentials="),
        ),
        ["config insecure", "munge", "gateway's host"],
        "no host has this name",
        "Correct `url`",
    ),
    "a key of root's": Wrong(
        each(one_key_for_both("a-key"), others_own_it("lib")),
        ["key's owner", "owner", *NO_GATEWAY, "service unreachable"],
        "and 54321 has to read it",
        "chown 54321",
    ),
    "service is away": Wrong(
        each(shared_key(0o600), plugstack_says("user_credentials=ibm_fez,", "user_credentials=")),
        ["config insecure", "service unreachable"],
        "cannot be reached",
        "HTTPS_PROXY",
    ),
    # MUNGE and the gateway; tests/integration/test_check.py has a real one.
    "munged and gateway are down": Wrong(
        one_key_for_both("a-key"),
        [*NO_GATEWAY, "service unreachable"],
        "the connection is refused",
        "systemctl start qpu-slurm-gateway",
    ),
    "no munged": Wrong(
        one_key_for_both("a-key"),
        [*NO_GATEWAY, "service unreachable"],
        "MUNGE made no credential",
        "Start munged",
    ),
    "url and listen name other ports": Wrong(
        each(one_key_for_both("a-key"), lambda it: it.replace(it.config, 'listen = "127.0.0.1:9"', "")),
        ["munge", "gateway's port", "service unreachable"],
        "`listen` names 127.0.0.1:8470, another port",
        "Make the ports of `url` and `listen`",
    ),
    "no such host": Wrong(
        behind_gateway("https://gateway.invalid:8470"),
        ["munge", "gateway's host"],
        "no host has this name",
        "Correct `url`",
    ),
    # The journal and the log.
    "no directory": Wrong(
        lambda it: (it.root / "lib").rmdir(),
        ["directory missing"],
        "lib: is not there",
        "install -d -o",
    ),
    "directory of others": Wrong(others_own_it("lib"), ["owner"], "belongs to", "chown -R 54321"),
    "log of others": Wrong(
        each(
            lambda it: (it.root / "lib" / "hooks.log").touch(mode=0o600),
            lambda it: os.chown(it.root / "lib", 54321, -1),
            others_own_it("lib"),
        ),
        ["owner"],
        "hooks.log: belongs to",
        "chown 54321",
    ),
    "damaged journal": Wrong(
        lambda it: (it.root / "lib" / "journal.sqlite").write_text("no"),
        ["journal damaged"],
        "journal.sqlite",
        "qpu-slurm journal restore",
    ),
    "left behind": Wrong(left_behind, ["session left"], "Job 7 has ended", "qpu-slurm release 7"),
    "no log": Wrong(configuration_says("log = ", "# "), ["no log"], "no log is set", "Set `log`"),
    # Slurm and the hooks.
    "no slurm.conf": Wrong(
        slurm_does_not_answer, ["no slurm.conf"], "slurm.conf: is not there", "Set `conf` in"
    ),
    "no slurmctld": Wrong(
        each(slurm_does_not_answer, lambda it: (it.root / "slurm" / "slurm.conf").touch()),
        ["no answer"],
        "Unable to contact",
        "scontrol ping",
    ),
    "no scontrol": Wrong(
        lambda it: (it.root / "bin" / "scontrol").unlink(),
        ["no commands"],
        "No such file",
        "Set `bin` in [slurm]",
    ),
    "no prolog": Wrong(
        settings_without("Prolog"), ["no hook"], "names no PrologSlurmctld", "PrologSlurmctld=/usr"
    ),
    "no epilog": Wrong(
        settings_without("Epilog"), ["no hook"], "names no EpilogSlurmctld", "EpilogSlurmctld=/usr"
    ),
    "hook is gone": Wrong(
        lambda it: (it.root / "prolog.sh").unlink(),
        ["hook missing"],
        "prolog.sh: is not there, so no job",
        "make -C plugin install",
    ),
    "hook cannot be executed": Wrong(
        lambda it: (it.root / "prolog.sh").chmod(0o644),
        ["hook not executable"],
        "cannot be executed",
        "chmod 755",
    ),
    "another's prolog": Wrong(
        lambda it: (it.root / "prolog.sh").write_text("#!/bin/sh\nexit 0\n"),
        ["hook of others"],
        "does not call our prolog.sh",
        "Have it call prolog.sh",
    ),
    "hooks are mixed up": Wrong(
        lambda it: (it.root / "epilog.sh").write_text((it.root / "prolog.sh").read_text()),
        ["hook of others"],
        "does not call our epilog.sh",
        "Have it call epilog.sh",
    ),
    "hook without a program": Wrong(
        lambda it: it.replace(it.root / "prolog.sh", "/bin/true", "/no/qpu-slurm"),
        ["hook's program"],
        "/no/qpu-slurm, which is not there",
        "QPU_SLURM=",
    ),
    "hook whose program nobody may execute": Wrong(
        lambda it: it.replace(it.root / "prolog.sh", "/bin/true", "/etc/passwd"),
        ["hook's program"],
        "cannot execute: all users need to",
        "Mend the installation of /etc/passwd",
    ),
    "hook whose Python is gone": Wrong(
        dangling("hook"), ["hook's program"], "a link to /opt/gone/bin/python3", "Mend the installation of"
    ),
    "hook with another configuration": Wrong(
        lambda it: it.replace(it.root / "prolog.sh", str(it.config), "/etc/other.toml"),
        ["hook's configuration"],
        "reads /etc/other.toml",
        "CONFIG=",
    ),
    "hook with a file of other QPUs than the gateway's own": Wrong(
        each(one_key_for_both("a-key"), own_file_of_the_gateway, lambda it: it.add_qpu("ibm_kyiv")),
        ["hook's QPUs", "hook's QPUs", "plugin's QPUs", *NO_GATEWAY, "service unreachable"],
        "which has other QPUs than",
        "Write the same QPUs and the same `url` into both files.",
    ),
    "a file of the gateway's own, with the same QPUs": Wrong(
        each(one_key_for_both("a-key"), own_file_of_the_gateway),
        [*NO_GATEWAY, "service unreachable"],
        "the connection is refused",
        "systemctl start qpu-slurm-gateway",
    ),
    "hooks disagree": Wrong(
        each(
            lambda it: it.install_hook("prolog", "other"),
            plugstack_says("gres_partitions=quantum", "gres_partitions=quantum,other"),
        ),
        ["hooks differ"],
        "different partitions",
        "make -C plugin install",
    ),
    "keys in slurmdbd": Wrong(
        settings_say("GresTypes ", "AccountingStoreFlags    = job_comment,job_env\nGresTypes "),
        ["keys in accounting"],
        "the API key of the user, for ibm_fez, ibm_torino",
        "Remove job_env",
    ),
    "two controllers without a gateway": Wrong(
        settings_say(
            "GresTypes ",
            f"SlurmctldHost[0] = {socket.gethostname()}(10.0.0.1)\n"
            "SlurmctldHost[1] = ctl2(10.0.0.2)\nGresTypes ",
        ),
        ["journal of one controller"],
        "and ctl2, and without a gateway",
        "Use a gateway",
    ),
    "no gres": Wrong(settings_without("GresTypes"), ["no gres"], "GresTypes has no qpu", "GresTypes=qpu"),
    "no node has the gres": Wrong(
        lambda it: it.program("sinfo", "quantum|(null)\n"), ["gres of no node"], "No partition", "Gres=qpu:1"
    ),
    "partition unknown to the hooks": Wrong(
        lambda it: it.program("sinfo", "quantum|qpu:1\nbig|gpu:4,qpu:ibm_fez:1\nqpus|gpu:qpu:1\n"),
        ["partition unknown"],
        "big: has the gres qpu",
        "GRES_PARTITIONS=big,quantum",
    ),
    # Licenses.
    "no licenses": Wrong(
        settings_without("Licenses"),
        ["no licenses"],
        "No QPU is a Slurm license",
        "Licenses=ibm_fez:1000,ibm_torino:1000",
    ),
    "a license is missing": Wrong(
        settings_say("ibm_torino,", ""),
        ["license missing"],
        "no license for ibm_torino",
        "Licenses=matlab:2,ibm_fez:1000,ibm_torino:1000",
    ),
    "more licenses than jobs may have": Wrong(
        configuration_says('name = "ibm_fez"', 'name = "ibm_fez"\nexclusive = true'),
        ["license count"],
        "as many licenses for ibm_fez",
        "ibm_fez:1,",
    ),
    "no job requests licenses": Wrong(
        settings_without("JobSubmitPlugins"), ["no job_submit"], "No job requests", "JobSubmitPlugins=lua"
    ),
    "no job_submit.lua": Wrong(
        lambda it: (it.root / "slurm" / "job_submit.lua").unlink(),
        ["no job_submit.lua"],
        "job_submit.lua: is not there",
        "Copy contrib/slurm/job_submit.lua",
    ),
    # The plugin.
    "plugin not named by a controller that hands its files out": Wrong(
        each(
            lambda it: it.plugstack().unlink(),
            settings_say("SlurmUser ", "SlurmctldParameters     = enable_configless\nSlurmUser "),
        ),
        ["plugin not named"],
        "does not name our plugin",
        "qpu-slurm plugstack",
    ),
    "plugin twice": Wrong(
        lambda it: it.plugstack().write_text(it.plugstack().read_text() + "optional qpu_slurm.so qpus=x\n"),
        ["plugin twice"],
        "names our plugin 2 times",
        "qpu-slurm plugstack",
    ),
    "plugin not built": Wrong(
        lambda it: (it.root / "plugins" / "qpu_slurm.so").unlink(),
        ["plugin missing"],
        "which is not in",
        "make -C plugin install",
    ),
    "QPU unknown to the plugin": Wrong(
        plugstack_says(
            "qpus=ibm_torino,ibm_fez user_credentials=ibm_fez,", "qpus=ibm_torino user_credentials="
        ),
        ["plugin lacks"],
        "qpus lacks ibm_fez",
        "on every host",
    ),
    "QPU too many": Wrong(
        plugstack_says("qpus=", "qpus=ibm_kyiv,"), ["plugin has"], "qpus has ibm_kyiv", "plugstack"
    ),
    "key is not published": Wrong(
        plugstack_says("user_credentials=ibm_fez,ibm_torino", "user_credentials=ibm_fez"),
        ["plugin lacks"],
        "user_credentials lacks ibm_torino",
        "plugstack",
    ),
    "other partitions": Wrong(
        plugstack_says("gres_partitions=quantum", "gres_partitions=q"),
        ["plugin's partitions"],
        "differs from the hooks' (quantum)",
        "plugstack",
    ),
    "other patience": Wrong(
        plugstack_says(" step_patience=600", ""),
        ["plugin's patience"],
        "step_patience is not 600, as in [outage]",
        "plugstack",
    ),
    "other configuration": Wrong(
        plugstack_says("config=", "config=/x"), ["plugin's configuration"], "config names /x", "plugstack"
    ),
    "no helper": Wrong(
        plugstack_says("config=", "helper=/no config="),
        ["plugin's helper"],
        "/no, which is not there",
        "plugstack",
    ),
    # Compute nodes and submit hosts.
    "node without the plugin": Wrong(
        each(Installation.make_node, lambda it: (it.root / "plugins" / "qpu_slurm.so").unlink()),
        ["plugin missing"],
        "which is not in",
        "on this host",
        NODE,
    ),
    "node without a line": Wrong(
        each(Installation.make_node, lambda it: it.plugstack().unlink()),
        ["plugin not named"],
        "does not name our plugin",
        "`qpu-slurm plugstack`",
        NODE,
    ),
    "node that requires the plugin": Wrong(
        each(Installation.make_node, plugstack_says("optional ", "required ")),
        ["plugin required"],
        "the node drains",
        "Write `optional`",
        NODE,
    ),
    "node whose commands are gone": Wrong(
        each(Installation.make_node, plugstack_says("config=", "helper=/opt/no/qpu-slurm config=")),
        ["plugin's helper"],
        "/opt/no/qpu-slurm, which is not there",
        "Mend the installation",
        NODE,
    ),
    "node whose Python is gone": Wrong(
        each(Installation.make_node, dangling("plugin")),
        ["plugin's helper"],
        "whose interpreter is gone",
        "Mend the installation",
        NODE,
    ),
    "node without a configuration": Wrong(
        each(Installation.make_node, lambda it: it.config.unlink()),
        ["config missing"],
        "is not there",
        "Write it",
        NODE,
    ),
    "submit host without a line": Wrong(
        each(Installation.make_node, lambda it: it.plugstack().unlink()),
        ["plugin not named"],
        "does not name our plugin",
        "`qpu-slurm plugstack --submit`",
        SUBMIT,
    ),
    "submit host with a plugin for another Slurm": Wrong(
        each(Installation.make_node, lambda it: it.program("srun", "  --qos=QOS\n")),
        ["plugin not loaded"],
        "built for another release of Slurm",
        "make -C plugin clean install",
        SUBMIT,
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_thing_that_is_wrong(
    installation: Installation, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is found, once, with what to do; and nothing else is."""
    wrong = WRONG[name]
    wrong.damage(installation)
    code, found = installation.check(capsys, *wrong.options)
    bad = [finding for finding in found if finding["level"] != "ok"]
    assert [finding["diagnosis"] for finding in bad] == wrong.found, bad
    assert any(wrong.says in finding["text"] and wrong.remedy in finding["remedy"] for finding in bad), bad
    assert code == any(finding["level"] == "problem" for finding in found)


def test_every_diagnosis_has_a_sentence_and_a_remedy() -> None:
    for name, diagnosis in DIAGNOSES.items():
        assert diagnosis.text.strip(), name
        assert diagnosis.remedy.rstrip().endswith((".", ")")), name


def test_a_controller_that_is_no_submit_host_needs_no_plugin(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.plugstack().unlink()
    code, found = installation.check(capsys)
    assert (code, {finding["level"] for finding in found}) == (0, {"ok"})


def test_a_controller_that_hands_the_line_out_needs_no_plugin(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    settings_say("SlurmUser ", "SlurmctldParameters     = enable_configless\nSlurmUser ")(installation)
    plugstack_says("required ", "optional ")(installation)
    (installation.root / "plugins" / "qpu_slurm.so").unlink()
    code, found = installation.check(capsys)
    assert (code, {finding["level"] for finding in found}) == (0, {"ok"})


# A whole partition, with a srun that prints what nodes do; test_missing_plugin.py has a real one.

NODES = "q1|idle\nq2|mixed\nq3|idle\nq4|allocated\nq5|down*\n"

SRUN = """\
echo Welcome to q1
echo '{"node":"q1","findings":[]}'
echo '{"node":"q2","findings":[{"level":"problem","about":"plugin","text":"T.","remedy":"R.",'\
'"diagnosis":"plugin missing"}]}'
echo 'slurmstepd: error: execve(): /opt/qpu-slurm: No such file or directory' >&2
"""


def partition(installation: Installation, srun: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    installation.program("sinfo", NODES)
    program = installation.root / "bin" / "srun"
    program.write_text(f'#!/bin/sh\necho "$@" >{installation.root}/asked\n{srun}')
    program.chmod(0o755)
    assert cli.main(["--config", str(installation.config), "check", "--partition", "quantum"]) == 1
    return capsys.readouterr().out.splitlines()


def test_each_node_of_a_partition_is_named(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = partition(installation, SRUN, capsys)
    program = Path(sys.argv[0]).absolute()
    silent = (
        f"problem q3: {program} printed nothing there (slurmstepd: error: execve(): /opt/qpu-slurm: No such "
        "file or directory). Install the commands on the node (docs/install.md), in the same place."
    )
    assert lines == [
        "warning q4: The node is allocated. Check it when it takes jobs again.",
        "warning q5: The node is down*. Check it when it takes jobs again.",
        "ok      q1: is well",
        "problem q2: plugin: T. R.",
        silent,
    ]
    asked = (installation.root / "asked").read_text().split()
    assert "--nodelist=q1,q2,q3" in asked
    assert asked[-5:] == ["--config", str(installation.config), "check", "--node", "--json"]


def test_what_srun_says_is_repeated(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    said = "echo 'srun: error: Unable to allocate resources: Invalid account' >&2\nexit 1\n"
    assert partition(installation, said, capsys)[-1] == (
        "problem srun: srun: error: Unable to allocate resources: Invalid account. Set what your cluster "
        "asks of srun, such as SLURM_ACCOUNT, and try again."
    )


def test_a_partition_that_slurm_does_not_know(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.program("sinfo", "")
    assert cli.main(["--config", str(installation.config), "check", "--partition", "nowhere"]) == 1
    assert "Slurm names no such partition" in capsys.readouterr().out


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")


def as_nobody(installation: Installation) -> str:
    """Return what `check` prints for a user who may enter every directory above."""
    for directory in (installation.root, installation.root / "slurm", *list(installation.root.parents)[:-2]):
        directory.chmod(0o755)
    (installation.root / "bin").chmod(0o755)
    done = subprocess.run(
        [Path(sys.executable).with_name("qpu-slurm"), "--config", installation.config, "check"],
        user="nobody",
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    return done.stdout


@needs_root
def test_an_ordinary_user_is_told_who_may(installation: Installation) -> None:
    assert "lib: cannot be seen by nobody. Run this as root or root." in as_nobody(installation)


@needs_root
def test_slurmuser_is_not_told_to_become_slurmuser(installation: Installation) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    installation.show_config(SETTINGS.format(root=installation.root, user=nobody, item=""))
    lib = installation.root / "lib"
    assert f"{lib}: cannot be written by nobody. Write `chown -R nobody {lib}`." in as_nobody(installation)


@needs_root
def test_a_configuration_that_only_root_may_read(installation: Installation) -> None:
    installation.config.chmod(0o600)
    (line,) = as_nobody(installation).splitlines()
    assert line.endswith(f"write `chmod 644 {installation.config}`.")


@needs_root
def test_what_slurmuser_cannot_read_is_named_with_what_to_do(installation: Installation) -> None:
    one_key_for_both("a-key")(installation)
    kept = installation.root / "kept"
    kept.mkdir(mode=0o700)
    key = kept / "ibm.key"
    (installation.root / "ibm.key").rename(key)
    installation.replace(installation.config, f"{installation.root}/ibm.key", str(key))
    nobody = pwd.getpwnam("nobody").pw_uid
    installation.show_config(SETTINGS.format(root=installation.root, user=nobody, item=""))
    os.chown(installation.root / "lib", nobody, -1)
    prolog, plugstack = installation.root / "prolog.sh", installation.plugstack("quantum.conf")
    prolog.chmod(0o700)
    plugstack.parent.chmod(0o755)
    plugstack.chmod(0o600)
    said = as_nobody(installation)
    assert f"{kept}: cannot be read by nobody. Write `chown nobody {kept}`." in said
    assert f"{prolog}: cannot be read by nobody (Permission denied). Write `chmod 755 {prolog}`." in said
    assert (
        f"{plugstack}: cannot be read by nobody (Permission denied). Write `chmod 644 {plugstack}`." in said
    )
