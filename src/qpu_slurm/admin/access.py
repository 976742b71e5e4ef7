# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm access`: who may use which QPU, for a person and for job_submit.lua."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from qpu_slurm.admin.tables import printed
from qpu_slurm.config.access import JOB_KEYS, Place
from qpu_slurm.errors import RequestError
from qpu_slurm.leases.access import describe, how_to_ask, refusal, who_may
from qpu_slurm.system.directory import DIRECTORY, Person

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from qpu_slurm.config import Config
    from qpu_slurm.config.access import AccessRule, AccessRules

LUA = "qpu_slurm_access.lua"
"""The file beside job_submit.lua, which reads it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Print who may use each QPU, by the rules of the configuration. With --user, print what they mean "
        "for a job of that user. Run it where the gateway's configuration is, or on the controller without "
        "a gateway. Users see with `qpu-slurm qpus` what they may use."
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--user", metavar="NAME", help="the user of a job, by name or number")
    for key, what in (("account", "account"), ("partition", "partition"), ("qos", "QOS")):
        parser.add_argument(f"--{key}", default="", metavar="NAME", help=f"with --user: the job's {what}")
    form.add_argument(
        "--lua",
        action="store_true",
        help=f"print {LUA}, with which job_submit.lua refuses jobs at submission",
    )


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Do it, and return the exit code."""
    place = Place(arguments.account, arguments.partition, arguments.qos)
    if arguments.user is not None:
        text = for_job(config, arguments.user, place)
    elif place != Place():
        raise RequestError("--account, --partition and --qos describe a job: name its user with --user.")
    else:
        text = as_lua(config) if arguments.lua else as_table(config)
    print(text)  # noqa: T201 - a command
    return 0


def for_job(config: Config, user: str, place: Place) -> str:
    """Say of each QPU whether a job may use it, a line each.

    Args:
        config: What the admin wrote.
        user: The job's user, by name or number.
        place: Where the job runs.

    Raises:
        RequestError: The system knows no such user.
        UnavailableError: Its directory of users does not answer.
    """
    user_id = int(user) if user.isascii() and user.isdigit() else DIRECTORY.user_id(user)
    if user_id is None or DIRECTORY.name_of(user_id) is None:
        raise RequestError(f"This host knows no user {user!r}.")
    person = Person(user_id, DIRECTORY)
    lines = (
        (name, refusal(name, qpu.access_rules, person, [place]) or "yes") for name, qpu in config.qpus.items()
    )
    return "\n".join(f"{name}: {line}" for name, line in lines)


def as_table(config: Config) -> str:
    """Draw who may use each QPU."""
    table = Table("QPU", "who may use it", "whom users ask", box=None, pad_edge=False)
    for name, qpu in config.qpus.items():
        rules = qpu.access_rules
        but = "".join(f", but not for {describe(rule)}" for rule in rules.deny)
        table.add_row(*map(Text, (name, f"{who_may(rules)}{but}", rules.contact or "-")))
    return printed(table)


def as_lua(config: Config) -> str:
    """Write the rules for job_submit.lua, with users by number.

    Raises:
        UnavailableError: The system's directory of users does not answer.
    """
    ruled = {name: qpu.access_rules for name, qpu in config.qpus.items() if not qpu.access_rules.open_to_all}
    lines = ["return {", *(line for name, rules in ruled.items() for line in _qpu(name, rules)), "}"]
    text = "\n".join(lines)
    # The script reads the rest only if the first line has changed.
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"-- Who may use which QPU, by `qpu-slurm access --lua`: {digest}\n{text}"


def _qpu(name: str, rules: AccessRules) -> Iterator[str]:
    compared = {key: "true" for key in JOB_KEYS if any(getattr(rule, key) for rule in rules.rules)}
    yield f"    [{_string(name)}] = {{"
    yield f"        default = {_string(rules.default)},"
    yield f"        who = {_string(who_may(rules))},"
    yield f"        ask = {_string(how_to_ask(rules))},"
    yield f"        compares = {_table(compared)},"
    for key in ("allow", "deny"):
        yield f"        {key} = {{"
        yield from (f"            {_rule(rule)}," for rule in getattr(rules, key))
        yield "        },"
    yield "    },"


def _rule(rule: AccessRule) -> str:
    fields = {"text": _string(describe(rule))}
    users = [user if isinstance(user, int) else DIRECTORY.user_id(user) for user in rule.users]
    if rule.groups or None in users:
        # Only the prolog can tell who is meant.
        fields["unsure"] = "true"
    elif users:
        fields["users"] = _set(map(str, users))
    for key in JOB_KEYS:
        if names := getattr(rule, key):
            # Accounts and QOS are compared in lower case; partitions as they are.
            fields[key] = _set(_string(name if key == "partitions" else name.lower()) for name in names)
    return _table(fields)


def _set(members: Iterable[str]) -> str:
    return "{ " + "".join(f"[{member}] = true, " for member in members) + "}"


def _table(fields: dict[str, str]) -> str:
    return "{ " + "".join(f"{name} = {value}, " for name, value in fields.items()) + "}"


def _string(text: str) -> str:
    # The configuration lets no control character through.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
