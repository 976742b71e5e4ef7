# SPDX-License-Identifier: Apache-2.0
"""A task's times, out of the metrics that the service gives."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Timestamps(msgspec.Struct):
    created: datetime | None = None
    running: datetime | None = None
    finished: datetime | None = None


class _Usage(msgspec.Struct):
    quantum_seconds: float | None = None


class _Metrics(msgspec.Struct):
    """What we read of GET /jobs/{id}/metrics; all of it may be missing."""

    timestamps: _Timestamps | None = None
    usage: _Usage | None = None
    position_in_queue: int | None = None


class Times(msgspec.Struct, frozen=True):
    """Where a task's time went, by the service's clock; None is what the service did not say.

    Attributes:
        queued: Seconds from when the service took it until it ran.
        running: Seconds that it ran.
        quantum: Seconds of QPU time that are paid for.
        position: Its place in the queue, from 1.
    """

    queued: float | None = None
    running: float | None = None
    quantum: float | None = None
    position: int | None = None


def read(metrics: Mapping[str, Any]) -> Times:
    """Read the times out of a task's metrics; metrics of another shape have none."""
    try:
        found = msgspec.convert(metrics, _Metrics)
        stamps, usage = found.timestamps or _Timestamps(), found.usage or _Usage()
        return Times(
            _between(stamps.created, stamps.running),
            _between(stamps.running, stamps.finished),
            usage.quantum_seconds,
            found.position_in_queue,
        )
    except (msgspec.ValidationError, TypeError):  # TypeError: one time has a zone, and the other has none
        return Times()


def _between(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else max((end - begin).total_seconds(), 0.0)
