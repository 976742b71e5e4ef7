# SPDX-License-Identifier: Apache-2.0
"""Which QPUs meet a job's wishes: a pure function of what is known of them.

A job may have several wishes. Each is met by a QPU of its own. The wishes choose in the user's order; an
earlier one makes way for a later one that nothing else can meet.
"""

from __future__ import annotations

import operator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from qpu_slurm.errors import MustWaitError, RequestError, UnavailableError
from qpu_slurm.qpu_option import ATTRIBUTES, Choice, Kind, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from qpu_slurm.qpu_option import Term, Wish

Bar = Literal["never", "away", "wait"]
"""Why a QPU cannot be chosen. `never`: it is not for this job. `away`: its service does not answer. `wait`:
it is closed, in maintenance, or full."""

_NAMED: Final = 4
_LONG: Final = 300

_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a QPU as a job starts.

    Attributes:
        name: Its name.
        attributes: What it is like; an attribute that is missing is not known.
        wait: Seconds until a task of the job is expected to run.
        bar: Why it cannot be chosen, in one word; empty if it can.
        why: The same in words, to follow the QPU's name.
        held: The job has it already.
    """

    name: str
    attributes: dict[str, Value] = {}
    wait: float = 0.0
    bar: Bar | Literal[""] = ""
    why: str = ""
    held: bool = False

    @property
    def error(self) -> float:
        """Its error; infinite where that is not known."""
        error = self.attributes.get("error")
        return float(error) if isinstance(error, int | float) else float("inf")


def choose(
    wishes: Sequence[Wish], candidates: Sequence[Candidate], *, taken: Collection[str] = ()
) -> dict[str, Choice]:
    """Choose a QPU for each wish.

    Args:
        wishes: The job's wishes.
        candidates: The cluster's QPUs.
        taken: QPUs that the job names besides.

    Returns:
        What was chosen, by the QPU's name, in the wishes' order.

    Raises:
        RequestError: No QPU of the cluster can ever meet a wish, or not as many as the job wants.
        MustWaitError: Those that can are closed, away or full now.
        UnavailableError: Their services do not answer.
    """
    free = [candidate for candidate in candidates if candidate.name not in taken]
    for wish in wishes:
        if not any(not _never(wish, candidate) for candidate in free):
            raise RequestError(_nothing(wish, candidates, taken))
    found = _match([[one for one in _ranked(wish, free) if not one.bar] for wish in wishes])
    if found is None:
        raise _why_none(wishes, free)
    return {
        chosen.name: Choice(asked=wish.text, why=_why(wish, chosen, _ranked(wish, free)))
        for wish, chosen in zip(wishes, found, strict=True)
    }


def meets(term: Term, attributes: Mapping[str, Value]) -> bool:
    """Return whether a QPU is as a term wants it; one of which that is not known is not."""
    has = attributes.get(term.attribute)
    if has is None:
        return False
    if ATTRIBUTES[term.attribute] is Kind.NUMBER:
        return _COMPARE[term.operator](float(has), float(term.value))
    if isinstance(has, bool):
        same = has is term.value
    else:
        words = _words(term.attribute, str(has).lower())
        same = any(fnmatchcase(word, str(term.value)) for word in words)
    return same is (term.operator == "=")


def could_start(
    wishes: Sequence[Wish], candidates: Sequence[Candidate], *, taken: Collection[str] = ()
) -> tuple[str, ...] | None:
    """Return the QPUs that a job which waits would get now; None if it has to go on waiting."""
    try:
        return tuple(choose(wishes, candidates, taken=taken))
    except (RequestError, UnavailableError):
        return None


def _words(attribute: str, has: str) -> tuple[str, ...]:
    """Return what a word may be called: a processor `heron-r2` also by its family."""
    if attribute != "processor":
        return (has,)
    return (has, has.replace("-", "_"), has.rpartition("-r")[0] or has)


def _never(wish: Wish, candidate: Candidate) -> str:
    """Say why a QPU is nothing for a wish, whenever; nothing if it is."""
    if wish.names and candidate.name not in wish.names:
        return "is not among those that you name"
    if candidate.bar == "never":
        return candidate.why
    if candidate.bar == "away":
        # What its service would say is not known; what is known counts.
        terms = [term for term in wish.terms if term.attribute in candidate.attributes]
    else:
        terms = list(wish.terms)
    for term in terms:
        if not meets(term, candidate.attributes):
            has = candidate.attributes.get(term.attribute)
            return (
                f"does not say its {term.attribute}" if has is None else f"has {term.attribute}={_text(has)}"
            )
    return ""


def _ranked(wish: Wish, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Sort the QPUs that meet a wish, also those that cannot be had now: the best first."""

    def rank(candidate: Candidate) -> tuple[object, ...]:
        # Less than a second makes no difference to a user.
        wait, error = round(candidate.wait), candidate.error
        return (not candidate.held, *((error, wait) if wish.by == "error" else (wait, error)), candidate.name)

    return sorted((one for one in candidates if not _never(wish, one)), key=rank)


def _match(lists: Sequence[Sequence[Candidate]]) -> list[Candidate] | None:
    """Give each list one of its candidates, no candidate to two; None if that is not possible.

    The first list gets the best candidate that leaves enough to the others, then the second one, and so on.
    """
    if not _can_match([[candidate.name for candidate in found] for found in lists]):
        return None
    chosen: list[Candidate] = []
    for number, found in enumerate(lists):
        for candidate in found:
            used = {candidate.name, *(one.name for one in chosen)}
            rest = [[one.name for one in other if one.name not in used] for other in lists[number + 1 :]]
            if candidate not in chosen and _can_match(rest):
                chosen.append(candidate)
                break
    return chosen


def _can_match(lists: Sequence[Sequence[str]]) -> bool:
    """Return whether each list can have a name of its own.

    These are augmenting paths of a bipartite graph: the time is bounded, whatever a user asks for.
    """
    owner: dict[str, int] = {}

    def place(number: int, tried: set[str]) -> bool:
        for name in lists[number]:
            if name not in tried:
                tried.add(name)
                if name not in owner or place(owner[name], tried):
                    owner[name] = number
                    return True
        return False

    return all(place(number, set()) for number in range(len(lists)))


class _Other(NamedTuple):
    name: str
    says: str


def _why(wish: Wish, chosen: Candidate, ranked: Sequence[Candidate]) -> str:
    """Say why a QPU was chosen rather than the others that meet the wish."""
    if chosen.held:
        return "The job has it already."
    others = [
        _Other(one.name, f" {one.why}" if one.bar else f": {_figures(one)}")
        for one in ranked
        if one.name != chosen.name
    ]
    if not others:
        return "No other QPU meets it."
    first = "Least error" if wish.by == "error" else "Least expected wait"
    more = len(others) - _NAMED
    listed = "; ".join(other.name + other.says for other in others[:_NAMED]) + (
        f"; {more} more" if more > 0 else ""
    )
    return _cut(f"{first}: {_figures(chosen)} ({listed}).")


def _figures(candidate: Candidate) -> str:
    error = "" if candidate.error == float("inf") else f", error {candidate.error:.2g}"
    return f"{candidate.wait:.0f} s{error}"


def _nothing(wish: Wish, candidates: Sequence[Candidate], taken: Collection[str]) -> str:
    """Say why no QPU can ever meet a wish."""
    reasons = [
        f"{one.name} {'is named besides' if one.name in taken else _never(wish, one)}"
        for one in candidates
        if not wish.names or one.name in wish.names
    ]
    return _cut(f"--qpu: no QPU meets {wish.text[: _LONG // 3]}: {_listed(reasons)}.")


def _why_none(wishes: Sequence[Wish], free: Sequence[Candidate]) -> UnavailableError | RequestError:
    """Return why the wishes cannot be met now."""
    texts = " and ".join(dict.fromkeys(wish.text[: _LONG // 3] for wish in wishes))
    if _match([_ranked(wish, free) for wish in wishes]) is None:
        return RequestError(_cut(f"--qpu: not as many QPUs meet {texts} as the job wants."))
    possible = {one.name: one for wish in wishes for one in _ranked(wish, free)}
    barred = [one for one in possible.values() if one.bar]
    reasons = [f"{one.name} {one.why}" for one in barred]
    kind = UnavailableError if all(one.bar == "away" for one in barred) else MustWaitError
    return kind(_cut(f"No QPU is available now for {texts}: {_listed(reasons)}."))


def _listed(reasons: Sequence[str]) -> str:
    more = len(reasons) - _NAMED
    said = "; ".join(reason.rstrip(".") for reason in reasons[:_NAMED])
    return said + (f"; and {more} more" if more > 0 else "") if reasons else "there is none"


def _cut(sentence: str) -> str:
    return sentence if len(sentence) <= _LONG else f"{sentence[:_LONG]}…"


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else f"{value:g}"
