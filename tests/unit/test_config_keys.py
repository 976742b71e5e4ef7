# SPDX-License-Identifier: Apache-2.0
"""The file that holds the admin's key: read where nobody else can read it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.config import load
from qpu_slurm.errors import ConfigError
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
KEY = "the-very-secret-key"


def key_file(directory: Path, text: str = f"{KEY}\n", mode: int = 0o600) -> Path:
    path = directory / "key"
    path.write_text(text)
    path.chmod(mode)
    return path


def shared(directory: Path, path: Path) -> str:
    config = directory / "config.toml"
    config.write_text(
        f'[[qpu]]\nname = "ibm_fez"\ninstance = "{CRN}"\ncredentials = "shared"\nkey_file = "{path}"'
    )
    return load(config).qpu("ibm_fez").access(Secret("the user's")).api_key.reveal()


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", f"  {KEY}\r\n\n"])
def test_a_key_file(tmp_path: Path, text: str) -> None:
    assert shared(tmp_path, key_file(tmp_path, text)) == KEY


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (KEY, 0o640, "others can read this credential. Run `chmod 600"),
        (KEY, 0o604, "others can read"),
        (KEY, 0o620, "others can read"),
        ("", 0o600, "is empty"),
        (" \n", 0o600, "is empty"),
        (f"{KEY}\n{KEY}", 0o600, "holds more than an API key"),
        (f"key = {KEY}", 0o600, "holds more than an API key"),
        (f"{KEY}\0", 0o600, "holds more than an API key"),
        (KEY * 1000, 0o600, "is larger than"),
    ],
)
def test_a_key_file_that_is_refused(tmp_path: Path, text: str, mode: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        shared(tmp_path, key_file(tmp_path, text, mode))
    assert KEY not in str(caught.value)


def test_a_link_is_as_open_as_what_it_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(key_file(tmp_path))
    assert shared(tmp_path, link) == KEY
    key_file(tmp_path, mode=0o644)
    with pytest.raises(ConfigError, match="others can read"):
        shared(tmp_path, link)


def test_what_is_no_file_is_no_key_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (pipe, tmp_path, tmp_path / "nothing"):
        with pytest.raises(ConfigError, match=str(path)):
            shared(tmp_path, path)


def test_a_strangers_key_file_is_read_by_root_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_file(tmp_path)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner != 0:  # root's own file is anybody's who can read it
        with pytest.raises(ConfigError, match="belongs to user"):
            shared(tmp_path, path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert shared(tmp_path, path) == KEY
