# SPDX-License-Identifier: Apache-2.0
"""Which QPUs meet a job's wishes."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.errors import MustWaitError, QpuSlurmError, RequestError, UnavailableError
from qpu_slurm.leases.choice import Bar, Candidate, choose, could_start, meets
from qpu_slurm.qpu_option import Term, Value, Wish, parse


def qpu(
    name: str,
    *,
    wait: float = 0,
    bar: Bar | Literal[""] = "",
    why: str = "",
    held: bool = False,
    **more: Value,
) -> Candidate:
    return Candidate(name=name, attributes={"name": name, **more}, wait=wait, bar=bar, why=why, held=held)


FEZ = qpu("ibm_fez", wait=40, qubits=156, processor="heron-r2", error=0.003)
TORINO = qpu("ibm_torino", wait=20, qubits=133, processor="heron-r1", error=0.004)
KYIV = qpu("ibm_kyiv", wait=0, qubits=127, processor="eagle-r3", error=0.011)
ALL = (FEZ, TORINO, KYIV)


def wish(text: str) -> Wish:
    (item,) = parse(text)
    assert isinstance(item, Wish)
    return item


def chosen(text: str, *candidates: Candidate, taken: tuple[str, ...] = ()) -> list[str]:
    items = [item for item in parse(text) if isinstance(item, Wish)]
    return list(choose(items, candidates or ALL, taken=taken))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("any", "ibm_kyiv"),
        ("any:by=error", "ibm_fez"),
        ("any:qubits>=130", "ibm_torino"),
        ("any:qubits=156", "ibm_fez"),
        ("any:qubits<130", "ibm_kyiv"),
        ("any:processor=heron", "ibm_torino"),
        ("any:processor=heron-r2", "ibm_fez"),
        ("any:processor=heron_r2", "ibm_fez"),
        ("any:processor!=heron", "ibm_kyiv"),
        ("any:processor=he*", "ibm_torino"),
        ("any:error<=0.0035", "ibm_fez"),
        ("any:name=ibm_f*", "ibm_fez"),
        ("ibm_fez|ibm_torino", "ibm_torino"),
        ("ibm_fez|ibm_torino:by=error", "ibm_fez"),
    ],
)
def test_the_best_of_those_that_meet_a_wish(text: str, name: str) -> None:
    assert chosen(text) == [name]


def test_equal_waits_are_decided_by_the_error() -> None:
    one, other = qpu("a", wait=0.2, error=0.01), qpu("b", wait=0.4, error=0.001)
    assert chosen("any", one, other) == ["b"]
    # One whose error is not known comes last.
    assert chosen("any", qpu("a"), other) == ["b"]
    assert chosen("any:by=error", qpu("a"), qpu("b", wait=100, error=0.1)) == ["b"]


def test_the_choice_says_why() -> None:
    closed = qpu("ibm_kyiv", qubits=127, bar="wait", why="is closed: new fridge")
    choice = choose([wish("any:qubits>=100")], (FEZ, TORINO, closed))["ibm_torino"]
    assert choice.asked == "any:qubits>=100"
    assert choice.why == (
        "Least expected wait: 20 s, error 0.004 (ibm_kyiv is closed: new fridge; ibm_fez: 40 s, error 0.003)."
    )
    assert choose([wish("any:qubits>150")], ALL)["ibm_fez"].why == "No other QPU meets it."


def test_what_the_job_has_already_is_chosen_again() -> None:
    held = qpu("ibm_fez", wait=1000, held=True)
    assert chosen("any", TORINO, held) == ["ibm_fez"]
    assert choose([wish("any")], (TORINO, held))["ibm_fez"].why == "The job has it already."


def test_each_wish_has_a_qpu_of_its_own() -> None:
    assert chosen("any,any,any") == ["ibm_kyiv", "ibm_torino", "ibm_fez"]
    assert chosen("ibm_kyiv,any", taken=("ibm_kyiv",)) == ["ibm_torino"]
    # The first wish would like ibm_torino, but the second one can be met by nothing else.
    assert chosen("any:qubits>=130,ibm_torino|ibm_kyiv:processor=heron") == ["ibm_fez", "ibm_torino"]


@pytest.mark.parametrize(
    ("text", "candidates", "says"),
    [
        (
            "any:qubits>=1000",
            ALL,
            r"^--qpu: no QPU meets any:qubits>=1000: .* qubits=156; ibm_torino has .*; ibm_kyiv has .*127\.$",
        ),
        ("ibm_fez|ibm_torino:qubits<100", ALL, r"ibm_fez has qubits=156; ibm_torino has qubits=133\.$"),
        ("any:clops>=1", ALL, "ibm_fez does not say its clops"),
        (
            "any",
            (qpu("a", bar="never", why="needs your own API key, and the job has none"),),
            "a needs your own",
        ),
        ("any,any,any,any", ALL, "not as many QPUs meet any as the job wants"),
    ],
)
def test_what_can_never_be_met_is_a_mistake(text: str, candidates: tuple[Candidate, ...], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        chosen(text, *candidates)


def test_a_named_qpu_is_no_choice_besides() -> None:
    with pytest.raises(RequestError, match="ibm_fez is named besides"):
        chosen("ibm_fez,any:qubits>150", taken=("ibm_fez",))


def test_a_job_waits_for_what_is_not_available_now() -> None:
    full = qpu("ibm_fez", qubits=156, bar="wait", why="is in use by job 7")
    away = qpu("ibm_torino", qubits=133, bar="away", why="does not answer: timeout.")
    small = qpu("ibm_kyiv", qubits=27)
    with pytest.raises(MustWaitError) as caught:
        chosen("any:qubits>=100", full, away, small)
    assert str(caught.value) == (
        "No QPU is available now for any:qubits>=100: ibm_fez is in use by job 7; "
        "ibm_torino does not answer: timeout."
    )
    # A service that does not answer is an outage: such a job is given up at last.
    with pytest.raises(UnavailableError) as outage:
        chosen("any:qubits>=100", away, small)
    assert not isinstance(outage.value, MustWaitError)
    # What an unreachable service would say is not known, so it may meet the wish.
    with pytest.raises(UnavailableError):
        chosen("any:qubits>=100", qpu("a", bar="away", why="does not answer"))
    assert could_start([wish("any:qubits>=100")], (full, small)) is None
    assert could_start([wish("any:qubits>=100")], (full, FEZ)) == ("ibm_fez",)


def test_a_constraint_on_what_is_not_known_is_not_met() -> None:
    for operator in ("=", "!=", ">=", "<"):
        assert not meets(Term("qubits", operator, 5.0), {})
    assert not meets(Term("simulator", "!=", value=True), {})
    assert meets(Term("simulator", "=", value=False), {"simulator": False})


CANDIDATES = st.lists(
    st.builds(
        qpu,
        st.sampled_from([f"q{number}" for number in range(6)]),
        wait=st.integers(0, 3),
        bar=st.sampled_from(["", "", "wait", "away", "never"]),
        why=st.just("is not there"),
        qubits=st.sampled_from([5, 100, 156]),
        error=st.sampled_from([0.001, 0.01]),
    ),
    max_size=6,
    unique_by=lambda candidate: candidate.name,
)
WISHES = st.lists(
    st.sampled_from(["any", "any:qubits>=100", "any:by=error", "q0|q1", "q1|q2:qubits=5", "q3|q4|q5"]),
    min_size=1,
    max_size=4,
)


@given(WISHES, CANDIDATES)
def test_a_choice_is_made_exactly_if_there_is_one(texts: list[str], candidates: list[Candidate]) -> None:
    wishes = [wish(text) for text in texts]

    def fits(one: Wish, candidate: Candidate) -> bool:
        known = not one.names or candidate.name in one.names
        return known and not candidate.bar and all(meets(term, candidate.attributes) for term in one.terms)

    possible = any(all(map(fits, wishes, found)) for found in itertools.permutations(candidates, len(wishes)))
    try:
        got = choose(wishes, candidates)
    except QpuSlurmError:
        assert not possible
        return
    assert possible
    by_name = {candidate.name: candidate for candidate in candidates}
    assert len(got) == len(wishes)
    assert all(map(fits, wishes, (by_name[name] for name in got)))
    assert [choice.asked for choice in got.values()] == texts
    if len(wishes) == 1 and wishes[0].by == "wait":
        waits = [candidate.wait for candidate in candidates if fits(wishes[0], candidate)]
        assert by_name[next(iter(got))].wait == min(waits)
