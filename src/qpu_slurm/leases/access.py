# SPDX-License-Identifier: Apache-2.0
"""Whether a job may use a QPU, by the admin's rules (`config/access.py`).

The rules are pure: what the system knows of the user is asked through `Person`, and only if a rule needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qpu_slurm.config.access import JOB_KEYS, Place
from qpu_slurm.errors import RequestError
from qpu_slurm.system.directory import DIRECTORY
from qpu_slurm.system.directory import Person as SystemPerson

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from qpu_slurm.config import QpuConfig
    from qpu_slurm.config.access import AccessRule, AccessRules
    from qpu_slurm.slurm.job import JobRecord
    from qpu_slurm.system.deadline import Deadline

_NAMED = 6
"""How many names of a list a sentence has."""


class Person(Protocol):
    """What rules ask of a user; see `system.directory.Person`."""

    def is_one_of(self, users: Collection[str | int]) -> bool:
        """Tell whether the user is one of these."""

    def is_in(self, groups: Iterable[str | int]) -> bool:
        """Tell whether the user is in one of these groups."""


def places_of(records: Iterable[JobRecord]) -> tuple[Place, ...]:
    """Return where the components of a job run."""
    return tuple(dict.fromkeys(Place(record.account, record.partition, record.qos) for record in records))


def refuse_denied(
    qpus: Iterable[QpuConfig], user_id: int, places: Sequence[Place], deadline: Deadline
) -> None:
    """Make sure that a job may use QPUs.

    Args:
        qpus: The QPUs.
        user_id: The job's user.
        places: Where it runs.
        deadline: When the system's directory of users is given up on.

    Raises:
        RequestError: It may not use one of them. The message says who may.
        UnavailableError: The directory does not answer.
    """
    person = SystemPerson(user_id, DIRECTORY, deadline)
    for qpu in qpus:
        why = refusal(qpu.name, qpu.access_rules, person, places)
        if why is not None:
            raise RequestError(why)


def refusal(qpu: str, rules: AccessRules, person: Person, places: Sequence[Place]) -> str | None:
    """Return why a job may not use a QPU, and who may; None if it may.

    `deny` comes before `allow`. A heterogeneous job fits a rule if one of its components does.

    Args:
        qpu: The QPU's name.
        rules: Who may use it.
        person: The job's user.
        places: Where the job runs.
    """
    for rule in rules.deny:
        if _fits(rule, person, places):
            return _sentence(qpu, rules, places, except_for=rule)
    if any(_fits(rule, person, places) for rule in rules.allow):
        return None
    return None if rules.default == "allow" else _sentence(qpu, rules, places)


def outlook(rules: AccessRules, person: Person) -> str:
    """Tell a user in a few words with which jobs he may use a QPU: `yes`, `no`, or what they need."""
    denied = [rule for rule in rules.deny if _fits_person(rule, person)]
    if not all(rule.compares_jobs for rule in denied):
        return "no"
    allowed = [rule for rule in rules.allow if _fits_person(rule, person)]
    if rules.default == "allow" or not all(rule.compares_jobs for rule in allowed):
        found = "yes"
    elif allowed:
        found = _joined(list(dict.fromkeys(_place_words(rule) for rule in allowed)), "or")
    else:
        return "no"
    but = "".join(f", not {_place_words(rule)}" for rule in denied)
    return f"{found}{but}"


def who_may(rules: AccessRules) -> str:
    """Say whom a QPU is for, to go on after "it is"."""
    if rules.allow:
        return _joined([f"for {describe(rule)}" for rule in rules.allow], "or")
    return "for everyone" if rules.default == "allow" else "closed to all jobs"


def how_to_ask(rules: AccessRules) -> str:
    """Say whom to ask for access, in a sentence."""
    return f"Ask {rules.contact or 'the admin of your cluster'} for access."


def describe(rule: AccessRule) -> str:
    """Say which jobs fit a rule, such as `account physics in partition quantum`."""
    return " ".join(_words(rule, rule.__struct_fields__))


def _fits(rule: AccessRule, person: Person, places: Sequence[Place]) -> bool:
    # What is known already comes first.
    return any(_fits_place(rule, place) for place in places or (Place(),)) and _fits_person(rule, person)


def _fits_person(rule: AccessRule, person: Person) -> bool:
    return (not rule.users or person.is_one_of(rule.members["users"])) and (
        not rule.groups or person.is_in(rule.groups)
    )


def _fits_place(rule: AccessRule, place: Place) -> bool:
    return (
        (not rule.accounts or place.account.lower() in rule.members["accounts"])
        and (not rule.partitions or place.partition in rule.members["partitions"])
        and (not rule.qos or place.qos.lower() in rule.members["qos"])
    )


def _sentence(
    qpu: str, rules: AccessRules, places: Sequence[Place], *, except_for: AccessRule | None = None
) -> str:
    but = "" if except_for is None else f", but not for {describe(except_for)}"
    facts = "".join(f" {fact}" for fact in _facts(rules, places))
    return f"You may not use {qpu}{facts}: it is {who_may(rules)}{but}. {how_to_ask(rules)}"


def _facts(rules: AccessRules, places: Sequence[Place]) -> Iterator[str]:
    """Name what the rules compare of a job."""
    named = {key for rule in rules.rules for key in JOB_KEYS if getattr(rule, key)}
    for key, field, word in (
        ("accounts", "account", "with account"),
        ("partitions", "partition", "in partition"),
        ("qos", "qos", "with QOS"),
    ):
        if key in named:
            values = list(dict.fromkeys(getattr(place, field) or "(none)" for place in places or (Place(),)))
            yield f"{word} {_joined(values, 'and')}"


def _place_words(rule: AccessRule) -> str:
    """Say what a rule asks of a job, such as `with account physics in partition quantum`."""
    found = {key: getattr(rule, key) for key in JOB_KEYS}
    return " ".join(f"{_WORDS[key][0]} {_names(names)}" for key, names in found.items() if names)


_WORDS = {
    "users": ("user", "user"),
    "groups": ("in group", "group"),
    "accounts": ("with account", "account"),
    "partitions": ("in partition", "jobs in partition"),
    "qos": ("with QOS", "jobs with QOS"),
}
"""The words before the names of each key, and those for the first key of a rule."""


def _words(rule: AccessRule, keys: Iterable[str]) -> Iterator[str]:
    first = True
    for key in keys:
        if names := getattr(rule, key):
            yield f"{_WORDS[key][first]} {_names(names)}"
            first = False


def _names(names: Sequence[str | int]) -> str:
    """Write some names of a list, as alternatives."""
    shown = [str(name) for name in names[:_NAMED]]
    if more := len(names) - len(shown):
        shown.append(f"{more} more")
    return _joined(shown, "or")


def _joined(parts: Sequence[str], word: str) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"
