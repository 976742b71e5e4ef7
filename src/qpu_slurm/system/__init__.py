# SPDX-License-Identifier: Apache-2.0
"""What every room may use of the operating system: files, logs, MUNGE, systemd, time."""
