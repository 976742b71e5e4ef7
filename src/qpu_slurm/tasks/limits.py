# SPDX-License-Identifier: Apache-2.0
"""How much of an input is looked at."""

from __future__ import annotations

from typing import Final

HEAD: Final = 1024
"""Characters that say what a string is; an outline keeps as many."""
