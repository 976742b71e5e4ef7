# SPDX-License-Identifier: Apache-2.0
"""What all tests begin with."""

from __future__ import annotations

import signal

from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

# A shell has what it runs in the background ignore Ctrl-C, and all that is started there inherits it: what
# tests start has to hear theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
