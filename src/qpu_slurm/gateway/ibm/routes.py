# SPDX-License-Identifier: Apache-2.0
"""The routes of IBM's dialect, with the prefixes below which its clients look for them."""

from __future__ import annotations

from typing import Final

from qpu_slurm.gateway.ibm import backends, cloud, sessions, tasks

# The runtime client leaves a URL as it is only if `experimental` stands in it.
_API: Final = ("/experimental/api/v1", "/api/v1")

ROUTES: Final = (
    ("", cloud.ROUTES),
    *((prefix, routes) for prefix in _API for routes in (backends.ROUTES, sessions.ROUTES, tasks.ROUTES)),
)
"""Prefixes, and what is below them."""
