# SPDX-License-Identifier: Apache-2.0
"""The man pages and the completion have all that `--help` has. In tests/packages, others read them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packages import manual, sample

from qpu_slurm import cli, config
from qpu_slurm.config import Config, GatewayConfig, OutageConfig, QpuConfig, SlurmConfig
from qpu_slurm.runner.main import main as task_runner

if TYPE_CHECKING:
    from collections.abc import Callable

VERBS = [name for name in cli.COMMANDS if name not in manual.FROM_DEVKIT]

OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")

DERIVED = {"path", "slurm", "outage", "gateway", "qpus", "budgets", "warnings", "access_rules", "api_key"}
"""Fields of the configuration that are no keys; docs/rules.md has the table `access`, and budgets."""

CONFIG = """
[defaults]
instance = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
[[qpu]]
name = "ibm_fez"
[[qpu]]
name = "ibm_torino"
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("manual")
    manual.main(root)
    return root


def page(written: Path, name: str) -> str:
    """Return what a reader sees of a page, roughly."""
    text = (written / f"share/man/man{name[-1]}/{name}").read_text()
    return re.sub(r"\\f[BIR]|\\[,/&]", "", text).replace("\\-", "-")


def options(
    run: Callable[[list[str]], object], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> set[str]:
    """Return the options in the help of a command."""
    with pytest.raises(SystemExit):
        run([*arguments, "--help"])
    return set(OPTION.findall(capsys.readouterr().out.partition("options:")[2])) - {"-h", "--help"}


def complete(written: Path, line: str, **environ: str) -> set[str]:
    """Return what bash offers for the last word of a line, which may be empty."""
    command, *_ = words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    script = f"""
        source {written}/share/bash-completion/completions/{command}
        COMP_WORDS=({" ".join(map(shlex.quote, words))}) COMP_CWORD={len(words) - 1}
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
        run=$(complete -p {command} | sed 's/.* -F \\([^ ]*\\).*/\\1/')
        "$run" {command} "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", script],
        env={"PATH": path, **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_a_page_lists_the_commands(written: Path) -> None:
    text = page(written, "qpu-slurm.1")
    assert set(cli.COMMANDS) <= set(re.findall(r"^qpu-slurm ([a-z-]+)$", text, re.MULTILINE))
    for name in VERBS:
        assert f"qpu-slurm-{name}(1)" in text


@pytest.mark.parametrize("verb", VERBS)
def test_a_commands_page_has_its_options(
    written: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page(written, f"qpu-slurm-{verb}.1")
    assert options(cli.main, [verb], capsys) <= set(OPTION.findall(text))
    assert f"qpu-slurm {verb}" in text


def test_task_runners_page_has_its_options_and_exit_codes(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page(written, "task_runner.1")
    found = options(task_runner, [], capsys)
    assert "--output-dir" in found
    assert found <= set(OPTION.findall(text))
    assert ".SH EXIT STATUS" in text
    assert page(written, "qpu-task-runner.1") == text


@pytest.mark.parametrize("struct", [Config, SlurmConfig, OutageConfig, GatewayConfig, QpuConfig])
def test_the_configurations_page_has_its_keys(
    written: Path, struct: type[Config | SlurmConfig | OutageConfig | GatewayConfig | QpuConfig]
) -> None:
    tags = set(re.findall(r"^\.TP\n([\w]+)$", page(written, "qpu_slurm.conf.5"), re.MULTILINE))
    assert set(struct.__struct_fields__) - DERIVED <= tags


def test_bash_completes_commands(written: Path) -> None:
    assert complete(written, "qpu-slurm re") == {"release", "reap", "resume", "report", "rekey"}
    assert set(VERBS) <= complete(written, "qpu-slurm ")


@pytest.mark.parametrize("verb", VERBS)
def test_bash_completes_the_options_of_commands(
    written: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert options(cli.main, [verb], capsys) <= complete(written, f"qpu-slurm {verb} -") | {"-q"}


def test_bash_completes_task_runners_options(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert options(task_runner, [], capsys) <= complete(written, "task_runner -")
    assert complete(written, "qpu-task-runner --any") == {"--any-backend"}


@pytest.mark.parametrize("line", ["task_runner ibm_", "task_runner --final ibm_", "qpu-slurm drain ibm_"])
def test_bash_completes_the_names_of_qpus(written: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)
    names = complete(written, line, QPU_SLURM_CONFIG=str(tmp_path / "config.toml"))
    assert names == {"ibm_fez", "ibm_torino"}


def test_bash_completes_no_name_without_a_configuration(written: Path, tmp_path: Path) -> None:
    assert complete(written, "task_runner ibm_", QPU_SLURM_CONFIG=str(tmp_path / "none.toml")) == set()


@pytest.mark.parametrize(
    "line", ["task_runner ibm_fez {}/inp", "task_runner --json {}/inp", "qpu-slurm --config {}/inp"]
)
def test_bash_completes_files(written: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "input.json").touch()
    assert complete(written, line.format(tmp_path)) == {f"{tmp_path}/input.json"}


def test_the_sample_can_be_used_when_all_of_it_is_uncommented(written: Path, tmp_path: Path) -> None:
    text = (written / "share/qpu_slurm/config.toml").read_text()
    assert all(line.startswith("#") for line in text.splitlines() if line)
    whole = re.sub(r"^#(?=[\[a-z])", "", text, flags=re.MULTILINE)
    (tmp_path / "config.toml").write_text(whole)
    keys = set(re.findall(r"^(\w+) = ", whole, re.MULTILINE))
    for struct in (Config, SlurmConfig, OutageConfig, GatewayConfig, QpuConfig):
        assert set(struct.__struct_fields__) - {*DERIVED, *sample.ALTERNATIVES} <= keys
    assert list(config.load(tmp_path / "config.toml").qpus) == ["ibm_fez"]


def test_the_packages_lock_what_development_locks() -> None:
    root = Path(manual.__file__).parents[1]
    everything = locked(root / "requirements.lock")
    runtime = locked(root / "packages/opt.lock")
    build = locked(root / "packages/build.lock")
    assert {"aiohttp", "msgspec"} <= {name for name, _ in runtime}
    assert runtime.items() <= build.items() <= everything.items()


def locked(path: Path) -> dict[tuple[str, str], frozenset[str]]:
    """Return what a lock names: names with versions, and their hashes."""
    found: dict[tuple[str, str], frozenset[str]] = {}
    for entry in re.split(r"^(?=[a-z])", path.read_text(), flags=re.MULTILINE):
        if named := re.match(r"([\w.-]+)==(\S+)", entry):
            found[named[1], named[2]] = frozenset(re.findall(r"--hash=(\S+)", entry))
    return found
