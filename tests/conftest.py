# SPDX-License-Identifier: Apache-2.0
"""What all tests begin with."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

# Its assertions explain themselves as a test's do.
pytest.register_assert_rewrite("tests.provider_conformance")

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

# A shell has what it runs in the background ignore Ctrl-C, and all that is started there inherits it: what
# tests start has to hear theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
