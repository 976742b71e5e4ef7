# SPDX-License-Identifier: Apache-2.0
"""What the gateway answers, one module for each part of it."""
