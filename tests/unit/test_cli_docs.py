# SPDX-License-Identifier: Apache-2.0
"""The reference names everything that there is, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qpu_slurm import cli, config
from qpu_slurm.admin.budget import show as budget_keys
from qpu_slurm.admin.report.show import COLUMNS
from qpu_slurm.admin.timeline.chart import Bar, JobRows, Row, Workflow
from qpu_slurm.config import (
    ComputeServiceQpu,
    Config,
    GatewayConfig,
    OutageConfig,
    QuantumSystemQpu,
    SlurmConfig,
)
from qpu_slurm.config.budgets import KEYS, BudgetsConfig
from qpu_slurm.journal.model import Lease, LeaseState
from qpu_slurm.system.durations import parse_duration

if TYPE_CHECKING:
    import msgspec

DOCS = Path(__file__).parents[2] / "docs"

SECTIONS = {
    "At the top": (Config, {"path", "slurm", "outage", "gateway", "qpus", "budgets", "warnings"}),
    "[slurm]": (SlurmConfig, set()),
    "[outage]": (OutageConfig, set()),
    "[gateway]": (GatewayConfig, set()),
    "[budgets]": (BudgetsConfig, {"standing"}),
    "[[qpu]] and [defaults]": (ComputeServiceQpu, {"access_rules", "api_key"}),
    "QPUs on your own premises": (
        QuantumSystemQpu,
        # As for any other QPU, or only in upstream's configuration.
        {
            "access_rules",
            "api_key",
            "s3_secret",
            "name",
            "backend",
            "instance",
            "key_file",
            "iam_endpoint",
            "session",
            "exclusive",
            "max_leases",
            "starts_at_once",
            "attributes",
        },
    ),
}


JSON = {
    "A lease, as JSON": (*Lease.__struct_fields__, "sessions", "use"),
    "A row of a report": tuple(COLUMNS),
    "budget": budget_keys.COLUMNS,
    "A workflow, as JSON": Workflow.__struct_fields__,
}


def section(name: str, file: str) -> str:
    text = (DOCS / file).read_text()
    return re.split(r"^##+ ", text.split(f"# {name}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_stands_in_the_reference_with_its_default(name: str) -> None:
    struct, others = SECTIONS[name]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", section(name, "configuration.md"), re.MULTILINE)
    assert {key for key, _ in rows} == set(struct.__struct_fields__) - others
    defaults = dict(zip(struct.__struct_fields__[::-1], struct.__struct_defaults__[::-1], strict=False))
    for key, written in rows:
        if not written.startswith("`"):  # in words: required, none, the name
            continue
        value = tomllib.loads(f"value = {written.strip('`')}")["value"]
        default = defaults[key]
        if isinstance(default, int) and isinstance(value, str):
            value = parse_duration(value)
        assert value == (str(default) if isinstance(default, Path) else default), key


def test_every_key_of_a_budget_stands_in_the_reference() -> None:
    text = section("[[budget]]", "configuration.md")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(KEYS)


def test_the_example_can_be_used(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    path = tmp_path / "config.toml"
    path.write_text(example.replace("a/…:…::", "a/1:2::"))
    loaded = config.load(path)
    assert list(loaded.qpus) == ["ibm_fez", "torino"]


def test_every_command_and_option_stands_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "qpu-slurm.md").read_text()
    for name in cli.COMMANDS:
        assert f"\n### {name}\n" in text
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        out = capsys.readouterr().out
        if name not in {"demo", "emulator"}:  # they are for trying things out: their --help is the reference
            missing = {option for option in re.findall(r"--[a-z-]+", out) if option not in text}
            assert not missing


@pytest.mark.parametrize("name", JSON)
def test_every_key_of_json_stands_in_the_reference(name: str) -> None:
    keys = re.findall(r"^\| (`.+?`) \|", section(name, "qpu-slurm.md"), re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", " ".join(keys))) == JSON[name]


@pytest.mark.parametrize("struct", [JobRows, Row, Bar])
def test_what_a_workflow_is_made_of_stands_in_the_reference(struct: type[msgspec.Struct]) -> None:
    described = section("A workflow, as JSON", "qpu-slurm.md")
    assert set(struct.__struct_fields__) <= set(re.findall(r"`(\w+)`", described))


def test_every_state_stands_in_the_reference() -> None:
    assert set(re.findall(r"^\| `(\w+)`", section("leases", "qpu-slurm.md"), re.MULTILINE)) == set(LeaseState)
