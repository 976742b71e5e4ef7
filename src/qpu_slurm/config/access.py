# SPDX-License-Identifier: Apache-2.0
"""Who may use a QPU: the table `access` of a QPU, or of `[defaults]`.

    [[qpu]]
    name = "ibm_fez"

    [qpu.access]
    allow = [{ accounts = ["physics"], partitions = ["quantum"] }, { users = ["ada"] }]
    deny = [{ groups = ["guests"] }]
    contact = "quantum@centre.example"

A job fits a rule if it fits all of the rule's keys, and a key if it has one of its names. `leases/access.py`
decides.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from qpu_slurm.config.tables import keys_of, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpu_slurm.config.tables import Problems

# Directories have names such as `CENTRE\domain users`. What is let through is shown on terminals.
_Principal = Annotated[str, msgspec.Meta(pattern=r"\A[\w.@+\\$-](?:[\w .@+\\$-]{0,98}[\w.@+\\$-])?\Z")]
_Number = Annotated[int, msgspec.Meta(ge=0, lt=(1 << 32) - 1)]

JOB_KEYS: Final = ("accounts", "partitions", "qos")
"""The keys of a rule that compare what a job chooses; the others compare its user."""

People = Annotated[
    tuple[_Principal | _Number, ...],
    msgspec.Meta(
        min_length=1,
        description='a list such as ["ada", 1001], by name or number, with at least one entry',
        extra={"list": True},
    ),
]
"""Users or groups, as the system knows them."""

SlurmNames = Annotated[
    tuple[Annotated[str, msgspec.Meta(pattern=r"\A[\w.@+-]{1,100}\Z")], ...],
    msgspec.Meta(
        min_length=1,
        description='a list of names such as ["physics"], with at least one entry',
        extra={"list": True},
    ),
]
"""Names that Slurm gives: of accounts, partitions or QOS."""

Contact = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,200}\Z",
        description='whom users ask, such as "quantum@centre.example", at most 200 characters on one line',
    ),
]


class AccessRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Some jobs: those that fit every key. A key that is left out fits every job.

    Attributes:
        users: Users of the system, by name or number.
        groups: Groups of the system, primary and supplementary, by name or number.
        accounts: Slurm's accounts.
        partitions: Slurm's partitions.
        qos: Slurm's qualities of service.
    """

    users: People = ()
    groups: People = ()
    accounts: SlurmNames = ()
    partitions: SlurmNames = ()
    qos: SlurmNames = ()

    @property
    def compares_jobs(self) -> bool:
        """Whether it compares what a job chooses, and not only who its user is."""
        return any(getattr(self, key) for key in JOB_KEYS)

    @cached_property
    def members(self) -> Mapping[str, frozenset[str | int]]:
        """The names of each key, to look one up among thousands.

        Accounts and QOS are in lower case, as slurmdbd has them; see `Place`.
        """
        lower = {key: frozenset(name.lower() for name in getattr(self, key)) for key in ("accounts", "qos")}
        return {key: frozenset(getattr(self, key)) for key in ("users", "groups", "partitions")} | lower


class AccessRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may use a QPU.

    Attributes:
        allow: The jobs that may.
        deny: The jobs that may not, whatever `allow` says.
        default: What is true for all other jobs.
        contact: Whom users ask for access; empty for the cluster's admin.
    """

    allow: tuple[AccessRule, ...] = ()
    deny: tuple[AccessRule, ...] = ()
    default: Literal["allow", "deny"] = "allow"
    contact: Contact = ""

    @property
    def rules(self) -> tuple[AccessRule, ...]:
        """All rules."""
        return *self.allow, *self.deny

    @property
    def compares_jobs(self) -> bool:
        """Whether they compare what a job chooses, and not only who its user is."""
        return any(rule.compares_jobs for rule in self.rules)

    @property
    def open_to_all(self) -> bool:
        """Whether every job may use the QPU."""
        return not self.deny and self.default == "allow"


class Place(msgspec.Struct, frozen=True):
    """Where in Slurm a job runs: what a rule is compared with. A heterogeneous job has one per component.

    Attributes:
        account: Slurm's account of the job; empty if it has none.
        partition: Its partition.
        qos: Its quality of service; empty if it has none.
    """

    account: str = ""
    partition: str = ""
    qos: str = ""


def read_access(table: Any, where: str, problems: Problems) -> AccessRules:  # noqa: ANN401 - from TOML
    """Read a table `access`; add what is wrong as problems.

    Args:
        table: What the key `access` has.
        where: The place in the file, such as `[[qpu]] 'ibm_fez': `.
        problems: The file's problems.
    """
    keys = keys_of(AccessRules)
    plain = {name: name for name in keys if name not in {"allow", "deny"}}
    if not isinstance(table, dict):
        problems.add(f"{where}access: expected a table, such as [qpu.access].")
        return AccessRules()
    problems.unknown_keys(table, f"{where}access: ", keys)
    fields = problems.fields(AccessRules, table, f"{where}access: ", plain)
    for name in ("allow", "deny"):
        fields[name] = _read_rules(table.get(name, []), f"{where}access: {name}", problems)
    if fields["allow"] and table.get("default") == "allow":
        problems.add(f'{where}access: default = "allow" makes `allow` useless. Remove one of them.')
    if fields["allow"]:
        fields["default"] = "deny"
    return AccessRules(**fields)


def _read_rules(tables: Any, where: str, problems: Problems) -> tuple[AccessRule, ...]:  # noqa: ANN401 - likewise
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.add(
            f'{where}: expected a list such as [{{ accounts = ["physics"] }}, …], not {quote(tables)}.'
        )
        return ()
    keys = keys_of(AccessRule)
    rules = []
    for number, table in enumerate(tables, 1):
        rules.append(AccessRule(**problems.table(AccessRule, table, f"{where} {number}: ", keys)))
        if not table:
            problems.add(f"{where} {number}: expected at least one of {', '.join(keys)}.")
    return tuple(rules)
