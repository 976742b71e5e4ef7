# SPDX-License-Identifier: Apache-2.0
"""What the emulator answers, one module for each part of the API."""
