# SPDX-License-Identifier: Apache-2.0
"""The code that speaks to quantum services."""
