# SPDX-License-Identifier: Apache-2.0
"""No session outlives its job."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.providers.lifetime import later_session_ttl, session_ttl

LONGEST = st.integers(1, 28_800)
LEFT = st.floats(-1e6, 1e9)


@given(LONGEST, LEFT)
def test_a_session_lives_no_longer_than_its_job_and_the_admin_let_it(longest: int, left: float) -> None:
    ttl = session_ttl(longest, left)
    assert 1 <= ttl <= longest
    assert ttl <= max(left, 1)


@given(LONGEST)
def test_a_job_without_a_time_limit_leaves_it_to_the_admin(longest: int) -> None:
    assert session_ttl(longest, None) == later_session_ttl(longest, None) == longest


@given(LONGEST, LEFT)
def test_a_job_that_runs_beyond_its_recorded_end_has_been_given_more_time(longest: int, left: float) -> None:
    assert later_session_ttl(longest, left) == (session_ttl(longest, left) if left > 0 else longest)
