# SPDX-License-Identifier: Apache-2.0
"""What all tests begin with."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# Its assertions explain themselves as a test's do.
pytest.register_assert_rewrite("tests.provider_conformance")

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

# A shell has what it runs in the background ignore Ctrl-C, nohup has it ignore SIGHUP, and all that is
# started there inherits it: what tests start has to hear theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Undo what a test that calls a command in this process has set up for its logs."""
    handlers, level, config = set(logging.root.handlers), logging.root.level, structlog.get_config()
    yield
    if structlog.get_config() != config:
        structlog.configure(**config)
        logging.root.setLevel(level)
        for handler in set(logging.root.handlers) - handlers:
            # Pytest's own handlers are others in each phase of a test.
            if type(handler).__module__.startswith("qpu_slurm."):
                logging.root.removeHandler(handler)
