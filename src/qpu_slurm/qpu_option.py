# SPDX-License-Identifier: Apache-2.0
"""The value of `--qpu`: names of QPUs, and wishes that are met by a QPU when the job starts.

    value      = item *( "," item )
    item       = NAME / wish
    wish       = ( "any" / NAME 1*( "|" NAME ) ) [ ":" term *( "," term ) ]
    term       = ATTRIBUTE operator VALUE / "by=wait" / "by=error"
    operator   = "=" / "!=" / ">=" / "<=" / ">" / "<"

What follows a comma is a term if it has an operator, and an item if it has none. So
`ibm_fez,any:qubits>=100,processor=heron,any` means three QPUs.

The attributes have the names that users know from Qiskit's backends (`num_qubits`, `processor_type`,
`max_shots`) and from the filters of qrmi's `ResourceProvider` (`num_qubits`, `name`, `max_shots`,
`is_simulator`), and short ones. The plugin in C (plugin/option.c) checks the shape and the names of QPUs and
attributes, and passes the text on.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from qpu_slurm.errors import RequestError
from qpu_slurm.names import MAX_QPUS, QPU_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY: Final = "any"
"""What stands for every QPU; so no QPU is called that."""

MAX_LENGTH: Final = 1024
"""The longest value, in characters."""

By: TypeAlias = Literal["wait", "error"]
"""What is compared first among the QPUs that meet a wish."""


Value: TypeAlias = float | str | bool
"""What an attribute is: a number, a word or a flag."""


class Kind(StrEnum):
    """What the values of an attribute are."""

    NUMBER = "a number"
    WORD = "a word, in which * stands for any letters"
    FLAG = "true or false"


ATTRIBUTES: Final = {
    "qubits": Kind.NUMBER,
    "processor": Kind.WORD,
    "error": Kind.NUMBER,
    "clops": Kind.NUMBER,
    "max_shots": Kind.NUMBER,
    "simulator": Kind.FLAG,
    "name": Kind.WORD,
    "type": Kind.WORD,
}
"""What can be asked of a QPU."""

ALIASES: Final = {
    "num_qubits": "qubits",
    "n_qubits": "qubits",
    "processor_type": "processor",
    "is_simulator": "simulator",
}
"""Other names of these: those of Qiskit and qrmi."""

_TERM: Final = re.compile(r"([a-z_]{1,32})(>=|<=|!=|=|>|<)([A-Za-z0-9_.*+-]{1,64})")
_OPERATORS: Final = re.compile("[=<>!]")
_NUMBER: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_FLAGS: Final = {"true": True, "false": False}
_SHOWN: Final = 64


class Term(msgspec.Struct, frozen=True):
    """One constraint.

    Attributes:
        attribute: One of `ATTRIBUTES`.
        operator: `=`, `!=`, `>=`, `<=`, `>` or `<`.
        value: What the QPU's is compared with; a word is in lower case.
    """

    attribute: str
    operator: str
    value: Value


class Wish(msgspec.Struct, frozen=True):
    """A QPU that is chosen when the job starts.

    Attributes:
        text: What the user wrote.
        names: The alternatives; none are all QPUs.
        terms: What the QPU has to be like.
        by: What is compared first.
    """

    text: str
    names: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()
    by: By = "wait"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A QPU that was chosen for a job.

    Attributes:
        asked: The wish, as the user wrote it.
        why: Why it is this one, in a sentence.
    """

    asked: str
    why: str


def parse(value: str) -> tuple[str | Wish, ...]:
    """Read the value of `--qpu`.

    Args:
        value: What the user wrote; hostile.

    Returns:
        The names of QPUs, and wishes, in the user's order.

    Raises:
        RequestError: It is empty, malformed, or names a QPU twice.
    """
    if len(value) > MAX_LENGTH:
        raise RequestError(f"--qpu has more than {MAX_LENGTH} characters.")
    items = tuple(_item(text) for text in _items(value))
    if len(items) > MAX_QPUS:
        raise RequestError(f"--qpu names more than {MAX_QPUS} QPUs.")
    names = [item for item in items if isinstance(item, str)]
    if len(set(names)) < len(names):
        raise RequestError("--qpu names a QPU twice.")
    return items


def wish_of(text: str) -> Wish | None:
    """Read one item of `parse` again, from its text; None for a name.

    Raises:
        RequestError: It is neither.
    """
    item = _item(text)
    return item if isinstance(item, Wish) else None


def is_wish(text: str) -> bool:
    """Return whether one item's text is a wish rather than a name."""
    return text == ANY or not QPU_NAME.fullmatch(text)


def text_of(item: str | Wish) -> str:
    """Return what the user wrote for one item."""
    return item if isinstance(item, str) else item.text


def _items(value: str) -> Iterator[str]:
    """Divide the value at the commas that no term of the same item follows."""
    item: list[str] = []
    for part in value.split(","):
        head = part.partition(":")[0]
        if item and _OPERATORS.search(head):
            item.append(part)
            continue
        if item:
            yield ",".join(item)
        item = [part]
    yield ",".join(item)


def _item(text: str) -> str | Wish:
    pool, colon, rest = text.partition(":")
    if "," in pool:
        first, _, term = text.partition(",")
        raise RequestError(
            f"--qpu: {term[:_SHOWN]!r} follows {first[:_SHOWN]!r} without a colon. Write any:qubits>=100 or "
            "NAME|NAME:qubits>=100."
        )
    if pool == ANY:
        names: tuple[str, ...] = ()
    elif "|" in pool:
        names = _alternatives(pool)
    else:
        return _name(text)
    by: By | None = None
    terms = []
    for written in rest.split(",") if colon else ():
        order = _order(written)
        if order is None:
            terms.append(_term(written))
        elif by is not None:
            raise RequestError("--qpu: by= is there twice.")
        else:
            by = order
    return Wish(text, names, tuple(terms), by or "wait")


def _name(text: str) -> str:
    if QPU_NAME.fullmatch(text):
        return text
    name, _, rest = text.partition(":")
    if QPU_NAME.fullmatch(name) and _OPERATORS.search(rest):
        raise RequestError(
            f"--qpu: {name!r} is one QPU, so there is nothing to choose. Write it alone, or write "
            f"any:{rest[:_SHOWN]}."
        )
    raise RequestError(
        f"--qpu: {text[:_SHOWN]!r} is not the name of a QPU. Write --qpu=NAME, NAME,NAME, NAME|NAME, any, or "
        "any:qubits>=100."
    )


def _alternatives(pool: str) -> tuple[str, ...]:
    names = tuple(pool.split("|"))
    for name in names:
        if name == ANY or not QPU_NAME.fullmatch(name):
            raise RequestError(
                f"--qpu: {name[:_SHOWN]!r} is not the name of a QPU. Alternatives are names: NAME|NAME."
            )
    if len(set(names)) < len(names):
        raise RequestError(f"--qpu: {pool[:_SHOWN]!r} names a QPU twice.")
    return names


def _order(text: str) -> By | None:
    """Read `by=`; None for another term."""
    if not text.startswith("by="):
        return None
    if text == "by=wait":
        return "wait"
    if text == "by=error":
        return "error"
    raise RequestError(f"--qpu: {text[:_SHOWN]!r}: write by=wait or by=error.")


def _term(text: str) -> Term:
    found = _TERM.fullmatch(text)
    if found is None:
        raise RequestError(
            f"--qpu: {text[:_SHOWN]!r} is not a constraint. Write ATTRIBUTE, one of = != >= <= > <, and a "
            "value, such as qubits>=100."
        )
    attribute, operator, value = ALIASES.get(found[1], found[1]), found[2], found[3].lower()
    if attribute == "status":
        raise RequestError("--qpu: leave out status: only a QPU that is online is chosen.")
    if attribute not in ATTRIBUTES:
        raise RequestError(f"--qpu: {found[1]!r} is not an attribute. Known are: {', '.join(ATTRIBUTES)}.")
    kind = ATTRIBUTES[attribute]
    if kind is Kind.NUMBER:
        if not _NUMBER.fullmatch(value):
            raise RequestError(f"--qpu: {text[:_SHOWN]!r}: the value is not {kind}.")
        return Term(attribute, operator, float(value))
    if operator not in {"=", "!="}:
        raise RequestError(f"--qpu: {text[:_SHOWN]!r}: {attribute} is compared with = or != only.")
    if kind is Kind.FLAG:
        if value not in _FLAGS:
            raise RequestError(f"--qpu: {text[:_SHOWN]!r}: the value is not {kind}.")
        return Term(attribute, operator, _FLAGS[value])
    return Term(attribute, operator, value)
