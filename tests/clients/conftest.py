# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the clients' tests; the emulator and the gateway are those of the integration tests."""

from __future__ import annotations

from tests.integration.conftest import emulator, shared_emulator, shared_site, site

__all__ = ["emulator", "shared_emulator", "shared_site", "site"]
