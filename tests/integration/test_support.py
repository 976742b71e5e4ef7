# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm support`: one file that a maintainer can use, and that has no credential in it."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from qpu_slurm.journal.journal import Journal
from qpu_slurm.system.secret import Secret
from qpu_slurm.system.version import __version__
from tests.integration.gateway_site import PROGRAM, SECONDS

if TYPE_CHECKING:
    from pathlib import Path

ADMINS_KEY = "admins-key-Lq3vT9"
USERS_KEY = "users-key-Zr8wK2"
EXPORTED_KEY = "exported-key-Nd5sB7"
TOKEN = "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl"
ACCOUNT = "0123456789abcdef"
INSTANCE = "fedcba98-instance"
UPSTREAM = "upstream-key-Mx4cD1"

CONFIG = f"""
journal = "{{directory}}/journal.sqlite"
log = "{{directory}}/hooks.log"
[slurm]
conf = "{{directory}}/slurm.conf"
bin = "{{directory}}"
[defaults]
instance = "crn:v1:bluemix:public:quantum-computing:us-east:a/{ACCOUNT}:{INSTANCE}::"
endpoint = "http://127.0.0.1:9/api/v1"
iam_endpoint = "http://127.0.0.1:9"
[[qpu]]
name = "ibm_fez"
[[qpu]]
name = "ibm_torino"
"""

SHARED = """
[[qpu]]
name = "shared"
credentials = "shared"
key_file = "{directory}/key"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Make an installation with a credential in each place where one may be."""
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text(f"{ADMINS_KEY}\n")
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(directory=tmp_path))
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.intend(
            job_id=1,
            user_id=os.getuid(),
            qpu="ibm_torino",
            api_key=Secret(USERS_KEY),
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )
    return path


def support(config: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROGRAM, "--config", config, "support", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        cwd=config.parent,
        env=os.environ | {"QISKIT_IBM_TOKEN": EXPORTED_KEY},
    )
    assert done.returncode == code, done.stderr
    return done


def collected(config: Path) -> dict[str, Any]:
    support(config, "--output", config.parent / "support.json")
    document: dict[str, Any] = json.loads((config.parent / "support.json").read_text())
    return document


def test_the_file_has_no_credential(config: Path) -> None:
    with config.open("a") as file:
        file.write(SHARED.format(directory=config.parent))
    lines = [
        {"level": "error", "event": f"Authorization: Bearer {TOKEN}", "api_key": ADMINS_KEY},
        {"level": "warning", "event": f"apikey={USERS_KEY} was refused"},
        {"level": "info", "event": "not worth a line"},
    ]
    (config.parent / "hooks.log").write_text("".join(json.dumps(line) + "\n" for line in lines) + "no JSON\n")
    document = collected(config)
    text = (config.parent / "support.json").read_text()
    for secret in (ADMINS_KEY, USERS_KEY, EXPORTED_KEY, TOKEN, ACCOUNT, INSTANCE):
        assert secret not in text
    (found,) = document["log"].values()
    assert [line["level"] for line in found] == ["error", "warning"]
    assert document["configuration"]["qpus"]["shared"]["credentials"] == "shared"
    assert document["configuration"]["qpus"]["ibm_fez"]["instance"] == (
        "crn:v1:bluemix:public:quantum-computing:us-east:***:***::"
    )
    assert (config.parent / "support.json").stat().st_mode & 0o777 == 0o600


def test_it_says_what_a_maintainer_asks_first(config: Path) -> None:
    document = collected(config)
    assert document["versions"]["qpu_slurm"] == __version__
    assert document["versions"]["packages"]["msgspec"]
    assert document["journal"]["leases acquiring"] == 1
    assert document["journal"]["bytes"] > 0
    assert {"diagnosis", "level", "text"} <= document["findings"][0].keys()


def test_a_broken_installation_is_described_too(config: Path) -> None:
    (config.parent / "journal.sqlite").unlink()
    document = collected(config)
    assert "journal" in document["journal"]
    assert "No such file" in next(iter(document["log"].values()))
    assert "scontrol" in document["versions"]["slurm"]
    (config.parent / "support.json").unlink()
    config.write_text(f'api_key = "{UPSTREAM}"\n')
    document = collected(config)
    assert str(config) in document["configuration"]
    assert UPSTREAM not in json.dumps(document)


def test_a_file_that_is_there_is_left_alone(config: Path) -> None:
    target = config.parent / "elsewhere"
    target.write_text("kept")
    link = config.parent / "support.json"
    link.symlink_to(target)
    done = support(config, "--output", link, code=1)
    assert "File exists" in done.stderr
    assert target.read_text() == "kept"


def test_without_a_name_the_file_is_made_here(config: Path) -> None:
    name, _, summary = support(config).stdout.partition(": ")
    assert json.loads((config.parent / name).read_text())["made_at"]
    assert "log lines" in summary
