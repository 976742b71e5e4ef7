# SPDX-License-Identifier: Apache-2.0
"""The table `access`: read, or refused with sentences that say what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm.config import load
from qpu_slurm.config.access import AccessRule, AccessRules
from qpu_slurm.config.digest import digests
from qpu_slurm.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.config import Config

QPU = """
[[qpu]]
name = "ibm_fez"
instance = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
"""


def read(directory: Path, text: str) -> Config:
    path = directory / "config.toml"
    path.write_text(text)
    return load(path)


def problems(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(directory, text)
    return [problem.partition("config.toml: ")[2] for problem in caught.value.problems]


def test_without_rules_everyone_may(tmp_path: Path) -> None:
    assert read(tmp_path, QPU).qpu("ibm_fez").access_rules == AccessRules()
    assert AccessRules().open_to_all


def test_rules(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        QPU
        + r"""
        [qpu.access]
        allow = [{ accounts = ["physics"], partitions = ["quantum"] }, { users = ["ada", 1002] }]
        deny = [{ groups = ["CENTRE\\domain users"], qos = ["low"] }]
        contact = "the quantum team (quantum@centre.example)"
        """,
    )
    assert found.qpu("ibm_fez").access_rules == AccessRules(
        allow=(AccessRule(accounts=("physics",), partitions=("quantum",)), AccessRule(users=("ada", 1002))),
        deny=(AccessRule(groups=("CENTRE\\domain users",), qos=("low",)),),
        default="deny",
        contact="the quantum team (quantum@centre.example)",
    )


def test_the_rules_may_be_tables_with_headers(tmp_path: Path) -> None:
    found = read(
        tmp_path, f'{QPU}[[qpu.access.allow]]\nusers = ["ada"]\n[[qpu.access.allow]]\ngroups = [50]\n'
    )
    assert found.qpu("ibm_fez").access_rules.allow == (AccessRule(users=("ada",)), AccessRule(groups=(50,)))


def test_a_qpus_own_rules_replace_those_of_the_defaults(tmp_path: Path) -> None:
    other = QPU.replace("ibm_fez", "ibm_torino") + '[qpu.access]\nallow = [{ users = ["ada"] }]\n'
    found = read(tmp_path, f'[defaults.access]\ndefault = "deny"\n{QPU}{other}')
    assert found.qpu("ibm_fez").access_rules == AccessRules(default="deny")
    assert found.qpu("ibm_torino").access_rules.allow == (AccessRule(users=("ada",)),)


WRONG = {
    "no table": ("access = 7", "access: expected a table, such as [qpu.access]."),
    "an unknown key": (
        'access = { alow = [{ users = ["a"] }] }',
        "access: unknown key 'alow'; did you mean 'allow'?",
    ),
    "no list": (
        'access = { allow = { users = ["ada"] } }',
        "access: allow: expected a list such as [{ accounts = [\"physics\"] }, …], not {'users': ['ada']}.",
    ),
    "a list of names": (
        'access = { allow = ["ada"] }',
        "access: allow: expected a list such as [{ accounts = [\"physics\"] }, …], not ['ada'].",
    ),
    "an unknown kind": (
        'access = { deny = [{ user = ["ada"] }] }',
        "access: deny 1: unknown key 'user'; did you mean 'users'?",
    ),
    "an empty rule": (
        'access = { allow = [{ users = ["ada"] }, {}] }',
        "access: allow 2: expected at least one of users, groups, accounts, partitions, qos.",
    ),
    "an empty list": (
        "access = { allow = [{ accounts = [] }] }",
        (
            'access: allow 1: accounts: expected a list of names such as ["physics"], with at least one '
            "entry, not []."
        ),
    ),
    "one name": (
        'access = { allow = [{ users = "ada" }] }',
        (
            'access: allow 1: users: expected a list such as ["ada", 1001], by name or number, with at least '
            "one entry, not 'ada'."
        ),
    ),
    "a line in a name": (
        'access = { allow = [{ accounts = ["a\\nb"] }] }',
        (
            'access: allow 1: accounts: expected a list of names such as ["physics"], with at least one '
            "entry, not ['a\\nb']."
        ),
    ),
    "no default": (
        'access = { default = "no" }',
        'access: default: expected "allow" or "deny", not \'no\'.',
    ),
    "a useless list": (
        'access = { default = "allow", allow = [{ users = ["ada"] }] }',
        'access: default = "allow" makes `allow` useless. Remove one of them.',
    ),
    "two lines of contact": (
        'access = { contact = "a\\nb" }',
        (
            'access: contact: expected whom users ask, such as "quantum@centre.example", at most 200 '
            "characters on one line, not 'a\\nb'."
        ),
    ),
}


@pytest.mark.parametrize(("line", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_once(tmp_path: Path, line: str, sentence: str) -> None:
    assert problems(tmp_path, QPU + line) == [f"[[qpu]] 'ibm_fez': {sentence}"]
    assert problems(tmp_path, f"[defaults]\n{line}\n{QPU}") == [f"[defaults] {sentence}"]


def test_only_the_host_that_decides_needs_the_rules(tmp_path: Path) -> None:
    with_rules = digests(read(tmp_path, f'{QPU}access = {{ default = "deny" }}'))
    without = digests(read(tmp_path, QPU))
    assert with_rules.shared == without.shared
    assert with_rules.all != without.all
