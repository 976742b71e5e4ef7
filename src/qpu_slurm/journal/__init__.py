# SPDX-License-Identifier: Apache-2.0
"""The crash-safe record of leases and of what happened to them."""
