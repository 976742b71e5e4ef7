# SPDX-License-Identifier: Apache-2.0
"""Which jobs may use a QPU, by its rules, and what the others are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.config.access import AccessRule, AccessRules, Place
from qpu_slurm.leases.access import describe, outlook, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable


class Someone(NamedTuple):
    """A user whom no directory is asked for."""

    name: str = "ada"
    number: int = 1001
    groups: frozenset[str | int] = frozenset()

    def is_one_of(self, users: Iterable[str | int]) -> bool:
        return not {self.name, self.number}.isdisjoint(users)

    def is_in(self, groups: Iterable[str | int]) -> bool:
        return not self.groups.isdisjoint(groups)


def rules(
    allow: Iterable[AccessRule] = (), deny: Iterable[AccessRule] = (), contact: str = ""
) -> AccessRules:
    allow = tuple(allow)
    return AccessRules(allow=allow, deny=tuple(deny), default="deny" if allow else "allow", contact=contact)


ADA, BOB = Someone(), Someone("bob", 1002)
PHYSICS = AccessRule(accounts=("physics",))
QUANTUM = AccessRule(accounts=("physics",), partitions=("quantum",))
HERE = Place("physics", "quantum", "normal")

SENTENCES = {
    "an account": (
        rules([PHYSICS]),
        Place("chemistry", "quantum", "normal"),
        (
            "You may not use ibm_fez with account chemistry: it is for account physics. "
            "Ask the admin of your cluster for access."
        ),
    ),
    "no account": (
        rules([PHYSICS], contact="quantum@centre.example"),
        Place(),
        (
            "You may not use ibm_fez with account (none): it is for account physics. "
            "Ask quantum@centre.example for access."
        ),
    ),
    "an account in a partition": (
        rules([QUANTUM, AccessRule(users=("bob", 77))]),
        Place("physics", "normal", "normal"),
        (
            "You may not use ibm_fez with account physics in partition normal: it is for account physics in "
            "partition quantum or for user bob or 77. Ask the admin of your cluster for access."
        ),
    ),
    "a group": (
        rules([AccessRule(groups=("quantum",), qos=("high",))]),
        HERE,
        (
            "You may not use ibm_fez with QOS normal: it is for group quantum with QOS high. "
            "Ask the admin of your cluster for access."
        ),
    ),
    "denied": (
        rules(deny=[AccessRule(users=("ada",))]),
        HERE,
        (
            "You may not use ibm_fez: it is for everyone, but not for user ada. "
            "Ask the admin of your cluster for access."
        ),
    ),
    "allowed and denied": (
        rules([PHYSICS], [AccessRule(partitions=("debug", "quantum"))]),
        HERE,
        (
            "You may not use ibm_fez with account physics in partition quantum: it is for account physics, "
            "but not for jobs in partition debug or quantum. Ask the admin of your cluster for access."
        ),
    ),
    "closed": (
        AccessRules(default="deny"),
        HERE,
        "You may not use ibm_fez: it is closed to all jobs. Ask the admin of your cluster for access.",
    ),
}


@pytest.mark.parametrize(("found", "place", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_who_may_not_is_told_who_may(found: AccessRules, place: Place, sentence: str) -> None:
    assert refusal("ibm_fez", found, ADA, [place]) == sentence


def test_a_long_list_is_cut() -> None:
    rule = AccessRule(users=tuple(f"user{number}" for number in range(100)))
    assert describe(rule) == "user user0, user1, user2, user3, user4, user5 or 94 more"


MAY = {
    "no rules": (AccessRules(), ADA, "yes"),
    "a user": (rules([AccessRule(users=("ada",))]), ADA, "yes"),
    "another user": (rules([AccessRule(users=("ada",))]), BOB, "no"),
    "a number": (rules([AccessRule(users=(1002,))]), BOB, "yes"),
    "an account": (rules([PHYSICS]), ADA, "with account physics"),
    "a user, or with an account": (rules([PHYSICS, AccessRule(users=("ada",))]), ADA, "yes"),
    "either account": (
        rules([QUANTUM, AccessRule(accounts=("maths",), users=("ada",))]),
        ADA,
        "with account physics in partition quantum or with account maths",
    ),
    "denied": (
        rules([PHYSICS], [AccessRule(groups=("guests",))]),
        Someone(groups=frozenset({"guests"})),
        "no",
    ),
    "denied in a partition": (
        rules(deny=[AccessRule(partitions=("debug",))]),
        ADA,
        "yes, not in partition debug",
    ),
    "closed": (AccessRules(default="deny"), ADA, "no"),
}


@pytest.mark.parametrize(("found", "person", "words"), MAY.values(), ids=MAY)
def test_a_user_sees_what_he_may_use(found: AccessRules, person: Someone, words: str) -> None:
    assert outlook(found, person) == words


def test_accounts_and_qos_are_compared_as_slurmdbd_does() -> None:
    found = rules([AccessRule(accounts=("Physics",), qos=("high",))])
    assert refusal("q", found, ADA, [Place("physics", "quantum", "HIGH")]) is None


def test_a_heterogeneous_job_fits_where_a_component_does() -> None:
    elsewhere = Place("physics", "normal", "normal")
    assert refusal("q", rules([QUANTUM]), ADA, [elsewhere, HERE]) is None
    # The account of one component and the partition of another are not enough.
    assert refusal("q", rules([QUANTUM]), ADA, [elsewhere, Place("maths", "quantum", "normal")])
    assert refusal("q", rules(deny=[AccessRule(partitions=("normal",))]), ADA, [HERE, elsewhere])


# Random rules, jobs and users, against the definition.

USERS: tuple[str | int, ...] = ("ada", "bob", 1001)
GROUPS: tuple[str | int, ...] = ("quantum", "guests", 50)
ACCOUNTS, PARTITIONS, QOS = ("physics", "maths"), ("normal", "quantum"), ("normal", "high")


def some(names: Iterable[str | int]) -> st.SearchStrategy[tuple[str | int, ...]]:
    return st.lists(st.sampled_from(tuple(names)), max_size=2, unique=True).map(tuple)


RULE = st.builds(
    AccessRule,
    users=some(USERS),
    groups=some(GROUPS),
    accounts=some(ACCOUNTS),
    partitions=some(PARTITIONS),
    qos=some(QOS),
)
RULES = st.builds(
    lambda allow, deny, closed: AccessRules(
        allow=tuple(allow), deny=tuple(deny), default="deny" if allow or closed else "allow"
    ),
    st.lists(RULE, max_size=3),
    st.lists(RULE, max_size=2),
    st.booleans(),
)
PERSON = st.builds(
    Someone,
    st.sampled_from(["ada", "bob", "eve"]),
    st.sampled_from([1001, 1002]),
    st.frozensets(st.sampled_from(GROUPS)),
)
PLACE = st.builds(Place, st.sampled_from(["", *ACCOUNTS]), st.sampled_from(PARTITIONS), st.sampled_from(QOS))
PLACES = st.lists(PLACE, min_size=1, max_size=3)


def fits(rule: AccessRule, person: Someone, place: Place) -> bool:
    """Tell whether one component fits a rule, word for word as docs/rules.md has it."""
    has = {
        "users": {person.name, person.number},
        "groups": person.groups,
        "accounts": {place.account},
        "partitions": {place.partition},
        "qos": {place.qos},
    }
    return all(set(getattr(rule, key)) & names for key, names in has.items() if getattr(rule, key))


@given(RULES, PERSON, PLACES)
def test_deny_comes_before_allow_and_allow_before_the_default(
    found: AccessRules, person: Someone, places: list[Place]
) -> None:
    denied = any(fits(rule, person, place) for rule in found.deny for place in places)
    allowed = any(fits(rule, person, place) for rule in found.allow for place in places)
    may = not denied and (allowed or found.default == "allow")
    why = refusal("ibm_fez", found, person, places)
    assert (why is None) is may
    if why is not None:
        assert why.startswith("You may not use ibm_fez")
        assert why.endswith(" for access.")
        assert why.isprintable()


@given(RULES, RULE, PERSON, PLACES)
def test_a_rule_more_never_does_the_opposite(
    found: AccessRules, rule: AccessRule, person: Someone, places: list[Place]
) -> None:
    def may(rules_: AccessRules) -> bool:
        return refusal("q", rules_, person, places) is None

    assert may(found) >= may(msgspec.structs.replace(found, deny=(*found.deny, rule)))
    assert may(found) <= may(msgspec.structs.replace(found, allow=(*found.allow, rule)))


@given(RULES, PERSON, PLACE)
def test_yes_and_no_are_promises(found: AccessRules, person: Someone, place: Place) -> None:
    words, why = outlook(found, person), refusal("q", found, person, [place])
    if words == "yes":
        assert why is None
    if words == "no":
        assert why is not None


@given(RULES, PERSON, PLACES)
def test_a_qpu_that_is_open_to_all_refuses_no_job(
    found: AccessRules, person: Someone, places: list[Place]
) -> None:
    if found.open_to_all:
        assert refusal("q", found, person, places) is None
