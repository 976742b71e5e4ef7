# SPDX-License-Identifier: Apache-2.0
"""What the commands of `qpu-slurm` have in common: the configuration, the log, how arguments are read."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qpu_slurm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm.config import Config


def config_of(arguments: argparse.Namespace) -> Config:
    """Read the configuration that the arguments name."""
    from qpu_slurm import config

    return config.load(arguments.config)


def log_as_told(config: Config, path: Path | None = None) -> None:
    """Log where the admin said; a log that cannot be written must not keep a job from its QPU.

    Args:
        config: What the admin wrote.
        path: Another log file than that of all.
    """
    import structlog

    if why := _configure_log(config, path):
        structlog.get_logger().warning("logging to stderr instead", why=why)


@contextmanager
def logged(config: Config) -> Iterator[None]:
    """Log where the admin said what a person's command does.

    If the log cannot be written, the command says so when it has succeeded. Who may not write the log may
    often do nothing else either, and then needs to read that alone.

    Args:
        config: What the admin wrote.
    """
    why = _configure_log(config, config.log)
    yield
    if why:
        print(f"qpu-slurm: {why} The log of this command was printed instead.", file=sys.stderr)


def _configure_log(config: Config, path: Path | None) -> str:
    """Log to a file, or else to stderr; return why not to the file."""
    from qpu_slurm.system import logs

    try:
        logs.configure(config.log_level, path or config.log, config.audit_syslog)
    except ConfigError as error:
        logs.configure(config.log_level, syslog=config.audit_syslog)
        return str(error)
    return ""


def job_id(text: str) -> int:
    """Read a job's number."""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) < 1 << 32):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is not a job id")
    return int(text)


def user_id(text: str) -> int:
    """Read a user's number."""
    if not (text.isascii() and text.isdigit() and int(text[:20]) < (1 << 32) - 1):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is not a user id")
    return int(text)


def step(text: str) -> str:
    """Read Slurm's id of a step."""
    from qpu_slurm.names import STEP

    if not STEP.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is not a step id")
    return text


def step_mark(text: str) -> str:
    """Read what tells a step from all others."""
    from qpu_slurm.names import STEP_MARK

    if not STEP_MARK.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is not a step's mark")
    return text


def time(text: str) -> float:
    """Read a time, in seconds since the epoch."""
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is not a time in seconds since the epoch")
    return float(text)
