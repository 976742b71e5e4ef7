# SPDX-License-Identifier: Apache-2.0
"""The `task_runner` command."""
