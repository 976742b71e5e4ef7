# SPDX-License-Identifier: Apache-2.0
"""Metrics without a gateway behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric


class NoState(Collector):
    """Describes nothing."""

    def collect(self) -> Iterable[Metric]:
        return ()
