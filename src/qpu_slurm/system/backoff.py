# SPDX-License-Identifier: Apache-2.0
"""The pause before a service is asked again."""

from __future__ import annotations

import random

_FIRST = 0.2
_LONGEST = 10.0


def backoff(attempt: int) -> float:
    """Return the seconds to wait after a try; the first is number 0.

    The pause doubles with each try. It has jitter, so that those who were refused together do not come back
    together.
    """
    longest = min(_FIRST * (1 << min(attempt, 10)), _LONGEST)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
