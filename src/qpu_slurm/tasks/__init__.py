# SPDX-License-Identifier: Apache-2.0
"""Tasks: their inputs and results, and the runner that executes them."""
