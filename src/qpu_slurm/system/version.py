# SPDX-License-Identifier: Apache-2.0
"""The release: a constant, since reading an installed package's metadata takes 7 ms."""

from __future__ import annotations

__version__ = "0.2.0.dev0"
