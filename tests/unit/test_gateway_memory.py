# SPDX-License-Identifier: Apache-2.0
"""What the gateway keeps for clients that will ask: how much that is, and what it may cost the service."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.gateway.ibm.results import LARGEST, Results
from qpu_slurm.gateway.limits import AtOnce, Credit
from qpu_slurm.gateway.relay import Copy

puts = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from("abcdef"), st.integers(0, 120)), min_size=1, max_size=60
)


def of(size: int, letter: str = "x") -> Copy:
    return Copy(200, {}, letter.encode() * size)


@given(puts)
def test_results_are_bounded_for_each_lease_and_in_all(put: list[tuple[int, str, int]]) -> None:
    results, bytes_of = Results(in_all=250, of_a_lease=100), dict[int, int]()
    for lease, task, size in put:
        results.put(lease, task, of(size))
    for lease in range(1, 5):
        found = [results.take(lease, task) for task in "abcdef"]
        bytes_of[lease] = sum(len(copy.body) for copy in found if copy is not None)
        assert bytes_of[lease] <= 100
    assert sum(bytes_of.values()) <= 250


def test_a_result_is_handed_over_once_and_to_its_lease_alone() -> None:
    results = Results()
    results.put(1, "task", of(10))
    assert results.take(2, "task") is None
    assert results.take(1, "task") == of(10)
    assert results.take(1, "task") is None


def test_the_newest_result_of_a_task_counts() -> None:
    results = Results()
    results.put(1, "task", of(1, "a"))
    results.put(1, "task", of(1, "b"))
    assert results.take(1, "task") == of(1, "b")


def test_a_large_result_is_not_kept() -> None:
    results = Results()
    results.put(1, "task", of(LARGEST + 1))
    assert results.take(1, "task") is None


def test_a_lease_spends_what_it_has_saved() -> None:
    credit = Credit(limit=3, advance=1)
    assert credit.spend(7)
    assert not credit.spend(7)
    credit.earn(7, 10)
    assert credit.spend(7, 3)
    assert not credit.spend(7)
    assert credit.spend(8)  # another one's is its own


def test_a_request_that_waits_takes_nobodys_place() -> None:
    requests = AtOnce(1, "The job has 1 request")
    with requests.one(7), requests.waiting(7), requests.one(7):
        assert requests[7] == 1
    assert requests[7] == 0
