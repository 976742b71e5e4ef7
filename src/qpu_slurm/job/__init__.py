# SPDX-License-Identifier: Apache-2.0
"""What a job's steps share: their variables, and what they keep on their node."""
